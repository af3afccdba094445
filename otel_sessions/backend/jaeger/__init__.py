"""Jaeger's HTTP APIs over the same store, under /jaeger/: v1, as Grafana speaks it, and v3.

The answers are those of Jaeger 1.62 for the same spans, errors included. What it can't know is left out:
spans that are still open. What it can't show is added: the root of a lost run, which never came, marked as
made up (`lost.py`).
"""

from __future__ import annotations

from otel_sessions.backend.jaeger.endpoints import routes

__all__ = ["routes"]
