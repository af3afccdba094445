"""The page: its shell, its files, and who may ask for them."""

from __future__ import annotations

from aiohttp import web

from otel_sessions.backend.services import Services
from otel_sessions.backend.web.assets import load_assets
from otel_sessions.backend.web.pages import page_routes

__all__ = ["routes"]


def routes(_services: Services) -> list[web.AbstractRouteDef]:
    """Return the routes of the page; its files are read here, once."""
    return page_routes(load_assets())
