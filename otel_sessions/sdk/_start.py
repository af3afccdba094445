"""The functions that start, find and end sessions."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from opentelemetry.trace import SpanContext, TraceFlags

from otel_sessions.lifecycle import ENDINGS
from otel_sessions.sdk import _carry, _context, _provider
from otel_sessions.sdk._guard import guard, say_once
from otel_sessions.sdk._options import TOKEN_PREFIX, Nested, Options, OutcomeName, ending_of
from otel_sessions.sdk._session import Session, begin, root_of, scope_of

__all__ = ["current_session", "end_session", "session", "start_session", "start_solo"]


def session(
    name: str = "session",
    *,
    id: str | None = None,  # noqa: A002 - the word of the convention, session.id
    title: str | None = None,
    user_id: str | None = None,
    conversation_id: str | None = None,
    tags: Iterable[str] = (),
    attributes: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    idle_timeout: float | None = None,
    resume: str | None = None,
    nested: Nested = "root",
) -> Session:
    """Return a session that has not started: a block (`with`, `async with`) or a decorator.

    `name` is of low cardinality ("plan trip"), `title` the human text of this one session. `id` is made
    up unless given; `resume` goes on with a session, by its id or by a token of `Session.resume_token()`,
    under that id unless `id` names another. `user_id` and `conversation_id` are put
    on every span as `user.id` and `gen_ai.conversation.id`, `attributes` and `tags` on the root span.
    `timeout` and `idle_timeout`, in seconds, end the session but never interrupt code; idle is a session
    without open model or tool call, without any span starting or ending, that does not wait.
    A session starts a trace of its own that links to the span that is current; `nested="child"` makes it a
    child of that span instead.

    Raises ConfigurationError for a value of the wrong kind, ResumeTokenError for a token that is forged or
    expired, and SessionReuseError when it starts twice.
    """
    before, root = _taken_up(resume)
    return Session(
        Options.checked(
            name=name,
            id=id,
            title=title,
            user_id=user_id,
            conversation_id=conversation_id,
            tags=tags,
            attributes=attributes,
            timeout=timeout,
            idle_timeout=idle_timeout,
            resume=before,
            resumed_root=root,
            nested=nested,
        )
    )


def _taken_up(resume: Any) -> tuple[Any, SpanContext | None]:
    """Return the id of a session that is gone on with, and the root that a token names."""
    if not isinstance(resume, str) or not resume.startswith(TOKEN_PREFIX):
        return resume, None
    from otel_sessions.sdk import _resume  # noqa: PLC0415 - few programs need it

    said = _resume.opened(resume, _resume.key_for_reading(os.environ), time.time())
    flags = TraceFlags(TraceFlags.SAMPLED)
    root = SpanContext(said.trace_id, said.span_id, is_remote=True, trace_flags=flags)
    return said.session_id, root if root.is_valid else None


def start_session(
    name: str = "session",
    *,
    id: str | None = None,  # noqa: A002 - as in session()
    title: str | None = None,
    user_id: str | None = None,
    conversation_id: str | None = None,
    tags: Iterable[str] = (),
    attributes: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    idle_timeout: float | None = None,
    resume: str | None = None,
    nested: Nested = "root",
) -> Session:
    """Start a session and return it, for code without a block (notebooks, servers); see `session`.

    It is current in this context until `end()`. A session started inside another nests. In IPython a new
    start ends the one that an earlier start began (`superseded`): there is no block to leave there.
    """
    made = session(
        name,
        id=id,
        title=title,
        user_id=user_id,
        conversation_id=conversation_id,
        tags=tags,
        attributes=attributes,
        timeout=timeout,
        idle_timeout=idle_timeout,
        resume=resume,
        nested=nested,
    )
    if _ipython() is not None:
        return start_solo(made)
    begin(made)
    return made


class _Solo:
    """The session that only another start ends: there is no block to leave. `shell` is the one it runs in."""

    __slots__ = ("session", "shell")

    def __init__(self) -> None:
        self.session: Session | None = None
        self.shell: object = None


_solo: Final = _Solo()


def start_solo(made: Session, *, current: bool = True) -> Session:
    """Start a session, and end the one that was started so before; `current` in this context, or in none.

    Where the environment carried that one into child processes, it carries the new one from now on.
    """
    former, _solo.session = _solo.session, made
    if former is not None:
        root, scope = root_of(former), scope_of(former)
        if root is not None and scope is not None:
            root.end(ENDINGS["superseded"])
            _context.leave(scope)
    begin(made, current=current)
    with guard("environment"):
        if former is not None and _carry.is_announced(former):
            _carry.announce(made)
    with guard("IPython"):
        _outlive_cells(_ipython())
    return made


def _outlive_cells(shell: Any) -> None:
    """Have the session current in each cell: one that awaits runs in a context that is gone with it."""
    if shell is not None and _solo.shell is not shell:
        shell.events.register("pre_run_cell", _begin_cell)
        _solo.shell = shell


def _begin_cell(_info: object) -> None:
    session = _solo.session
    scope = None if session is None else scope_of(session)
    if scope is not None and not scope.free and not scope.left and _context.current_scope() is None:
        _context.enter(scope)


def current_session() -> Session | None:
    """Return the session of this context, or None; sessions of other contexts are theirs alone."""
    return _provider.here()[0]


def end_session(
    outcome: OutcomeName | None = None, *, reason: str | None = None, message: str | None = None
) -> bool:
    """End the session of this context; see `Session.end`. Without one return False, and log that once."""
    ending_of(outcome, reason)
    here = current_session()
    if here is None:
        say_once(
            "no session", "otel_sessions: end_session() was called where no session is current; nothing ended"
        )
        return False
    return here.end(outcome, reason=reason, message=message)


def _ipython() -> Any:
    """Return the shell of IPython, or None where there is none."""
    ipython = sys.modules.get("IPython")
    with guard("IPython"):
        return None if ipython is None else ipython.get_ipython()
    return None
