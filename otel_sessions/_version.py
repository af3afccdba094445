"""The version, read by the build and sent as the scope version of life cycle events."""

__version__ = "0.1.0"
