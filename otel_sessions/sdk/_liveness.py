"""Tells the world which runs of this process are alive: start, heartbeats, states, open spans, ends.

`Liveness` keeps the open runs and decides what is due; `_sender.py` owns the thread, `_events.py` the
words. Every public method only notes something and returns. All else happens in the sender's thread,
the enforcement of `timeout` and `idle_timeout` included.

Heartbeats are fresh only by `seq` and `elapsed`: `seq` counts the events of this process, `elapsed` is
its age on a clock that goes on while the machine sleeps. A forked child is another process: it starts
with no run, a new process id, and counts from 1.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_sessions import semconv
from otel_sessions.errors import ConfigurationError
from otel_sessions.lifecycle import ENDINGS, EndReason, Outcome, Phase
from otel_sessions.sdk import _events
from otel_sessions.sdk._answer import Transport
from otel_sessions.sdk._critical import critical
from otel_sessions.sdk._endpoint import Endpoint, Exporter, resolve_endpoint, resolve_exporter
from otel_sessions.sdk._events import Event, Origin
from otel_sessions.sdk._guard import guard
from otel_sessions.sdk._keeping import keeper
from otel_sessions.sdk._outbox import SECOND, Pacing
from otel_sessions.sdk._run import Run
from otel_sessions.sdk._sender import EventStats, Sender, start_thread
from otel_sessions.sdk._settings import spool_root
from otel_sessions.sdk._stamps import CLOCKS, STAMPS, Clocks, Stamps
from otel_sessions.sdk._transport import open_transport

if TYPE_CHECKING:
    from otel_sessions.sdk._courier import Courier

__all__ = ["Clocks", "EventSettings", "EventStats", "Liveness", "Stamps"]

_COMPLAIN_AFTER: Final = 30.0
"""Seconds without an answer after which a running program is told; a shorter one hears it at its end."""
_SWEEP: Final = SECOND // 2
"""How often open runs are looked at: half the second after which an open span is announced."""
_ANNOUNCED_AT_ONCE: Final = 1000
"""Open spans of one run that are looked at; what is beyond is announced when older ones have ended."""
_NEVER: Final = 2**63 - 1
_LEAST_HEARTBEAT: Final = 0.05
"""Seconds; a thousand heartbeats a second take a core."""

_Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class EventSettings:
    """What the life cycle events need to know; times in seconds.

    `endpoint` None with exporter `otlp` is the default endpoint. `announce_after` is the age at which an
    open span is told of. Raises ConfigurationError where the lease would end between two heartbeats.
    """

    exporter: Exporter = "otlp"
    endpoint: Endpoint = field(default_factory=lambda: resolve_endpoint("logs", {}))
    heartbeat: float = 5.0
    lease: float = 120.0
    announce_after: float = 1.0
    queue: int = 32_768
    request_bytes: int = 1024 * 1024
    spool: Path | None = None

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat < self.lease < float("inf"):
            raise ConfigurationError(
                f"OTEL_SESSIONS_HEARTBEAT={self.heartbeat:g} and OTEL_SESSIONS_LEASE={self.lease:g}: "
                "give seconds, with a lease longer than a heartbeat; several times as long is wise"
            )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> EventSettings:
        """Read the settings; raise ConfigurationError with the name of a variable that makes no sense."""
        exporter = resolve_exporter("logs", environ)
        heartbeat = _seconds(environ, "OTEL_SESSIONS_HEARTBEAT", 5.0)
        if heartbeat < _LEAST_HEARTBEAT:
            raise ConfigurationError(
                f"OTEL_SESSIONS_HEARTBEAT={heartbeat:g}: give {_LEAST_HEARTBEAT:g} seconds or more, "
                "for each heartbeat is a request"
            )
        return cls(
            exporter=exporter,
            endpoint=resolve_endpoint("logs", environ if exporter == "otlp" else {}),
            heartbeat=heartbeat,
            lease=_seconds(environ, "OTEL_SESSIONS_LEASE", 120.0),
            spool=spool_root(environ),
        )


def _seconds(environ: Mapping[str, str], variable: str, default: float) -> float:
    value = environ.get(variable, "").strip()
    try:
        return float(value) if value else default
    except ValueError as error:
        raise ConfigurationError(f"{variable}={value!r} is no number of seconds") from error


@dataclass(slots=True, eq=False)
class _OpenRun:
    """An open run, and what was told of it; but for its making, only the sender's thread writes here."""

    run: Run
    opened_at: int
    silent: bool
    announced: bool = False
    beat_wanted: bool = False
    told: set[int] = field(default_factory=set[int])
    seen: int = -1
    timed_out: bool = False


class _Amended(NamedTuple):
    """An ended run of which something is still to be told."""

    run: Run
    outcome: Outcome | None
    reason: EndReason | None
    at_ns: int


class Liveness:
    """The reporter of a process's runs. One per process; safe to call from any thread, at any time."""

    def __init__(
        self,
        *,
        settings: EventSettings,
        resource_attributes: Mapping[str, Any],
        clocks: Clocks = CLOCKS,
        stamps: Stamps = STAMPS,
        connect: Callable[[Endpoint | None], Transport] = open_transport,
        spawn: Callable[[Callable[[], None]], threading.Thread] = start_thread,
    ) -> None:
        """Make a reporter that has not started.

        `resource_attributes` is read in the thread, again in a forked child; `connect` opens the transport
        (to the console for None), in the thread that `spawn` starts.
        """
        self._settings = settings
        self._resource_attributes = resource_attributes
        self._clocks = clocks
        self._stamps = stamps
        self._connect = connect
        self._spawn = spawn
        self._former: list[Sender] = []
        self._reset()
        self._sender = self._make_sender(settings)

    def _make_sender(self, settings: EventSettings) -> Sender:
        otlp = settings.exporter == "otlp"
        endpoint = settings.endpoint if otlp else None
        return Sender(
            self,
            connect=lambda: self._connect(endpoint),
            resource=lambda: self._resource_attributes,
            origin=lambda: Origin(self._stamps.process_id, settings.heartbeat, settings.lease),
            address=settings.endpoint.address if otlp else settings.exporter,
            hint=settings.endpoint.doubt if otlp else None,
            stopped="OTEL_LOGS_EXPORTER=none" if settings.exporter == "none" else None,
            clock=self._clocks.monotonic,
            spawn=self._spawn,
            timeout=min(settings.endpoint.timeout, settings.lease / 4),
            queue=settings.queue,
            request_bytes=settings.request_bytes,
            pacing=Pacing(longest=settings.heartbeat, obeyed=settings.lease / 2),
            complain_after=_COMPLAIN_AFTER,
            lock=self._lock,
            keeper=self._make_keeper(settings) if otlp else None,
        )

    def _make_keeper(self, settings: EventSettings) -> Courier | None:
        if settings.spool is None:
            return None
        pacing = Pacing(longest=settings.heartbeat)
        return keeper(settings.endpoint, settings.spool, lambda: self._connect(settings.endpoint), pacing)

    def _reset(self) -> None:
        self._open: dict[_Key, _OpenRun] = {}
        self._amended: dict[_Key, _Amended] = {}
        self._lock = threading.RLock()
        self._next_beat = 0
        self._next_sweep = 0

    # --- For any thread: return at once ---------------------------------------------------------

    def start(self) -> None:
        """Start the thread early; it starts by itself at the first run otherwise."""
        self._sender.start()

    @critical
    def opened(self, run: Run) -> None:
        """Tell at once that a run began, with its first heartbeat. A run opens once."""
        if run.phase is Phase.ENDED:
            return
        with self._lock:
            if _key(run) in self._open:
                return
            # Known before its start is queued: the thread may send that at once, and asks for a heartbeat.
            entry = self._open[_key(run)] = _OpenRun(run, self._clocks.monotonic(), silent=not run.sampled)
            self._announce_run(entry)

    @critical
    def changed(self, run: Run) -> None:
        """Tell at once that an open run began to wait, or goes on."""
        if not run.sampled or _key(run) not in self._open:
            return
        event = _events.session_state(run, self._stamps.next())
        with self._lock:
            if _key(run) in self._open and not _over(event):
                self._sender.put(event)

    @critical
    def ended(self, run: Run, outcome: Outcome | None, reason: EndReason | None, at_ns: int) -> None:
        """Tell at once that an open run ended at `at_ns` (Unix), with its counts; no heartbeat follows.

        A child process has no end to tell. It sends its counts a last time, as a heartbeat.
        """
        with self._lock:
            entry = self._open.pop(_key(run), None)
        if entry is None or entry.silent:
            return
        stamp = self._stamps.next()
        if run.child:
            self._sender.put(_events.heartbeat(run, stamp))
        else:
            self._sender.put(_events.session_end(run, stamp, outcome, reason, at_ns))

    @critical
    def amended(self, run: Run, outcome: Outcome | None, reason: EndReason | None, at_ns: int) -> None:
        """Tell an end once more, soon: counts of the run have changed since."""
        with self._lock:
            known = _key(run) in self._amended
            self._amended[_key(run)] = _Amended(run, outcome, reason, at_ns)
        if not known and run.sampled:
            self._sender.wake()

    def flush(self, deadline: float) -> bool:
        """Wait until all was sent, or `deadline` (`time.monotonic()`); True if all was accepted."""
        return self._sender.flush(deadline)

    def close(self, deadline: float) -> None:
        """Flush and end the thread by `deadline` (`time.monotonic()`); what comes later is dropped."""
        self._sender.close(deadline)

    def change(self, settings: EventSettings, deadline: float) -> None:
        """Go on under other settings: what is queued goes where it was meant to, within `deadline`.

        The open runs are announced anew, for the new target knows none of them.
        """
        former = self._turn_to(settings)
        former.retire()
        former.close(deadline)

    @critical
    def _turn_to(self, settings: EventSettings) -> Sender:
        with self._lock:
            former, self._sender = self._sender, self._make_sender(settings)
            self._settings = settings
            self._former.append(former)
            self._next_beat = 0
            for entry in self._entries():
                entry.announced, entry.told, entry.seen = False, set(), -1
                self._announce_run(entry)
        return former

    def stats(self) -> EventStats:
        """Tell what became of the events of this process."""
        now = self._sender.stats()
        for former in self._former:
            then = former.stats()
            now = replace(
                now,
                sent=now.sent + then.sent,
                failed=now.failed + then.failed,
                dropped=now.dropped + then.dropped,
                unsent_heartbeats=now.unsent_heartbeats + then.unsent_heartbeats,
            )
        return now

    def after_fork_in_child(self) -> None:
        """Begin anew in a forked child: its parent's runs, queue, thread and process id are not its own."""
        self._stamps.renew()
        self._reset()
        self._former = []
        self._sender.after_fork_in_child(self._lock)

    # --- For the sender's thread (`_outbox.Work`) --------------------------------------------------

    def tick(self, now: int) -> int:
        """Do what is due at `now`; return when something is due again."""
        if self._amended:
            self._tell_amended()
        if not self._open:
            return _NEVER
        if now >= self._next_beat:
            self._next_beat = now + int(self._settings.heartbeat * SECOND)
            for entry in self._entries():
                entry.beat_wanted = True
        if now >= self._next_sweep:
            deadlines = [self._look_at(entry, now) for entry in self._entries()]
            self._next_sweep = min(now + _SWEEP, *deadlines, _NEVER)
        return min(self._next_beat, self._next_sweep)

    def accompany(self, event: Event) -> Event | None:
        """Return the first heartbeat of the run that `event` announces; from now on it may have others."""
        if event.name not in (semconv.EVENT_SESSION_START, semconv.EVENT_SESSION_RESUMED):
            return None
        entry = self._open.get((event.session_id, event.span_id))
        if entry is None:
            return None
        entry.announced, entry.beat_wanted = True, False
        return self._beat(entry)

    def beats(self) -> Iterator[Event]:
        """Make the heartbeats that are due, one by one."""
        for entry in self._entries():
            if entry.beat_wanted and entry.announced and not entry.silent:
                entry.beat_wanted = False
                beat = self._beat(entry)
                if beat is not None:
                    yield beat

    def beat_again(self, at: int) -> None:
        """Make all heartbeats anew at `at`: the last ones were not taken."""
        self._next_beat = min(self._next_beat, at)

    @critical
    def _tell_amended(self) -> None:
        """Queue the ends that changed; as many losses as came since the last turn are one event."""
        with self._lock:
            amended, self._amended = self._amended, {}
        for run, outcome, reason, at_ns in amended.values():
            if run.sampled:
                self._sender.put(_events.session_end(run, self._stamps.next(), outcome, reason, at_ns))

    def _announce_run(self, entry: _OpenRun) -> None:
        """Queue the start of a run; without one, or room for it, the run is heard by its heartbeats."""
        told = entry.silent or entry.run.child
        if told or not self._sender.put(_events.session_start(entry.run, self._stamps.next())):
            entry.announced = entry.beat_wanted = True
            self._sender.wake()

    def _look_at(self, entry: _OpenRun, now: int) -> int:
        """Announce spans and enforce time limits of one run; return when it must be looked at again."""
        with guard("look after an open session"):
            if not entry.silent:
                self._announce(entry)
            return self._enforce(entry, now)
        return _NEVER

    def _announce(self, entry: _OpenRun) -> None:
        run = entry.run
        started = run.counts().started
        if started == entry.seen:
            return
        oldest = self._clocks.wall() - int(self._settings.announce_after * SECOND)
        spans = run.open_spans(_ANNOUNCED_AT_ONCE)
        entry.told &= {span.span_id for span in spans}
        for span in spans:
            if span.start <= oldest and span.span_id not in entry.told:
                entry.told.add(span.span_id)
                self._sender.put(_events.span_start(run, span, self._stamps.next()))
        if len(entry.told) == len(spans) < _ANNOUNCED_AT_ONCE:
            entry.seen = started

    def _enforce(self, entry: _OpenRun, now: int) -> int:
        run, due = entry.run, _NEVER
        if entry.timed_out:
            return due
        if run.timeout is not None:
            due = entry.opened_at + int(run.timeout * SECOND)
            if now >= due:
                return self._time_out(entry, "timeout")
        if run.idle_timeout is not None:
            idle_until = max(entry.opened_at, run.last_activity()) + int(run.idle_timeout * SECOND)
            if now < idle_until:
                due = min(due, idle_until)
            elif not run.busy():
                return self._time_out(entry, "idle_timeout")
        return due

    def _time_out(self, entry: _OpenRun, ending: str) -> int:
        entry.timed_out = True
        entry.run.time_out(ENDINGS[ending])
        return _NEVER

    def _beat(self, entry: _OpenRun) -> Event | None:
        with guard("make a heartbeat"):
            beat = _events.heartbeat(entry.run, self._stamps.next())
            return None if _over(beat) else beat
        return None

    def _entries(self) -> list[_OpenRun]:
        return list(self._open.values())


def _key(run: Run) -> _Key:
    return run.session_id, run.span_id


def _over(event: Event) -> bool:
    """Tell whether the run has ended meanwhile: its end, which is about to be told, says more."""
    return event.attributes[semconv.PHASE] == Phase.ENDED.value
