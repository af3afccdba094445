"""`otel-sessions show`: a session as a tree in the terminal."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any, Final

from otel_sessions.cli._backend import add_backend
from otel_sessions.errors import EndpointError, UsageError

if TYPE_CHECKING:
    from otel_sessions.cli._api import Api

__all__ = ["configure", "run"]

_IDS: Final = ("id", "session_id")
_ENOUGH: Final = 50  # sessions whose id contains a prefix, to find who begins with it


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = "Show a session as a tree: the newest, or the one named."
    parser.add_argument(
        "session",
        metavar="SESSION",
        nargs="?",
        help="id of a session, or its beginning (default: the newest)",
    )
    parser.add_argument("--list", action="store_true", help="list the recent sessions instead")
    parser.add_argument(
        "--limit", metavar="N", type=int, default=20, help="how many to list (default: %(default)s)"
    )
    parser.add_argument(
        "--filter",
        metavar="TEXT",
        default="",
        help="with --list, only those that meet it: 'state:lost tool:search tokens>10k \"two words\"'",
    )
    parser.add_argument("--json", action="store_true", help="print the API's answer instead of a drawing")
    add_backend(parser)


def run(args: argparse.Namespace) -> int:
    """Show what was asked for."""
    from otel_sessions.cli._api import Api

    api = Api(args.url, args.token)
    if args.filter and not args.list:
        raise UsageError("--filter chooses among sessions: add --list")
    if args.list:
        return _show_list(api, args.limit, args.filter, as_json=args.json)
    return _show_session(api, args.session, as_json=args.json)


def _show_list(api: Api, limit: int, query: str, *, as_json: bool) -> int:
    answer = api.sessions(limit, query)
    if as_json:
        print(json.dumps(answer, ensure_ascii=False, indent=2))
        return 0
    from otel_sessions.cli._console import console
    from otel_sessions.cli._drawing import session_list

    if answer["sessions"]:
        console().print(session_list(answer["sessions"], int(answer["now"])))
    elif query:
        print(f"No session at {api.url} meets {query}")
    else:
        print(f"No session yet at {api.url}. Send it telemetry, or try `otel-sessions demo`.")
    return 0


def _show_session(api: Api, wanted: str | None, *, as_json: bool) -> int:
    session = _find(api, wanted)
    rows = api.rows(session["id"])
    if as_json:
        print(json.dumps({**session, "rows": rows}, ensure_ascii=False, indent=2))
        return 0
    from otel_sessions.cli._console import console
    from otel_sessions.cli._drawing import lines, session_summary, span_tree

    screen = console()
    now = int(session["now"])
    for line in session_summary(session, now):
        screen.print(line)
    screen.print(api.page(session["id"]), style="dim", soft_wrap=True, highlight=False)
    screen.print()
    screen.print(span_tree(lines(rows), now, alive=session["state"] in ("running", "waiting")))
    return 0


def _find(api: Api, wanted: str | None) -> dict[str, Any]:
    if wanted is None:
        newest = api.sessions(limit=1)["sessions"]
        if not newest:
            raise EndpointError(
                f"no session yet at {api.url}; send it telemetry, or try `otel-sessions demo`"
            )
        wanted = str(newest[0]["id"])
    session = api.session(wanted) or _begins_with(api, wanted)
    if session is None:
        raise EndpointError(
            f"no session {wanted!r} at {api.url}; `otel-sessions show --list` lists the recent ones"
        )
    return session


def _begins_with(api: Api, prefix: str) -> dict[str, Any] | None:
    """Return the one session of which an id, ours or theirs, begins so. Raises UsageError for several."""
    if not prefix or '"' in prefix:
        return None
    listed = api.sessions(_ENOUGH, f'id:"{prefix}"')["sessions"]
    found = [it for it in listed if any((it[name] or "").startswith(prefix) for name in _IDS)]
    if len(found) > 1:
        named = ", ".join(str(it["session_id"] or it["id"]) for it in found[:5])
        raise UsageError(f"{prefix!r} begins ids of several sessions, {named} …; give more of it")
    return api.session(found[0]["id"]) if found else None
