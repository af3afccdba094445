"""The truth about every session of an AI agent: OpenTelemetry tracing with a live page.

Importing this loads neither the OpenTelemetry SDK nor an exporter, a server or a framework: each name is
loaded when it is first used.

PYTEST_DONT_REWRITE: there is nothing to rewrite in it, and under a launcher it is imported before pytest is,
which would warn of that because our plugin belongs to it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_sessions._version import __version__ as __version__
    from otel_sessions.errors import ConfigurationError as ConfigurationError
    from otel_sessions.errors import OtelSessionsError as OtelSessionsError
    from otel_sessions.errors import ResumeTokenError as ResumeTokenError
    from otel_sessions.errors import SessionReuseError as SessionReuseError
    from otel_sessions.errors import TaskResultError as TaskResultError
    from otel_sessions.errors import UsageError as UsageError
    from otel_sessions.sdk._carry import child_env as child_env
    from otel_sessions.sdk._carry import wrap as wrap
    from otel_sessions.sdk._init import Handle as Handle
    from otel_sessions.sdk._init import init as init
    from otel_sessions.sdk._session import Session as Session
    from otel_sessions.sdk._start import current_session as current_session
    from otel_sessions.sdk._start import end_session as end_session
    from otel_sessions.sdk._start import session as session
    from otel_sessions.sdk._start import start_session as start_session
    from otel_sessions.sdk._stats import FlushResult as FlushResult
    from otel_sessions.sdk._stats import Stats as Stats
    from otel_sessions.sdk._stats import flush as flush
    from otel_sessions.sdk._stats import shutdown as shutdown
    from otel_sessions.sdk._stats import stats as stats
    from otel_sessions.sdk._task import Task as Task
    from otel_sessions.sdk._task import task as task
    from otel_sessions.sdk._work import ModelCall as ModelCall
    from otel_sessions.sdk._work import Work as Work
    from otel_sessions.sdk._work import agent as agent
    from otel_sessions.sdk._work import model_call as model_call
    from otel_sessions.sdk._work import step as step
    from otel_sessions.sdk._work import tool as tool

_HOMES = {
    "ConfigurationError": "otel_sessions.errors",
    "FlushResult": "otel_sessions.sdk._stats",
    "Handle": "otel_sessions.sdk._init",
    "ModelCall": "otel_sessions.sdk._work",
    "OtelSessionsError": "otel_sessions.errors",
    "ResumeTokenError": "otel_sessions.errors",
    "Session": "otel_sessions.sdk._session",
    "SessionReuseError": "otel_sessions.errors",
    "Stats": "otel_sessions.sdk._stats",
    "Task": "otel_sessions.sdk._task",
    "TaskResultError": "otel_sessions.errors",
    "UsageError": "otel_sessions.errors",
    "Work": "otel_sessions.sdk._work",
    "__version__": "otel_sessions._version",
    "agent": "otel_sessions.sdk._work",
    "child_env": "otel_sessions.sdk._carry",
    "current_session": "otel_sessions.sdk._start",
    "end_session": "otel_sessions.sdk._start",
    "flush": "otel_sessions.sdk._stats",
    "init": "otel_sessions.sdk._init",
    "model_call": "otel_sessions.sdk._work",
    "session": "otel_sessions.sdk._start",
    "shutdown": "otel_sessions.sdk._stats",
    "start_session": "otel_sessions.sdk._start",
    "stats": "otel_sessions.sdk._stats",
    "step": "otel_sessions.sdk._work",
    "task": "otel_sessions.sdk._task",
    "tool": "otel_sessions.sdk._work",
    "wrap": "otel_sessions.sdk._carry",
}

__all__ = [
    "ConfigurationError",
    "FlushResult",
    "Handle",
    "ModelCall",
    "OtelSessionsError",
    "ResumeTokenError",
    "Session",
    "SessionReuseError",
    "Stats",
    "Task",
    "TaskResultError",
    "UsageError",
    "Work",
    "__version__",
    "agent",
    "child_env",
    "current_session",
    "end_session",
    "flush",
    "init",
    "model_call",
    "session",
    "shutdown",
    "start_session",
    "stats",
    "step",
    "task",
    "tool",
    "wrap",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - paid on first use

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "errors", "lifecycle", "semconv"]
