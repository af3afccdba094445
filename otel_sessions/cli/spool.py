"""`otel-sessions spool`: what agents could not deliver; see it, send it, export it, clear it."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from otel_sessions.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from otel_sessions.cli._delivery import Delivery
    from otel_sessions.cli._spooled import Entry, Found, Look, Recipient
    from otel_sessions.sdk._endpoint import Signal
    from otel_sessions.sdk._ownership import Owned

__all__ = ["configure", "run"]

_LINES: Final = (".jsonl", ".ndjson", ".json")
_MOST_SESSIONS: Final = 20
"""Sessions that are named before something is removed; the others are counted."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Spans and life cycle events wait in a folder until they are acknowledged. What a program could not "
        "deliver leaves with the next one that sends to the same address with the same headers; or with this "
        "command."
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = _action(actions, "list", "what waits, for whom, and since when")
    listing.add_argument("--json", action="store_true", help="print it as JSON")
    send = _action(
        actions, "send", "deliver now what programs that are gone left; exit code 0: all was taken"
    )
    send.add_argument("--rejected", action="store_true", help="send also what was set aside, once more")
    send.add_argument(
        "--renewed",
        action="store_true",
        help="the headers of this environment replace those that it was written with, for the same address",
    )
    export = _action(actions, "export", "write what waits into a file")
    export.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help="FILE.jsonl: a line of OTLP JSON for each request; any other name: a folder for `replay`",
    )
    export.add_argument("--rejected", action="store_true", help="also what was set aside")
    clear = _action(actions, "clear", "remove what programs that are gone left, and what was set aside")
    clear.add_argument("--rejected", action="store_true", help="only what was set aside")
    clear.add_argument("--yes", action="store_true", help="don't ask")


def _action(actions: Any, name: str, line: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=line, description=line.capitalize() + ".")
    parser.add_argument(
        "--folder",
        metavar="DIR",
        type=Path,
        help="the spool (default: $OTEL_SESSIONS_SPOOL, else the user's state folder)",
    )
    parser.add_argument("--address", metavar="URL", help="only what goes there, as `list` shows it")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do what was asked for."""
    from otel_sessions.cli._spooled import find_recipients

    root = _root(args.folder)
    recipients = find_recipients(root, args.address)
    if args.action == "list":
        return _list(root, recipients, as_json=args.json)
    if args.action == "send":
        return _send(recipients, rejected=args.rejected, renewed=args.renewed)
    if args.action == "export":
        return _export(recipients, args.file, rejected=args.rejected)
    return _clear(recipients, only_rejected=args.rejected, sure=args.yes)


def _root(folder: Path | None) -> Path:
    from otel_sessions.sdk._settings import spool_root

    root = folder or spool_root(os.environ)
    if root is None:
        raise ConfigurationError(
            "there is no spool here (OTEL_SESSIONS_SPOOL=off, or a user without a home): name one by --folder"
        )
    return root


# --- list ------------------------------------------------------------------------------------------------


def _list(root: Path, recipients: Sequence[Recipient], *, as_json: bool) -> int:
    from otel_sessions.cli._spooled import look

    seen = [look(recipient) for recipient in recipients]
    seen = [it for it in seen if it.waiting.parcels or it.rejected.parcels or it.programs["alive"]]
    if as_json:
        print(json.dumps({"folder": str(root), "recipients": [_as_json(it) for it in seen]}, indent=2))
    elif seen:
        _draw(seen)
    else:
        print(f"Nothing waits in {root}.")
    return 0


def _as_json(seen: Look) -> dict[str, Any]:
    return {
        "address": seen.recipient.address,
        "signal": seen.recipient.signal,
        "folder": str(seen.recipient.folder),
        **_figures(seen.waiting),
        "programs": {state: seen.programs[state] for state in ("alive", "dead", "unknown")},
        "rejected": {**_figures(seen.rejected), "reasons": dict(seen.rejected.reasons)},
    }


def _figures(found: Found) -> dict[str, Any]:
    return {
        "bytes": found.size,
        "parcels": found.parcels,
        "damaged": found.damaged,
        "spans": found.items.spans,
        "events": found.items.events,
        "sessions": len(found.sessions.keys() - {""}),
        "oldest": None if found.oldest is None else str(found.oldest),
    }


def _draw(seen: Iterable[Look]) -> None:
    from rich.table import Table
    from rich.text import Text

    from otel_sessions.cli._console import console
    from otel_sessions.cli._drawing import clean, duration

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("address", overflow="fold")
    for name in ("spans", "events", "sessions", "requests", "size", "oldest", "programs", "rejected"):
        table.add_column(name, justify="right", no_wrap=True)
    reasons: list[str] = []
    for it in seen:
        address, waiting = clean(it.recipient.address or it.recipient.folder.name), it.waiting
        oldest = "" if waiting.oldest is None else duration(max(0, time.time_ns() - waiting.oldest)) + " ago"
        programs = ", ".join(f"{number} {state}" for state, number in sorted(it.programs.items()) if number)
        items, sessions = waiting.items, len(waiting.sessions.keys() - {""})
        figures = (items.spans, items.events, sessions, waiting.parcels)
        aside = str(it.rejected.items) if it.rejected.parcels else ""
        table.add_row(Text(address), *map(str, figures), _size(waiting.size), oldest, programs, aside)
        reasons += [f"{address}: damaged: {clean(why)} ({n})" for why, n in waiting.reasons.items()]
        reasons += [f"{address}: rejected: {clean(why)} ({n})" for why, n in it.rejected.reasons.items()]
    screen = console()
    screen.print(table)
    for line in reasons:
        screen.print(line, markup=False, soft_wrap=True)


def _size(number: int) -> str:
    for unit, divisor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= divisor:
            return f"{number / divisor:.1f} {unit}"
    return f"{number} B"


# --- send ------------------------------------------------------------------------------------------------


def _send(recipients: Sequence[Recipient], *, rejected: bool, renewed: bool) -> int:
    from otel_sessions.cli._spooled import claimed, count_entries

    with claimed(recipients, _tell) as taken:
        folders = {it: _folders(it, taken[it], rejected=rejected) for it in recipients}
        total = sum(map(count_entries, folders.values()))
        with _progress(total) as advance:
            deliveries = [
                (it, _deliver(it, folders[it], advance, renewed=renewed))
                for it in recipients
                if count_entries(folders[it])
            ]
        for recipient, delivery in deliveries:
            _report(recipient, delivery)
        _mention_living(recipients, taken)
    if not deliveries:
        print("Nothing waits that a program left.")
    return 0 if all(delivery.complete for _, delivery in deliveries) else 1


def _folders(recipient: Recipient, owned: Iterable[Owned], *, rejected: bool) -> list[Path]:
    found = [it.folder for it in owned]
    return [*found, recipient.rejected] if rejected else found


def _deliver(
    recipient: Recipient, folders: Sequence[Path], advance: Callable[[], object], *, renewed: bool
) -> Delivery:
    from otel_sessions.cli._delivery import Delivery, deliver, endpoint_of
    from otel_sessions.cli._spooled import count_entries
    from otel_sessions.sdk._transport import open_transport

    try:
        endpoint = endpoint_of(recipient, os.environ, renewed=renewed)
        transport = open_transport(endpoint, cast("Signal", recipient.signal))
    except (ConfigurationError, OSError) as error:  # OSError: a certificate that can't be read
        return Delivery(left=count_entries(folders), trouble=str(error))
    try:
        return deliver(_entries(folders), transport, endpoint.timeout, advance)
    finally:
        transport.close()


def _entries(folders: Iterable[Path]) -> Iterator[Entry]:
    from otel_sessions.cli._spooled import read_entries

    for folder in folders:
        yield from read_entries(folder)


def _report(recipient: Recipient, delivery: Delivery) -> None:
    from otel_sessions.cli._drawing import clean
    from otel_sessions.cli._spooled import Items

    address = recipient.address or recipient.folder.name
    sent, dropped = (Items.of(recipient.signal, n) for n in (delivery.sent, delivery.rejected))
    print(f"{clean(address)}: {sent} delivered", flush=True)
    if delivery.rejected:
        _tell(f"{address}: the receiver dropped {dropped}: {delivery.trouble}")
    if delivery.left:
        _tell(f"{address}: {delivery.left} requests are still here: {delivery.trouble}")


def _mention_living(recipients: Iterable[Recipient], taken: Mapping[Recipient, Sequence[Owned]]) -> None:
    from otel_sessions.cli._spooled import count_entries

    for recipient in recipients:
        ours = {owned.folder for owned in taken[recipient]}
        if number := count_entries(path for path in recipient.programs() if path not in ours):
            _tell(f"{recipient.address}: {number} requests are of programs that run; they send them")


# --- export and clear ------------------------------------------------------------------------------------


def _export(recipients: Sequence[Recipient], path: Path, *, rejected: bool) -> int:
    from otel_sessions.cli._spool_export import write_lines, write_recording
    from otel_sessions.cli._spooled import count_entries

    folders = [folder for it in recipients for folder in it.programs()]
    folders += [it.rejected for it in recipients] if rejected else []
    if not (total := count_entries(folders)):
        raise ConfigurationError("nothing waits, so there is nothing to export")
    write = write_lines if path.suffix in _LINES else write_recording
    with _progress(total) as advance:
        exported = write(path, _entries(folders), advance)
    for entry, why in exported.left_out:
        _tell(f"{entry.path} is left out, and stays: {why}")
    if exported.written:
        print(f"{exported.items} in {path}; they wait as before")
    else:
        print(f"Nothing could be read, so {path} was not written.")
    return 1 if exported.left_out else 0


def _clear(recipients: Sequence[Recipient], *, only_rejected: bool, sure: bool) -> int:
    from otel_sessions.cli._spooled import Found, claimed

    with claimed(recipients, _tell) as taken:
        folders = [it.rejected for it in recipients]
        folders += [] if only_rejected else [owned.folder for each in taken.values() for owned in each]
        found, paths = Found(), list[Path]()
        for entry in _entries(folders):
            found.add(entry)
            paths.append(entry.path)
        if not paths:
            print("There is nothing to clear.")
            return 0
        _warn(found)
        if not (sure or _agreed()):
            print("Nothing was removed.")
            return 1
        for path in paths:
            path.unlink(missing_ok=True)
            path.with_suffix(".why").unlink(missing_ok=True)
    print(f"{found.items} are removed.")
    return 0


def _warn(found: Found) -> None:
    from otel_sessions.cli._drawing import clean
    from otel_sessions.cli._spooled import Items

    damaged = f" and {found.damaged} damaged files" if found.damaged else ""
    print(f"{found.items} in {found.parcels} requests{damaged} would be lost, of these sessions:")
    by_size = sorted(found.sessions.items(), key=lambda pair: -pair[1].total)
    for session, items in by_size[:_MOST_SESSIONS]:
        print(f"  {clean(session) or '(no session)'}: {items}")
    if more := by_size[_MOST_SESSIONS:]:
        print(f"  and {len(more)} more sessions: {sum((items for _, items in more), Items())}")


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise UsageError("nobody can be asked here: give --yes to remove it")
    return input("Remove them for good? [y/N] ").strip().lower() in ("y", "yes")


# --- For all ---------------------------------------------------------------------------------------------


def _tell(line: str) -> None:
    from otel_sessions.cli._drawing import clean

    print(f"otel-sessions spool: {clean(line)}", file=sys.stderr)


@contextmanager
def _progress(total: int) -> Generator[Callable[[], object]]:
    """Show a bar on a terminal; what is yielded moves it on by one request."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("requests"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    screen = Console(stderr=True)
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)
