"""Every exception that otel_sessions raises, as one tree; imports nothing of ours.

    OtelSessionsError
    ├── ConfigurationError        an option or environment variable is wrong (also a ValueError)
    ├── UsageError                a call that is wrong whatever the timing (also a RuntimeError)
    │   ├── SessionReuseError     a Session was entered or started twice
    │   ├── TaskResultError       a second result was given to a task
    │   └── ResumeTokenError      a resume token is forged, damaged or expired
    └── BackendError              the backend can't do its work
        ├── AddressError          an address can't be listened on
        ├── DataFolderError       the data folder is missing, not writable or in use
        ├── CorruptStoreError     the database is damaged
        ├── NewerSchemaError      the database was written by a newer version
        └── EndpointError         an endpoint did not take, or did not answer, what a command sent

Whoever catches `OtelSessionsError` catches all of them. Trouble of ours inside the agent's process
(export, disk, a bug) is never raised: it is counted in `stats()` and logged once.
Every message says what to do next.
"""

__all__ = [
    "AddressError",
    "BackendError",
    "ConfigurationError",
    "CorruptStoreError",
    "DataFolderError",
    "EndpointError",
    "NewerSchemaError",
    "OtelSessionsError",
    "ResumeTokenError",
    "SessionReuseError",
    "TaskResultError",
    "UsageError",
]


class OtelSessionsError(Exception):
    """Base of all exceptions of this package."""


class ConfigurationError(OtelSessionsError, ValueError):
    """An option or an environment variable is wrong; nothing was changed."""


class UsageError(OtelSessionsError, RuntimeError):
    """A call that is wrong whatever the timing."""


class SessionReuseError(UsageError):
    """A Session was entered or started twice; make a new one with `session(...)`."""


class TaskResultError(UsageError):
    """A second result was given to a task; a task's result is written once."""


class ResumeTokenError(UsageError):
    """A resume token is forged, damaged or expired."""


class BackendError(OtelSessionsError):
    """The backend, or a command that speaks to one, can't do its work."""


class AddressError(BackendError):
    """An address can't be listened on: it is taken or not this machine's."""


class DataFolderError(BackendError):
    """The data folder can't be created, written or locked."""


class CorruptStoreError(BackendError):
    """The database file is damaged, or is no database of ours."""


class NewerSchemaError(BackendError):
    """The database was written by a newer version of otel-sessions."""


class EndpointError(BackendError):
    """An endpoint did not take, or did not answer, what a command sent."""
