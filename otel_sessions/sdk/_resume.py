"""Tokens by which another process, on this machine or another, takes a session up again.

    osr1.PAYLOAD.MAC      each part base64url without padding: fit for environment variables and headers

The payload is JSON: session id, trace id and span id of the root, and when the token expires (Unix s).
Nothing else travels with it. The MAC is HMAC-SHA256 under OTEL_SESSIONS_RESUME_SECRET, else under a key that
this machine's user has in a file of mode 0600, made when it is first needed. A file that is no whole key,
as a power loss may leave, is never used: delete it, and a new key is made, which tokens of before don't fit.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple, cast

from otel_sessions.errors import ConfigurationError, ResumeTokenError
from otel_sessions.sdk._options import TOKEN_PREFIX
from otel_sessions.sdk._settings import state_folder

__all__ = ["Resumed", "key_for_making", "key_for_reading", "opened", "token"]

SECRET: Final = "OTEL_SESSIONS_RESUME_SECRET"  # noqa: S105 - the variable's name
SHORTEST_SECRET: Final = 16
"""Characters; fewer can be guessed from one token."""
_PURPOSE: Final = b"otel-sessions resume 1\0"  # so that the same secret may sign other things
_KEY_FILE: Final = "resume.key"
_KEY: Final = re.compile(rb"[0-9a-f]{64}")
_PARTS: Final = 2


class Resumed(NamedTuple):
    """What a token says: the session, and the root that a later run links to (0: none)."""

    session_id: str
    trace_id: int
    span_id: int


def token(resumed: Resumed, key: bytes, expires_at: int) -> str:
    """Return the token that says `resumed` until `expires_at` (Unix s)."""
    said = [resumed.session_id, f"{resumed.trace_id:032x}", f"{resumed.span_id:016x}", expires_at]
    payload = _written(json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode())
    return f"{TOKEN_PREFIX}{payload}.{_written(_mac(payload, key))}"


def opened(text: str, key: bytes | None, now: float) -> Resumed:
    """Return what a token says. Raises ResumeTokenError where it is forged, damaged or expired.

    Without a `key` no token can have been made here.
    """
    parts = text.removeprefix(TOKEN_PREFIX).split(".")
    payload, mac = map(_read, parts) if len(parts) == _PARTS else (None, None)
    if payload is None or mac is None:
        raise ResumeTokenError("resume: the token is damaged: a part of it is missing or was changed")
    if key is None or not hmac.compare_digest(mac, _mac(parts[0], key)):
        raise ResumeTokenError(
            "resume: the token was not made with this key: it is forged, damaged or from another machine; "
            f"to take sessions up on another machine set the same {SECRET} on both"
        )
    session_id, trace_id, span_id, expires_at = json.loads(payload)
    if now >= expires_at:
        ago = (now - expires_at) / 3600
        raise ResumeTokenError(
            f"resume: the token expired {ago:.1f} hours ago; take a newer one, made with "
            f"resume_token(expires_in=...), or go on without a link by resume={session_id!r}"
        )
    return Resumed(session_id, int(trace_id, 16), int(span_id, 16))


def _mac(payload: str, key: bytes) -> bytes:
    return hmac.digest(key, _PURPOSE + payload.encode(), hashlib.sha256)


def _written(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _read(text: str) -> bytes | None:
    """Return the bytes that a part stands for; None for what nobody here wrote."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return None
    return data if _written(data) == text else None  # only one way to write the same


# --- The key --------------------------------------------------------------------------------------------


def key_for_making(environ: Mapping[str, str]) -> bytes:
    """Return the key to sign with; makes the machine's where there is none. Raises ConfigurationError."""
    return key_for_reading(environ) or _made(_file())


def key_for_reading(environ: Mapping[str, str]) -> bytes | None:
    """Return the key to check with; None where none was ever made here. Raises ConfigurationError."""
    secret = environ.get(SECRET, "").strip()
    if secret:
        if len(secret) < SHORTEST_SECRET:
            raise ConfigurationError(
                f"{SECRET} has {len(secret)} characters: write at least {SHORTEST_SECRET}, "
                "such as the output of `openssl rand -hex 32`"
            )
        return secret.encode()
    return _kept(_file())


def _file() -> Path:
    state = state_folder()
    if state is None:
        raise _no_key("this user has no home")
    return state / _KEY_FILE


def _kept(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            if os.name == "posix" and (stat.S_IMODE(about.st_mode) & 0o077 or about.st_uid != os.geteuid()):
                raise ConfigurationError(
                    f"{path} can be read by others, who could forge resume tokens: delete it, which makes "
                    f"tokens of before worthless, or set {SECRET}"
                )
            key = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _no_key(f"{path}: {error.strerror}") from error
    if not _KEY.fullmatch(key):  # one that is empty or zeros anybody knows
        raise ConfigurationError(
            f"{path} is damaged, and holds no key for resume tokens: delete it, which makes tokens of before "
            f"worthless, or set {SECRET}"
        )
    return key


def _made(path: Path) -> bytes:
    """Make the key, whole or not at all; where another program was faster, take its key."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(dir=path.parent, prefix=_KEY_FILE)  # of mode 0600
        try:
            with os.fdopen(number, "wb") as file:
                file.write(secrets.token_hex(32).encode())
                file.flush()
                os.fsync(file.fileno())  # a power loss must not leave the name without the key
            with contextlib.suppress(FileExistsError):
                os.link(name, path)
        finally:
            Path(name).unlink()
    except OSError as error:
        raise _no_key(f"{path}: {error.strerror}") from error
    return cast("bytes", _kept(path))


def _no_key(why: str) -> ConfigurationError:
    return ConfigurationError(f"there is no key for resume tokens ({why}): set {SECRET}")
