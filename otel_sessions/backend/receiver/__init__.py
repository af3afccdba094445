"""OTLP in, over HTTP and gRPC: limits, and the answers that exporters act on."""
