"""What a caller says of a session, checked before anything is done with it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from opentelemetry.trace import SpanContext

from otel_sessions import semconv
from otel_sessions.errors import ConfigurationError
from otel_sessions.lifecycle import ENDINGS, Ending, EndReason, Outcome
from otel_sessions.sdk._values import attribute_values, shown, to_json

__all__ = [
    "LONGEST_NAME",
    "TOKEN_PREFIX",
    "Nested",
    "Options",
    "OutcomeName",
    "ending_of",
    "patience",
    "seconds",
    "switch",
    "text",
]

Nested = Literal["root", "child"]
OutcomeName = Literal["ok", "error", "cancelled"]

LONGEST_NAME: Final = 1_000
"""Characters of a name or an id, which every span bears: as many as the backend's index keeps of one."""

TOKEN_PREFIX: Final = "osr1."  # noqa: S105 - no secret
"""What a resume token begins with; no id of a session does."""

_NESTED: Final = ("root", "child")
_LONGEST_TIME: Final = 1e9
"""Seconds of a timeout, 30 years; beyond, clocks overflow."""
_LONGEST_WAIT: Final = 30 * 86_400.0
"""Seconds that anybody waits; Windows waits no longer than 49 days."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a session; see `otel_sessions.session`."""

    name: str = "session"
    id: str | None = None
    title: str | None = None
    user_id: str | None = None
    conversation_id: str | None = None
    tags: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    timeout: float | None = None
    idle_timeout: float | None = None
    resume: str | None = None
    resumed_root: SpanContext | None = None
    nested: Nested = "root"

    @classmethod
    def checked(
        cls,
        *,
        name: Any,
        id: Any,  # noqa: A002 - the word of the convention, session.id
        title: Any,
        user_id: Any,
        conversation_id: Any,
        tags: Any,
        attributes: Any,
        timeout: Any,
        idle_timeout: Any,
        resume: Any,
        resumed_root: SpanContext | None = None,
        nested: Any,
    ) -> Options:
        """Make options of what a caller passed; raise ConfigurationError for a value of the wrong kind."""
        _one_of("nested", nested, _NESTED)
        return cls(
            name=text("name", name),
            id=_optional_text("id", id),
            # These may well be empty: a prompt, a header that was not sent.
            title=_title(title),
            user_id=_unless_empty("user_id", user_id),
            conversation_id=_unless_empty("conversation_id", conversation_id),
            tags=_texts("tags", tags),
            attributes=attribute_values({} if attributes is None else attributes),
            timeout=seconds("timeout", timeout),
            idle_timeout=seconds("idle_timeout", idle_timeout),
            resume=_optional_text("resume", resume),
            resumed_root=resumed_root,
            nested=nested,
        )

    def stamp(self, session_id: str) -> dict[str, str]:
        """Return the attributes that every span of the session bears."""
        stamp = {semconv.SESSION_ID: session_id}
        if self.user_id is not None:
            stamp[semconv.USER_ID] = self.user_id
        if self.conversation_id is not None:
            stamp[semconv.GEN_AI_CONVERSATION_ID] = self.conversation_id
        return stamp

    def root_attributes(self) -> dict[str, Any]:
        """Return the attributes of the root span at its start, besides the stamp."""
        attributes = {**self.attributes, semconv.SESSION_NAME: self.name}
        if self.title is not None:
            attributes[semconv.SESSION_TITLE] = self.title
        if self.tags:
            attributes[semconv.SESSION_TAGS] = self.tags
        return attributes


def ending_of(outcome: str | None, reason: str | None) -> Ending:
    """Return the ending that a caller names; raise ConfigurationError for an unknown outcome or reason."""
    if outcome is not None:
        _one_of("outcome", outcome, [known.value for known in Outcome])
    if reason is not None:
        _one_of("reason", reason, [known.value for known in EndReason])
    ending = next(e for e in ENDINGS.values() if e.reason.value == (reason or EndReason.COMPLETED.value))
    if outcome is None:
        return ending
    return ending._replace(outcome=Outcome(outcome), error=outcome == Outcome.ERROR.value)


def text(option: str, value: Any) -> str:
    """Return a name or id; half a surrogate pair, which no exporter can send, becomes "?".

    Raises ConfigurationError for what is no string, empty, or longer than LONGEST_NAME.
    """
    if not isinstance(value, str):
        if callable(value):
            raise ConfigurationError(
                f"{option} is a function: as a decorator write a name first, @…('plan trip')"
            )
        raise ConfigurationError(f"{option}={shown(value)} has to be a string that is not empty")
    if not value:
        raise ConfigurationError(f"{option}='' has to be a string that is not empty")
    if len(value) > LONGEST_NAME:
        raise ConfigurationError(
            f"{option}={shown(value)} has {len(value):,} characters, and every span would bear them: "
            f"write at most {LONGEST_NAME:,}, such as a hash of it; longer texts go into title or attributes"
        )
    return value.encode("utf-8", "replace").decode()


def patience(timeout: Any) -> float:
    """Return how many seconds a caller waits; one who has none left (below 0) does not wait.

    Raises ConfigurationError for what is no number.
    """
    if not _is_number(timeout) or timeout != timeout:  # noqa: PLR0124 - only NaN differs from itself
        raise ConfigurationError(f"timeout={shown(timeout)} has to be a number of seconds")
    return float(min(max(timeout, 0.0), _LONGEST_WAIT))


def seconds(option: str, value: Any) -> float | None:
    """Return a stretch of time, None for none; raise ConfigurationError for what is neither."""
    if value is None:
        return None
    if not _is_number(value) or not 0 < value <= _LONGEST_TIME:
        raise ConfigurationError(
            f"{option}={shown(value)} has to be a number of seconds above 0 and below 30 years, or None"
        )
    return float(value)


def switch(option: str, value: Any) -> None:
    """Raise ConfigurationError for what is neither True nor False nor left out."""
    if value is not None and not isinstance(value, bool):
        raise ConfigurationError(f"{option}={shown(value)} is no switch: write True or False")


def _one_of(option: str, value: Any, known: Iterable[str]) -> None:
    if not isinstance(value, str) or value not in known:
        raise ConfigurationError(f"{option}={shown(value)} is not known: write one of {', '.join(known)}")


def _optional_text(option: str, value: Any) -> str | None:
    return None if value is None else text(option, value)


def _unless_empty(option: str, value: Any) -> str | None:
    return None if isinstance(value, str) and not value else _optional_text(option, value)


def _title(value: Any) -> str | None:
    """Return content for people, cut like all content."""
    if value is None or isinstance(value, str):
        return to_json(value) if value else None
    return text("title", value)  # which says what is wrong


def _texts(option: str, values: Any) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ConfigurationError(f"{option} has to be a list of strings: write [{shown(values)}]")
    return tuple(text(option, value) for value in values)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
