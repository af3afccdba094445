"""Which web pages may send telemetry: origins as text, asked of each request of a browser; pure.

Whatever page a user opens could otherwise write sessions into a backend on the same machine. So by default
only pages that come from this machine may; others are named, or all let in, with `--otlp-origins`.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

__all__ = ["LOOPBACK_ORIGINS", "Origins", "parse_origins"]

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\*\.)?[a-z0-9.\-\[\]:_]+(:\*)?")
_WRONG: Final = (
    "write loopback, none, * or origins with commas between, as in https://app.example, https://*.example, "
    "http://host:*"
)


@dataclass(frozen=True, slots=True)
class Origins:
    """Origins that are let in; `patterns` may have `*.` before the host and `:*` for any port."""

    everybody: bool = False
    loopback: bool = False
    patterns: tuple[str, ...] = ()

    def admit(self, origin: str) -> bool:
        """Tell whether pages of an origin, as in a request's Origin header, may send telemetry."""
        origin = origin.lower()
        if self.everybody or (self.loopback and _is_loopback(origin)):
            return True
        return any(_matches(origin, pattern) for pattern in self.patterns)


LOOPBACK_ORIGINS: Final = Origins(loopback=True)


def parse_origins(text: str) -> Origins:
    """Read `loopback`, `none`, `*` or origins with commas between. Raises ValueError with what to write."""
    parts = {part.strip().lower().rstrip("/") for part in text.split(",")}
    patterns = parts - {"*", "loopback", "none", ""}
    if not parts - {""} or ("none" in parts and len(parts) > 1):
        raise ValueError(_WRONG)
    if not all(_ORIGIN.fullmatch(pattern) for pattern in patterns):
        raise ValueError(_WRONG)
    return Origins("*" in parts, "loopback" in parts, tuple(sorted(patterns)))


def _matches(origin: str, pattern: str) -> bool:
    if pattern.endswith(":*"):
        pattern = pattern.removesuffix(":*")
        origin = re.sub(r":\d+$", "", origin)
    scheme, wildcard, host = pattern.partition("://*.")
    if not wildcard:
        return origin == pattern
    return origin.startswith(f"{scheme}://") and origin.endswith(f".{host}")


def _is_loopback(origin: str) -> bool:
    try:
        host = urlsplit(origin).hostname or ""
        return host == "localhost" or host.endswith(".localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
