"""What a caller says of a session, checked before anything is done with it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from otel_sessions import semconv
from otel_sessions.errors import ConfigurationError
from otel_sessions.lifecycle import ENDINGS, Ending, EndReason, Outcome
from otel_sessions.sdk._values import attribute_values

__all__ = ["Nested", "Options", "OutcomeName", "ending_of", "text"]

Nested = Literal["root", "child"]
OutcomeName = Literal["ok", "error", "cancelled"]

_NESTED: Final = ("root", "child")


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
        nested: Any,
    ) -> Options:
        """Make options of what a caller passed; raise ConfigurationError for a value of the wrong kind."""
        if nested not in _NESTED:
            raise ConfigurationError(f"nested={nested!r} is not known: write 'root' or 'child'")
        return cls(
            name=text("name", name),
            id=_optional_text("id", id),
            # Content, which may well be empty: a prompt, a header that was not sent.
            title=_content("title", title),
            user_id=_content("user_id", user_id),
            conversation_id=_content("conversation_id", conversation_id),
            tags=_texts("tags", tags),
            attributes=attribute_values(attributes or {}),
            timeout=_seconds("timeout", timeout),
            idle_timeout=_seconds("idle_timeout", idle_timeout),
            resume=_optional_text("resume", resume),
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
    outcomes = [known.value for known in Outcome]
    reasons = [known.value for known in EndReason]
    if outcome is not None and outcome not in outcomes:
        raise ConfigurationError(f"outcome={outcome!r} is not known: write one of {', '.join(outcomes)}")
    if reason is not None and reason not in reasons:
        raise ConfigurationError(f"reason={reason!r} is not known: write one of {', '.join(reasons)}")
    ending = next(e for e in ENDINGS.values() if e.reason.value == (reason or EndReason.COMPLETED.value))
    if outcome is None:
        return ending
    return ending._replace(outcome=Outcome(outcome), error=outcome == Outcome.ERROR.value)


def text(option: str, value: Any) -> str:
    """Return a text that is not empty; half a surrogate pair, which no exporter can send, becomes "?"."""
    if callable(value):
        raise ConfigurationError(
            f"{option} is a function: as a decorator write a name first, @…('plan trip')"
        )
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{option}={value!r} has to be a string that is not empty")
    return value.encode("utf-8", "replace").decode()


def _optional_text(option: str, value: Any) -> str | None:
    return None if value is None else text(option, value)


def _content(option: str, value: Any) -> str | None:
    return None if value == "" else _optional_text(option, value)


def _texts(option: str, values: Any) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ConfigurationError(f"{option} has to be a list of strings: write [{values!r}]")
    return tuple(text(option, value) for value in values)


def _seconds(option: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ConfigurationError(f"{option}={value!r} has to be a number of seconds above 0, or None")
    return float(value)
