"""Words that repeat in index rows (names, services, models, task ids), kept once and known by a number.

A number means the same word for ever, so readers may remember what they looked up.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Final

__all__ = ["NameReader", "NameWriter"]

_REMEMBERED: Final = 50_000
_ASKED_AT_ONCE: Final = 500
_NEW: Final = "INSERT INTO names (text) VALUES (?)"


class _Numbers(dict["str | None", "int | None"]):
    """Words and their numbers; asks for the number of a word that it does not know."""

    def __init__(self, learn: Callable[[str], int]) -> None:
        super().__init__({None: None})
        self._learn = learn

    def __missing__(self, word: str | None) -> int | None:
        if word is None:
            return None
        if len(self) >= _REMEMBERED:
            self.clear()
        number = self[word] = self._learn(word)
        return number


class NameWriter:
    """The writer's dictionary; new words become rows in the open transaction."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self._words: dict[int, str] = {}
        self._used: set[int] = set()
        self.numbers: dict[str | None, int | None] = _Numbers(self._number)
        """The number of any word, looked up or given when it is asked for; None for None."""

    def word(self, number: int | None) -> str | None:
        """Return the word of a number, None for None."""
        if number is None:
            return None
        word = self._words.get(number)
        if word is None:
            (word,) = self._conn.execute("SELECT text FROM names WHERE id = ?", (number,)).fetchone()
            if len(self._words) >= _REMEMBERED:
                self._words.clear()
            self._words[number] = word
        return word

    def forget(self) -> None:
        """Forget all that is remembered, after a transaction was rolled back."""
        self.numbers.clear()
        self._words.clear()

    def note_used(self) -> set[int]:
        """Return a set to which every number is added that is given out from now on."""
        self._used = set()
        self.numbers.clear()  # each is asked for again, and so noted
        self.numbers[None] = None
        return self._used

    def _number(self, word: str) -> int:
        row = self._conn.execute("SELECT id FROM names WHERE text = ?", (word,)).fetchone()
        number = row[0] if row else self._conn.execute(_NEW, (word,)).lastrowid
        assert number is not None  # noqa: S101 - an INSERT has a rowid
        self._used.add(number)
        return number


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
