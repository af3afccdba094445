"""The other side of the wire: receives OTLP, stores it, knows what is alive, and shows it."""
