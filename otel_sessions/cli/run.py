"""`otel-sessions run -- COMMAND`: run any command as a session.

The command is a child of this process, in its process group and with its terminal, so that Ctrl-C and Ctrl-Z
reach it as they would without us. What is carried to it by the environment is for any language: TRACEPARENT,
and BAGGAGE with the session's id.

Signals are blocked here and waited for, never handled: what somebody sends to this process is passed on, what
the terminal or a supervisor sends to the whole group has reached the child already. At the end this process
exits, or dies, as the child did.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TextIO

from otel_sessions.cli._python import LAUNCHER, is_python, with_tracing
from otel_sessions.cli._witness import Witness
from otel_sessions.errors import UsageError

if TYPE_CHECKING:
    from otel_sessions.sdk._options import OutcomeName

__all__ = ["configure", "run"]

_NOT_FOUND: Final = 127
_NOT_EXECUTABLE: Final = 126
_BY_SIGNAL: Final = 128
"""Exit codes as shells and `env` have them."""

_DEADLINE: Final = 1.5
"""Seconds that may pass between the end of the command and ours, where nobody takes what is left."""

_PASSED_ON: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
_CRASHES: Final = frozenset(
    f"SIG{name}" for name in ("SEGV", "BUS", "FPE", "ILL", "ABRT", "SYS", "TRAP", "XCPU", "XFSZ")
)
"""Signals that tell of a fault of the program, not of somebody who wanted its end."""

_IGNORED_BY_PYTHON: Final = ("SIGPIPE", "SIGXFSZ")
"""The interpreter ignores these; a command must not inherit that."""

_INTERPRETER: Final = re.compile(r"(python|pypy|node|deno|bun|ruby|perl|bash|zsh|sh)[\d.]*(\.exe)?")


class Ended(NamedTuple):
    """How a command ended: its exit code, or minus the number of the signal that ended it."""

    code: int
    asked: frozenset[int] = frozenset()
    """Signals that reached it by way of us, or of the terminal, while it ran."""


class Verdict(NamedTuple):
    """How its session ended, as `Session.end` takes it."""

    outcome: OutcomeName
    reason: str
    message: str | None = None


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.usage = "otel-sessions run [options] [--] COMMAND [ARGUMENT ...]"
    parser.description = (
        "Run a command as a session. It has the terminal, the signals and the exit code that it would have "
        "without us; what it traces belongs to the session, if it reads TRACEPARENT or uses our SDK. In a "
        "Python program the installed instrumentors are switched on. Where traces go is said by "
        "OTEL_EXPORTER_OTLP_ENDPOINT (default: http://localhost:4318)."
    )
    parser.add_argument("--name", help="the session's name (default: the command's)")
    parser.add_argument("--title", help="the human text of this one session")
    parser.add_argument("--id", help="the session's id (default: made up)")
    parser.add_argument("--tag", metavar="TAG", action="append", default=[], help="a tag; may be repeated")
    parser.add_argument(
        "--instrument",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="switch instrumentors on in every Python below, or in none (default: where COMMAND is Python; "
        "OTEL_SESSIONS_INSTRUMENT)",
    )
    parser.add_argument("line", metavar="COMMAND", nargs=argparse.REMAINDER, help="what to run")


def run(args: argparse.Namespace) -> int:
    """Run the command in a session of its own; return its exit code, or die of the signal that it died of."""
    command: list[str] = args.line[1:] if args.line[:1] == ["--"] else args.line
    if not command:
        raise UsageError("say what to run: otel-sessions run -- COMMAND")
    if not hasattr(os, "posix_spawnp"):
        raise UsageError("`run` needs POSIX signals: start your agent without it here")
    mask = _block()  # before any thread starts, for each has the mask of who starts it
    ended = _in_session(command, args, mask)
    _let_go_of_outputs()
    return _die_of(-ended.code) if ended.code < 0 else ended.code


def _let_go_of_outputs() -> None:
    """Flush what was printed; a terminal that is gone must not decide on the exit code (Python's 120)."""
    _let_go(sys.stdout)
    _let_go(sys.stderr)


def _let_go(stream: TextIO | None) -> None:
    if stream is None:  # closed before we were started
        return
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _in_session(command: Sequence[str], args: argparse.Namespace, mask: set[int]) -> Ended:
    import otel_sessions
    from otel_sessions.sdk._settings import names_service

    name = args.name or name_of(command)
    otel_sessions.init(service_name=None if names_service(os.environ) else name_of(command), signals=False)
    session = otel_sessions.start_session(name, id=args.id, title=args.title, tags=args.tag)
    try:
        child = _spawn(command, _environment(command, args.instrument), mask)
    except OSError as error:
        why = f"{command[0]}: {_why_not_run(command[0], error)}"
        session.end("error", reason="error", message=why)
        print(f"otel-sessions: {why}", file=sys.stderr)
        ended = Ended(_NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE)
    else:
        ended = _wait(child)
        verdict = verdict_on(ended)
        session.end(verdict.outcome, reason=verdict.reason, message=verdict.message)
    otel_sessions.shutdown(_DEADLINE)
    return ended


def _why_not_run(program: str, error: OSError) -> str:
    if not isinstance(error, FileNotFoundError):
        return str(error.strerror)
    return "its interpreter was not found" if shutil.which(program) else "command not found"


def _environment(command: Sequence[str], instrument: bool | None) -> dict[str, str]:
    """Return the command's environment: with the session, and with what traces a Python program."""
    import otel_sessions
    from otel_sessions.sdk import _instrument

    environ = otel_sessions.child_env()
    wanted = _instrument.asked(environ) if instrument is None else instrument
    if wanted is None:
        wanted = is_python(command, environ)
    elif instrument is not None:
        environ[_instrument.VARIABLE] = str(instrument).lower()
    if not wanted:
        return environ
    if _instrument.none_is_installed():
        print(f"otel-sessions: {sys.prefix}: {_instrument.NONE_INSTALLED}", file=sys.stderr)
    return with_tracing(environ)


def name_of(command: Sequence[str]) -> str:
    """Return the program's name; of an interpreter's first argument, where that is a script or a module."""
    program = Path(command[0]).name or command[0]
    if program == LAUNCHER and len(command) > 1 and not command[1].startswith("-"):
        return name_of(command[1:])
    if _INTERPRETER.fullmatch(program):
        if command[1:2] == ["-m"] and len(command) > 2:  # noqa: PLR2004 - the module behind -m
            return command[2]
        if len(command) > 1 and Path(command[1]).name and not command[1].startswith("-"):
            return Path(command[1]).name
    return program


def verdict_on(ended: Ended) -> Verdict:
    """Tell how the session ended from how its command did.

    A shell, or a program that handles a signal, exits with 128 + its number; that is believed of a signal
    which reached it.
    """
    code, asked = ended
    number = -code if code < 0 else code - _BY_SIGNAL
    if code == 0:
        return Verdict("ok", "completed")
    if code > 0 and number not in asked:
        return Verdict("error", "process_exit", f"exit code {code}")
    name = _name_of_signal(number)
    if name == "SIGINT":
        return Verdict("cancelled", "interrupted", name)
    return Verdict("error" if name in _CRASHES else "cancelled", "signal", name)


def _name_of_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal without a name
        return f"signal {number}"


# --- The process -----------------------------------------------------------------------------------------


def _block() -> set[int]:
    """Block what is passed on, but what is ignored, as under nohup; return the mask as it was."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)  # ignored, no child could be waited for
    signal.pthread_sigmask(signal.SIG_BLOCK, _watched())
    return {int(number) for number in before}


def _watched() -> set[signal.Signals]:
    passed_on = {signal.Signals[name] for name in _PASSED_ON}
    return {s for s in passed_on if signal.getsignal(s) is not signal.SIG_IGN} | {signal.SIGCHLD}


def _spawn(command: Sequence[str], env: Mapping[str, str], mask: set[int]) -> int:
    """Start the command with our terminal, files and process group; raise OSError where that can't be."""
    defaults = {signal.Signals[name] for name in _IGNORED_BY_PYTHON if name in signal.Signals.__members__}
    return os.posix_spawnp(command[0], list(command), env, setsigmask=mask, setsigdef=defaults)


def _wait(child: int) -> Ended:
    """Pass signals on until the child has ended."""
    watched, witness = _watched(), Witness()
    asked: set[int] = set()
    while True:
        number, everybody = _next_signal(watched)
        if number == signal.SIGCHLD:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                witness.dismiss()
                return Ended(os.waitstatus_to_exitcode(status), frozenset(asked))
            continue
        asked.add(number)
        if not everybody and not witness.heard(number):
            os.kill(child, number)  # not reaped yet, so the number is still its own


def _next_signal(watched: set[signal.Signals]) -> tuple[int, bool]:
    """Wait for a signal; tell whether the whole process group has it, for it came from the terminal."""
    if sys.platform == "darwin":  # tells nothing of who sent it
        number = signal.sigwait(watched)
        return number, number in (signal.SIGINT, signal.SIGQUIT) and _in_foreground()
    found = signal.sigwaitinfo(watched)
    from_terminal = found.si_code > 0  # the kernel's own
    # That a terminal is gone is told to its session's leader alone, as we are under ssh and in containers.
    alone = found.si_signo == signal.SIGHUP and os.getsid(0) == os.getpid()
    return found.si_signo, from_terminal and not alone


def _in_foreground() -> bool:
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:  # there is none
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _die_of(number: int) -> int:
    """Die of the signal that the command died of, so that whoever waits for us sees what happened."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))  # the core is the command's, not ours
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    return _BY_SIGNAL + number  # where the signal did not end us after all
