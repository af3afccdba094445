"""The session ids of the field as statements of the Collector, made from the backend's vocabulary.

`python tests/neighbours/session_ids.py RECORD TARGET` prints them for collector-config/, RECORD being span or
log; a test compares what stands there with what is printed.
"""

from __future__ import annotations

import sys

from otel_sessions import semconv
from otel_sessions.backend.vocabulary import ABSENT, EMITTERS, IDS, PATTERNS

__all__ = ["statements"]

_SCOPES = dict(EMITTERS)


def statements(record: str, target: str) -> list[str]:
    """Return what fills the attribute `target` of a "span" or "log" with its session id, one line a variant.

    The order is the backend's: the record's own variants, then `session.id` of its resource. What stands in
    `target` already is kept, unless it is one of the texts that mean nothing.
    """
    filled = f'{record}.attributes["{target}"]'
    # A copy of nothing leaves an empty value behind, which is not the same as none.
    meaningless = f"delete_key({record}.attributes, {_text(target)}) where {filled} == nil"
    meaningless += f" or IsMatch({filled}, {_absent()})"
    first, *others = IDS["session"]
    lines = [] if target == first else [_copied(record, filled, first)]
    lines += [meaningless, *(_copied(record, filled, key) for key in others)]
    resource = f'resource.attributes["{semconv.SESSION_ID}"]'
    lines.append(f"set({filled}, String({resource})) where {filled} == nil")
    scope, quoted, quote = _text(_SCOPES["AS"]), _text('^".*"$'), _text('"')
    when = f"HasPrefix(scope.name, {scope}) and IsMatch({filled}, {quoted})"
    return [*lines, f"set({filled}, Trim({filled}, {quote})) where {when}", meaningless]


def _copied(record: str, filled: str, key: str) -> str:
    owner, mark, bare = key.partition(":")
    name, _, path = (bare if mark else key).partition("#")
    source = f'{record}.attributes["{name}"]'
    value, when = f"String({source})", [f"{filled} == nil"]
    if mark:
        when.append(f'HasPrefix(scope.name, "{_SCOPES[owner]}")')
    if path:
        value = f'String(ParseJSON({source})["{path}"])'
        holds = _text('^{.*"' + path + '"')
        when.append(f"IsMatch({source}, {holds})")
    if pattern := PATTERNS.get((owner, key)):
        looks, found = _text(f"^{pattern}$"), _text(f"^{pattern}$".replace("(", "(?P<id>", 1))
        value = f'ExtractPatterns({source}, {found})["id"]'
        when.append(f"IsMatch({source}, {looks})")
    return f"set({filled}, {value}) where {' and '.join(when)}"


def _absent() -> str:
    plain = (text.replace("[", r"\[").replace("]", r"\]") for text in ABSENT)
    return _text(f"^({'|'.join(sorted(plain))})$")


def _text(value: str) -> str:
    """Write a text as the Collector's statements have it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


if __name__ == "__main__":
    for line in statements(*sys.argv[1:]):
        print(f"      - '{line}'")
