"""Patterns of users, `NAME=REGEX` a line: read, checked, and put beside or in place of ours."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import re2

from otel_sessions.backend.redact_patterns import ATTRIBUTE, DEFAULTS, Pattern, loosened

__all__ = ["MAX_PATTERNS", "patterns_with"]

MAX_PATTERNS: Final = 100
"""Of users; each has its number in `/metrics`."""

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")


def patterns_with(lines: Iterable[str]) -> tuple[Pattern, ...]:
    """Return our patterns and those of `lines`; one named as ours replaces it, without REGEX removes it.

    Empty lines, and those that begin with `#`, are passed over. Raises ValueError that names what is wrong.
    """
    own = [_read(line) for line in map(str.strip, lines) if line and not line.startswith("#")]
    if len(own) > MAX_PATTERNS:
        raise ValueError(f"more than {MAX_PATTERNS} patterns")
    names = {pattern.kind for pattern in own}
    return (*(one for one in DEFAULTS if one.kind not in names), *(one for one in own if one.regex))


def _read(line: str) -> Pattern:
    name, equals, regex = line.partition("=")
    if not equals or _NAME.fullmatch(name) is None or name == ATTRIBUTE:
        raise ValueError(f"{line!r} is no NAME=REGEX, with a name of small letters, digits and hyphens")
    if not regex and all(name != pattern.kind for pattern in DEFAULTS):
        raise ValueError(f"{line!r} switches off what is not there; of ours are: {_OURS}")
    _check(name, regex)
    return Pattern(name, regex, "of this backend's user")


_OURS: Final = ", ".join(dict.fromkeys(pattern.kind for pattern in DEFAULTS))


def _check(name: str, regex: str) -> None:
    """Raise ValueError for what RE2 can't read, and for what would find a secret in every text."""
    try:
        found = re2.compile(loosened(regex), _quiet()).search("") if regex else None
        re2.compile(regex, _quiet())
    except re2.error as error:
        [reason] = error.args
        told = reason.decode() if isinstance(reason, bytes) else reason
        raise ValueError(f"the pattern {name}={regex} can't be read by RE2: {told}") from error
    if found is not None:
        raise ValueError(f"the pattern {name}={regex} matches the empty text, and so everything")


def _quiet() -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    return options
