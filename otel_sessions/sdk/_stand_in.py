"""The current span of a session without a block: its root, and after the end what was current before.

`end()` can take a dead root out of its own context only, and a time limit out of none. Tracers of others
take whatever is current as the parent, so a root that stayed current would draw every later span of its
context into the trace of a session that is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import trace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context import Context
    from opentelemetry.trace import Status, StatusCode
    from opentelemetry.util.types import Attributes, AttributeValue

    from otel_sessions.sdk._root import Root

__all__ = ["StandIn"]


class StandIn(trace.Span):
    """Passes everything on to the span that it stands for now, and says that it is of that one's class."""

    def __init__(self, root: Root, before: Context) -> None:
        self._root = root
        self._before = before

    def _now(self) -> trace.Span:
        return trace.get_current_span(self._before) if self._root.ended else self._root.span

    @property  # read only, as pyright won't have it of `object`
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The class that code which looks for the SDK's own spans will find."""
        return type(self._now())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._now(), name)

    def __enter__(self) -> trace.Span:
        return self._now().__enter__()

    def __exit__(self, *exc: Any) -> None:  # noqa: PYI036 - as `Span` has it
        self._now().__exit__(*exc)

    def get_span_context(self) -> trace.SpanContext:
        """See `Span`."""
        return self._now().get_span_context()

    def is_recording(self) -> bool:
        """See `Span`."""
        return self._now().is_recording()

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """See `Span`."""
        self._now().set_attribute(key, value)

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """See `Span`."""
        self._now().set_attributes(attributes)

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        """See `Span`."""
        self._now().add_event(name, attributes, timestamp)

    def add_link(self, context: trace.SpanContext, attributes: Attributes = None) -> None:
        """See `Span`."""
        self._now().add_link(context, attributes)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """See `Span`."""
        self._now().set_status(status, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """See `Span`."""
        self._now().record_exception(exception, attributes, timestamp, escaped)

    def update_name(self, name: str) -> None:
        """See `Span`."""
        self._now().update_name(name)

    def end(self, end_time: int | None = None) -> None:
        """See `Span`."""
        self._now().end(end_time)
