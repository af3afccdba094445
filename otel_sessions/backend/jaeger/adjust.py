"""What Jaeger's query service notices in a trace before it shows it; pure.

The rules are those of Jaeger 1.62 (model/adjuster) with its own default of no clock skew adjustment: times
stay as they came, and a span that does not fit into its parent only gets a warning. No recursion: a chain
of ten thousand spans is as good as one of ten.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from otel_sessions.backend.jaeger.golang import duration_text
from otel_sessions.backend.jaeger.model import (
    CHILD_OF,
    TYPES,
    Log,
    Process,
    Reference,
    Span,
    Tag,
    host_of,
    parent_of,
    references_of,
)

__all__ = ["Node", "adjusted", "node_of", "trace_warnings"]

_IP_TAGS: Final = frozenset({"ip", "peer.ipv4"})
_LIBRARY_TAGS: Final = frozenset(
    {
        "telemetry.sdk.language",
        "telemetry.sdk.name",
        "telemetry.sdk.version",
        "telemetry.distro.name",
        "telemetry.distro.version",
    }
)


class Node(NamedTuple):
    """What of a span is needed to judge its place in the trace."""

    span_id: bytes
    parent_id: bytes  # b"" for a root
    start: int
    duration: int
    host: str


def node_of(span: SpanMessage, process: Process) -> Node:
    """Return the node of a span, without turning the rest of it into Jaeger's."""
    begin, end = span.start_time_unix_nano, span.end_time_unix_nano
    parent = parent_of(span.trace_id, references_of(span))
    return Node(span.span_id, parent, begin, end - begin, host_of(process))


# --- The trace as a whole ---------------------------------------------------------------------------------


def trace_warnings(nodes: Iterable[Node]) -> dict[bytes, list[str]]:
    """Return the warnings of each span that has any: a missing parent, times beyond its parent's."""
    by_id = {node.span_id: node for node in nodes}
    children: defaultdict[bytes, list[Node]] = defaultdict(list)
    warnings: dict[bytes, list[str]] = {}
    waiting: list[tuple[Node, int]] = []  # whose children are to be judged, and what they may inherit
    for node in by_id.values():
        if node.parent_id in by_id:
            children[node.parent_id].append(node)
            continue
        waiting.append((node, 0))
        if node.parent_id:
            missing = f"invalid parent span IDs={node.parent_id.hex()}; skipping clock skew adjustment"
            warnings[node.span_id] = [missing]
    while waiting:
        parent, inherited = waiting.pop()
        for child in children[parent.span_id]:
            same_host = child.host and child.host == parent.host
            delta = inherited if same_host else _skew(child, parent)
            if delta:
                warnings.setdefault(child.span_id, []).append(_disabled(delta))
            waiting.append((child, delta))
    return warnings


def _skew(child: Node, parent: Node) -> int:
    """Return by how much Jaeger would move a child, in ns, so that it fits into its parent."""
    if child.duration > parent.duration:
        return max(0, parent.start - child.start)
    fits = child.start >= parent.start and child.start + child.duration <= parent.start + parent.duration
    latency = (parent.duration - child.duration) // 2
    return 0 if fits else parent.start + latency - child.start


def _disabled(delta: int) -> str:
    return f"clock skew adjustment disabled; not applying calculated delta of {duration_text(delta)}"


# --- One span ---------------------------------------------------------------------------------------------


def adjusted(span: Span) -> tuple[Span, list[str]]:
    """Return a span with its tags in order and its references valid, and the warnings about these."""
    tags = [_with_ip(tag) for tag in span.tags]
    library = [tag for tag in tags if tag.key in _LIBRARY_TAGS]
    process_tags = [*map(_with_ip, span.process.tags), *library]
    references, warnings = _valid(span.references)
    changed = span._replace(
        tags=_sorted(tag for tag in tags if tag.key not in _LIBRARY_TAGS),
        process=Process(span.process.service, _sorted(process_tags)),
        logs=tuple(Log(log.at, _event_first(log.fields)) for log in span.logs),
        references=_parent_first(span.trace_id, references),
    )
    return changed, warnings


def _with_ip(tag: Tag) -> Tag:
    """Write an address that came as a number as one."""
    if tag.key not in _IP_TAGS or tag.type not in ("int64", "float64"):
        return tag
    return Tag(tag.key, "string", ".".join(map(str, (int(tag.value) & 0xFFFFFFFF).to_bytes(4, "big"))))


def _sorted(tags: Iterable[Tag]) -> tuple[Tag, ...]:
    return tuple(sorted(tags, key=lambda tag: (tag.key, TYPES.index(tag.type), tag.value)))


def _event_first(fields: Sequence[Tag]) -> tuple[Tag, ...]:
    at = next((i for i, tag in enumerate(fields) if tag.key == "event" and tag.type == "string"), None)
    if at is None:
        return _sorted(fields)
    return (fields[at], *_sorted([*fields[:at], *fields[at + 1 :]]))


def _valid(references: Sequence[Reference]) -> tuple[list[Reference], list[str]]:
    good = [reference for reference in references if any(reference.trace_id)]
    return good, [_removed(reference) for reference in references if not any(reference.trace_id)]


def _removed(reference: Reference) -> str:
    ids = f"TraceID:{'0' * 16} SpanID:{reference.span_id.hex()}"
    return f"Invalid span reference removed {{{ids} RefType:{reference.type}}}"


def _parent_first(trace_id: bytes, references: list[Reference]) -> tuple[Reference, ...]:
    """Swap the reference to the parent with the first one, as Jaeger's page expects it."""
    own = [at for at, reference in enumerate(references) if reference.trace_id == trace_id]
    chosen = next((at for at in own if references[at].type == CHILD_OF), own[0] if own else 0)
    if chosen:
        references[0], references[chosen] = references[chosen], references[0]
    return tuple(references)
