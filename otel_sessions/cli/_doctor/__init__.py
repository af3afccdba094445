"""What `otel-sessions doctor` looks at: facts are gathered at the edge, findings follow from them purely."""
