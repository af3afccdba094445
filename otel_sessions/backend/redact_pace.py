"""Whether patterns of users keep the pace of ours, tried once at the start.

RE2 takes a time linear in the text, but the automaton of all patterns may need a new state for every byte:
`[a-z].{30}x` remembers where each of the last 30 letters was. Its size doesn't tell: that one is small.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

from otel_sessions.backend.redact import Redactor
from otel_sessions.backend.redact_patterns import DEFAULTS, Pattern
from otel_sessions.errors import ConfigurationError

__all__ = ["MOST_TIMES", "check_pace"]

MOST_TIMES: Final = 20
"""How much longer than with our patterns alone a sample may take: sane ones take up to 2 times as long, what
counts letters in hundreds 5 to 16, what needs a state for each byte 35 and more."""

_TICK: Final = 2_000_000  # ns; Windows counts CPU time in steps of 15.6 ms
_OTHERS: Final = 3
_LETTERS: Final = 16_000  # of each alphabet in the sample
_ALPHABETS: Final = (
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
    "abcdefghijklmnopqrstuvwxyz    ,.\n",
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZäöéßжд ",
)


def check_pace(patterns: Sequence[Pattern], now: Callable[[], int]) -> None:
    """Try the patterns on a sample; `now` counts the CPU time of this thread in ns.

    Raises ConfigurationError that names a pattern with which the search takes more than MOST_TIMES as long.
    """
    own = [one for one in patterns if one not in DEFAULTS]
    if not own:
        return
    most = MOST_TIMES * max(_took(DEFAULTS, now), _TICK)
    if _took(patterns, now) <= most:
        return
    for one in own:
        if _took((*DEFAULTS, one), now) > most:
            raise ConfigurationError(
                f"the pattern {one.kind}={one.regex} makes the search for secrets more than {MOST_TIMES} "
                "times slower; begin it with fixed letters, or repeat less in it."
            )
    raise ConfigurationError(
        f"the patterns of --redact-pattern make the search for secrets more than {MOST_TIMES} times slower "
        "together; give fewer."
    )


def _took(patterns: Sequence[Pattern], now: Callable[[], int]) -> int:
    """Scan one sample after others: an automaton that is sane has met its states by then."""
    redactor = Redactor(patterns)
    draw = random.Random(1)  # noqa: S311 - samples, the same each time
    for _ in range(_OTHERS):
        redactor.scan(_sample(draw))
    last = _sample(draw)
    began = now()
    redactor.scan(last)
    return now() - began


def _sample(draw: random.Random) -> bytes:
    """Make a text of what looks like base64, of words, of letters of some languages."""
    return "\n".join("".join(draw.choices(letters, k=_LETTERS)) for letters in _ALPHABETS).encode()
