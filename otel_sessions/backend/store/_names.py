"""Words that repeat in index rows (names, services, models, task ids), kept once and known by a number.

A number means the same word for ever, so readers may remember what they looked up.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

__all__ = ["NameReader", "NameWriter"]

_REMEMBERED: Final = 50_000
_ASKED_AT_ONCE: Final = 500


class NameWriter:
    """The writer's dictionary; new words become rows in the open transaction."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self._numbers: dict[str | None, int | None] = {None: None}
        self._words: dict[int | None, str | None] = {None: None}

    def number(self, word: str | None) -> int | None:
        """Return the number of a word, None for None."""
        try:
            return self._numbers[word]
        except KeyError:
            return self._learn(word)

    def word(self, number: int | None) -> str | None:
        """Return the word of a number, None for None."""
        try:
            return self._words[number]
        except KeyError:
            (word,) = self._conn.execute("SELECT text FROM names WHERE id = ?", (number,)).fetchone()
            self._remember(number, word)
            return word

    def forget(self) -> None:
        """Forget all that is remembered, after a transaction was rolled back."""
        self._numbers = {None: None}
        self._words = {None: None}

    def _learn(self, word: str | None) -> int:
        row = self._conn.execute("SELECT id FROM names WHERE text = ?", (word,)).fetchone()
        number: int | None
        if row is None:
            number = self._conn.execute("INSERT INTO names (text) VALUES (?)", (word,)).lastrowid
        else:
            (number,) = row
        assert number is not None  # noqa: S101 - an INSERT has a rowid
        self._remember(number, word)
        return number

    def _remember(self, number: int | None, word: str | None) -> None:
        if len(self._numbers) >= _REMEMBERED:
            self.forget()
        self._numbers[word] = number
        self._words[number] = word


class NameReader:
    """The readers' dictionary, shared by threads; it learns from whatever connection it is given."""

    def __init__(self) -> None:
        self._words: dict[int | None, str | None] = {None: None}

    def words(self, conn: sqlite3.Connection, numbers: Iterable[int | None]) -> dict[int | None, str | None]:
        """Return the words of all given numbers."""
        wanted = set(numbers)
        known = self._words
        missing = [number for number in wanted if number not in known]
        found = {number: known.get(number) for number in wanted}
        for begin in range(0, len(missing), _ASKED_AT_ONCE):
            part = missing[begin : begin + _ASKED_AT_ONCE]
            marks = ",".join("?" * len(part))
            found.update(conn.execute(f"SELECT id, text FROM names WHERE id IN ({marks})", part))
        if len(known) + len(missing) > _REMEMBERED:
            self._words = {None: None, **found}
        else:
            known.update(found)
        return found
