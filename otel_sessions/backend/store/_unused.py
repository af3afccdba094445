"""Words and ids that no session uses any more: found after sessions were removed, deleted a few at a time.

Names, users, titles, why something failed: each word stands once in `names`, so removing a session leaves
its words. To find which nobody uses, all index rows are looked through, some thousand in each small
transaction, while ingest goes on: new rows have greater ids than all before, so the walk meets them in the
end, and every number that is given out meanwhile counts as used.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

from otel_sessions.backend.resolve import global_key, session_id
from otel_sessions.backend.store._names import NameWriter

__all__ = ["Unused"]

_LOOKED_AT: Final = 5_000
"""Index rows of one step, about 15 ms of work; what waits for a commit waits as long."""
_DELETED: Final = 500
_WORTH: Final = 16
"""All is looked through again when one of so many rows was removed since."""
_WORDS_OF: Final = {
    "spans": "name, service, task, task_name, task_parent, task_state, agent, model, tool, user,"
    " conversation, session_name, title, outcome, failure, provider",
    "logs": "event_name, service, model, user, tool, provider",
}


class Unused:
    """Looks for what is unused in steps; what it has seen is in memory, so a new process begins anew."""

    def __init__(self, conn: sqlite3.Connection, names: NameWriter) -> None:
        self._conn = conn
        self._names = names
        self._wanted = True  # an earlier process may have left some
        self._removed = 0
        self._steps: Iterator[bool] | None = None

    def note_removed(self, rows: int) -> None:
        """Note that so many index rows were removed; many make it worth to look again."""
        self._removed += rows

    def step(self) -> bool | None:
        """Do a little in the open transaction; return whether it deleted anything, None when all is done."""
        if self._steps is None:
            if not self._wanted and not self._is_worth_it():
                return None
            self._wanted, self._removed = False, 0
            self._steps = self._sweep()
        deleted = next(self._steps, None)
        if deleted is None:
            self._steps = None
            return self.step()  # more was removed meanwhile, or all is done
        return deleted

    def _is_worth_it(self) -> bool:
        (stored,) = self._conn.execute("SELECT spans + logs FROM meta").fetchone()
        return self._removed > 0 and self._removed * _WORTH >= stored

    def forget(self) -> None:
        """Begin anew after a transaction was rolled back."""
        if self._steps is not None:
            self._steps = None
            self._wanted = True

    def _sweep(self) -> Iterator[bool]:
        used = self._names.note_used()
        (newest,) = self._conn.execute("SELECT ifnull(max(id), 0) FROM names").fetchone()
        for table in _WORDS_OF:
            for words in self._words_of(table):
                used |= words
                yield False
        yield from self._delete_names(used, newest)
        if newest not in used:
            self._conn.execute("UPDATE names SET text = ? WHERE id = ?", (f"(unused {newest})", newest))
        yield from self._delete_ids()

    def _words_of(self, table: str) -> Iterator[set[int]]:
        """Walk a table by ids; whatever comes meanwhile is behind."""
        last = 0
        while rows := self._conn.execute(
            f"SELECT id, {_WORDS_OF[table]} FROM {table} WHERE id > ? ORDER BY id LIMIT {_LOOKED_AT}", (last,)
        ).fetchall():
            last = rows[-1][0]
            yield {number for row in rows for number in row[1:] if number is not None}

    def _delete_names(self, used: set[int], newest: int) -> Iterator[bool]:
        """Delete words by their numbers; but for the newest, whose number would be given to another word."""
        last = 0
        while rows := self._conn.execute(
            f"SELECT id FROM names WHERE id > ? AND id < ? ORDER BY id LIMIT {_LOOKED_AT}", (last, newest)
        ).fetchall():
            last = rows[-1][0]
            unused = [(number,) for (number,) in rows if number not in used]
            for begin in range(0, len(unused), _DELETED):
                self._conn.executemany(
                    "DELETE FROM names WHERE id = ?",
                    # Given out since the step before, which the transaction of that one did not see.
                    [one for one in unused[begin : begin + _DELETED] if one[0] not in used],
                )
                yield True

    def _delete_ids(self) -> Iterator[bool]:
        """Delete what services send as `session.id` of sessions that are gone."""
        last = ("", "")
        while rows := self._conn.execute(
            "SELECT service, value FROM global_ids WHERE (service, value) > (?, ?)"
            f" ORDER BY service, value LIMIT {_DELETED}",
            last,
        ).fetchall():
            last = rows[-1]
            gone = [row for row in rows if not self._is_known(row[1])]
            self._conn.executemany("DELETE FROM global_ids WHERE service = ? AND value = ?", gone)
            yield bool(gone)

    def _is_known(self, value: str) -> bool:
        found = "SELECT 1 FROM sessions WHERE id = ?"
        return self._conn.execute(found, (session_id(global_key(value)),)).fetchone() is not None
