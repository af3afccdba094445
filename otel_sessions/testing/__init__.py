"""For tests of agents: capture the sessions of a block, and see what ran in them.

    with captured_sessions() as captured:
        plan_trip("Lisbon")
    captured.session().assert_tools("search_flights", "book")

No network, no exporter, no thread that outlives the block; a tracer provider of the program's own is not
touched. Times and ids are counted, so that two runs of a test give the same. With pytest the fixture
`captured_sessions` is this block around a test; this module itself needs no pytest. See docs/testing.md.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from otel_sessions import semconv

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from otel_sessions.sdk._capture import Clock, Noted, Recording

__all__ = [
    "Captured",
    "CapturedSession",
    "CapturedSpan",
    "CapturedTask",
    "Tokens",
    "captured_sessions",
]

Kind = Literal["session", "task", "agent", "tool", "model_call", "other"]

_KINDS: Final[Mapping[object, Kind]] = {
    semconv.OPERATION_INVOKE_AGENT: "agent",
    semconv.OPERATION_EXECUTE_TOOL: "tool",
    semconv.OPERATION_CHAT: "model_call",
    "text_completion": "model_call",
    "generate_content": "model_call",
}


@dataclass(frozen=True, slots=True)
class Tokens:
    """What model calls used: `input` includes `cached`, as the conventions say."""

    input: int = 0
    output: int = 0
    cached: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.input + other.input, self.output + other.output, self.cached + other.cached)


@dataclass(frozen=True, slots=True)
class CapturedSpan:
    """One span. Times are Unix nanoseconds of the capture's clock; `end` is None while it is open.

    `name` is the agent's, tool's, model's, task's or session's own, the span's name where it is something
    else. `error` is the type of what it failed with, None where it did not fail. Ids are hex, as on the wire.
    """

    kind: Kind
    name: str
    start: int
    end: int | None
    error: str | None
    message: str | None
    attributes: Mapping[str, Any]
    events: tuple[str, ...]
    span_id: str
    parent_id: str | None
    trace_id: str

    @property
    def session_id(self) -> str | None:
        """The id of its session, if it has one."""
        return self.attributes.get(semconv.SESSION_ID)

    @property
    def task_id(self) -> str | None:
        """The id of its task, if it has one."""
        return self.attributes.get(semconv.TASK_ID)

    @property
    def duration(self) -> float | None:
        """How long it took by the capture's clock, in seconds; None while it is open."""
        return None if self.end is None else (self.end - self.start) / 1e9

    @property
    def tokens(self) -> Tokens:
        """What it used, where it is a model call."""
        if self.kind != "model_call":
            return Tokens()
        return Tokens(
            self.attributes.get(semconv.GEN_AI_USAGE_INPUT_TOKENS, 0),
            self.attributes.get(semconv.GEN_AI_USAGE_OUTPUT_TOKENS, 0),
            self.attributes.get(semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, 0),
        )


@dataclass(frozen=True, slots=True)
class _Spans:
    """Spans in the order in which they started, and what is asked of them."""

    spans: tuple[CapturedSpan, ...]

    @property
    def tools(self) -> tuple[str, ...]:
        """The names of the tools that were called, in the order in which the calls started."""
        return self._names("tool")

    @property
    def agents(self) -> tuple[str, ...]:
        """The names of the agents that ran, in the order in which they started."""
        return self._names("agent")

    @property
    def models(self) -> tuple[str, ...]:
        """The models that were called, in the order in which the calls started."""
        return self._names("model_call")

    @property
    def tokens(self) -> Tokens:
        """What all model calls used."""
        return sum((span.tokens for span in self.spans), Tokens())

    @property
    def errors(self) -> tuple[str, ...]:
        """The names of the spans that failed."""
        return tuple(span.name for span in self.spans if span.error is not None)

    @property
    def open(self) -> tuple[CapturedSpan, ...]:
        """The spans that have not ended."""
        return tuple(span for span in self.spans if span.end is None)

    def span(self, name: str) -> CapturedSpan:
        """Return the one span of that name; raise AssertionError where there is none, or several."""
        found = [span for span in self.spans if span.name == name]
        if len(found) != 1:
            raise AssertionError(f"{len(found)} spans are named {name!r}, not one, in\n{self.tree()}")
        return found[0]

    def tree(self) -> str:
        """Draw all spans as a tree, one line each: `tool search_flights ERROR TimeoutError`."""
        ids = {span.span_id for span in self.spans}
        tops = [span for span in self.spans if span.parent_id not in ids]
        return "\n".join(line for span in tops for line in self._lines(span, 0))

    def assert_tools(self, *names: str, exact: bool = True) -> None:
        """Raise AssertionError unless these tools were called, in this order.

        With `exact=False` others may have been called before, between and after.
        """
        tools = self.tools
        if not (tools == names if exact else _in_this_order(names, tools)):
            how = "called" if exact else "called in this order among others"
            raise AssertionError(f"tools {list(tools)}, but {list(names)} should be {how}, in\n{self.tree()}")

    def assert_tokens(
        self,
        *,
        input: int | None = None,  # noqa: A002 - the convention's word
        output: int | None = None,
        cached: int | None = None,
    ) -> None:
        """Raise AssertionError unless the model calls used exactly as much; what is left out may be any."""
        used = self.tokens
        for name, wanted in (("input", input), ("output", output), ("cached", cached)):
            found = getattr(used, name)
            if wanted is not None and found != wanted:
                raise AssertionError(f"{name} tokens: {found}, not {wanted}, in\n{self.tree()}")

    def _names(self, kind: Kind) -> tuple[str, ...]:
        return tuple(span.name for span in self.spans if span.kind == kind)

    def _lines(self, span: CapturedSpan, depth: int) -> Generator[str]:
        name = span.name if span.kind == "other" else f"{span.kind} {span.name}"
        failed = "" if span.error is None else f" ERROR {span.error}"
        yield "  " * depth + name + failed + (" (open)" if span.end is None else "")
        for below in self.spans:
            if below.parent_id == span.span_id:
                yield from self._lines(below, depth + 1)


@dataclass(frozen=True, slots=True)
class CapturedTask(_Spans):
    """A task with all its spans, the first of which is its own."""

    id: str
    name: str
    state: str
    result: Any


@dataclass(frozen=True, slots=True)
class CapturedSession(_Spans):
    """A session with all its spans, the late ones and those of others included.

    `state` is running or ended; `outcome` and `end_reason` are those of its last run.
    """

    id: str
    name: str
    title: str | None
    user_id: str | None
    tags: tuple[str, ...]
    state: Literal["running", "ended"]
    outcome: str | None
    end_reason: str | None
    tasks: tuple[CapturedTask, ...] = field(default=())

    def task(self, name: str) -> CapturedTask:
        """Return the one task of that name; raise AssertionError where there is none, or several."""
        return _one("task", name, self.tasks)

    def assert_outcome(self, outcome: str | None, reason: str | None = None) -> None:
        """Raise AssertionError unless the session ended with this outcome, and for this reason if given."""
        if self.state != "ended":
            raise AssertionError(f"session {self.name!r} still runs:\n{self.tree()}")
        if self.outcome != outcome or reason not in (None, self.end_reason):
            raise AssertionError(
                f"session {self.name!r} ended as {self.outcome} ({self.end_reason}), not {outcome}"
                f"{f' ({reason})' if reason else ''}:\n{self.tree()}"
            )


class Captured:
    """What was captured so far; after the block it is as it was when the block was left."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    @property
    def clock(self) -> Clock:
        """The clock of the capture: `captured.clock.advance(2.5)` lets seconds pass."""
        return self._recording.clock

    @property
    def tracer_provider(self) -> TracerProvider:
        """The provider that records, for instrumentations: `instrument(tracer_provider=…)`."""
        return self._recording.provider

    @property
    def spans(self) -> tuple[CapturedSpan, ...]:
        """All spans, those outside of sessions too, in the order in which they started."""
        return tuple(_span(noted) for noted in self._recording.noted())

    @property
    def sessions(self) -> tuple[CapturedSession, ...]:
        """All sessions, in the order in which they started."""
        spans = self.spans
        ids = dict.fromkeys(span.session_id for span in spans if span.kind == "session")
        return tuple(_session([s for s in spans if s.session_id == one]) for one in ids if one is not None)

    @property
    def tasks(self) -> tuple[CapturedTask, ...]:
        """All tasks, those outside of sessions too, in the order in which they started."""
        return _tasks(self.spans)

    def session(self, name: str | None = None) -> CapturedSession:
        """Return the one session, or the one of that name; raise AssertionError where there is not one."""
        return _one("session", name, self.sessions)

    def task(self, name: str) -> CapturedTask:
        """Return the one task of that name; raise AssertionError where there is none, or several."""
        return _one("task", name, self.tasks)


@contextmanager
def captured_sessions(*, capture: bool = False, task_traces: bool = False) -> Generator[Captured]:
    """Capture all sessions in this block.

    Calls of `init()` inside change what is recorded (`capture`, `trust_baggage`, `task_traces`) and never
    where it goes; the environment has no say. What is open at the end of the block is ended. Captures may be
    nested; of two at a time in one process the later has all.
    """
    from otel_sessions.sdk._capture import recording  # noqa: PLC0415 - loads the OpenTelemetry SDK

    with recording(capture=capture, task_traces=task_traces) as kept:
        yield Captured(kept)


def _one(kind: str, name: str | None, found: Sequence[Any]) -> Any:
    named = [one for one in found if name in (None, one.name)]
    if len(named) != 1:
        asked = "" if name is None else f" named {name!r}"
        raise AssertionError(f"{len(named)} {kind}s{asked}, not one; there are {[one.name for one in found]}")
    return named[0]


def _in_this_order(names: Iterable[str], among: Iterable[str]) -> bool:
    rest = iter(among)
    return all(name in rest for name in names)


def _span(noted: Noted) -> CapturedSpan:
    span = noted.span
    context: Any = span.get_span_context()
    attributes = dict(span.attributes or {})
    kind = _kind(span.name, attributes)
    failed = span.status.status_code.name == "ERROR"
    return CapturedSpan(
        kind=kind,
        name=_name(kind, span.name, attributes),
        start=noted.start,
        end=noted.end,
        error=str(attributes.get(semconv.ERROR_TYPE, "unknown")) if failed else None,
        message=span.status.description,
        attributes=attributes,
        events=tuple(event.name for event in span.events),
        span_id=f"{context.span_id:016x}",
        parent_id=None if span.parent is None else f"{span.parent.span_id:016x}",
        trace_id=f"{context.trace_id:032x}",
    )


def _kind(name: str, attributes: Mapping[str, Any]) -> Kind:
    if semconv.SESSION_NAME in attributes and name.startswith("session "):
        return "session"
    if semconv.TASK_STATE in attributes:
        return "task"
    return _KINDS.get(attributes.get(semconv.GEN_AI_OPERATION_NAME), "other")


def _name(kind: Kind, name: str, attributes: Mapping[str, Any]) -> str:
    """Return the own name of what a span is of."""
    keys = {
        "session": semconv.SESSION_NAME,
        "agent": semconv.GEN_AI_AGENT_NAME,
        "tool": semconv.GEN_AI_TOOL_NAME,
        "model_call": semconv.GEN_AI_REQUEST_MODEL,
    }
    if kind == "task":
        return name.removeprefix("task ")
    return str(attributes.get(keys.get(kind, ""), name))


def _tasks(spans: Sequence[CapturedSpan]) -> tuple[CapturedTask, ...]:
    return tuple(
        CapturedTask(
            spans=tuple(own for own in spans if own is span or own.task_id == span.task_id),
            id=str(span.task_id),
            name=span.name,
            state=str(span.attributes[semconv.TASK_STATE]),
            result=span.attributes.get(semconv.TASK_RESULT),
        )
        for span in spans
        if span.kind == "task"
    )


def _session(spans: Sequence[CapturedSpan]) -> CapturedSession:
    first, last = [next(s for s in order if s.kind == "session") for order in (spans, list(reversed(spans)))]
    said = first.attributes
    return CapturedSession(
        spans=tuple(spans),
        id=str(first.session_id),
        name=first.name,
        title=said.get(semconv.SESSION_TITLE),
        user_id=said.get(semconv.USER_ID),
        tags=tuple(said.get(semconv.SESSION_TAGS, ())),
        state="running" if last.end is None else "ended",
        outcome=last.attributes.get(semconv.SESSION_OUTCOME),
        end_reason=last.attributes.get(semconv.SESSION_END_REASON),
        tasks=_tasks(spans),
    )
