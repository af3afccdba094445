"""Words to find in bytes and in texts, whatever their case and however JSON escaped them; pure.

Two steps: `may_hold` looks at a whole body, fast, and never overlooks a word; `Needles.find` then tells
where in a message the words really stand. Both compare case-folded text, so `STRASSE` finds `Straße`.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

__all__ = ["Found", "Needles"]

_LEVELS: Final = 3  # JSON in JSON in a JSON body: a character may be escaped so often
_PIECE: Final = 128 << 10  # bytes folded at once: Python's lock is not let go meanwhile, for up to 1 ms
_AROUND: Final = 80  # characters of a snippet on either side of the match
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-f]{4})|(.))", re.DOTALL)
_SHORT: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
# Where Unicode has letters with a case, roughly: a test looks through all planes.
_WITH_CASE: Final = (
    (0x80, 0x2000), (0x2100, 0x2200), (0x24B0, 0x24F0), (0x2C00, 0x2D30), (0xA640, 0xA800), (0xAB30, 0xABC0),
    (0xFB00, 0xFB20), (0xFF20, 0xFF60), (0x10400, 0x10600), (0x10C80, 0x10E00), (0x11880, 0x118E0),
    (0x16E40, 0x16EE0), (0x1E900, 0x1E950),
)  # fmt: skip
_ASCII: Final = bytes(range(128))
_SPACE: Final = re.compile(r"\s+")


class Found(NamedTuple):
    """What stands around a match, on one line, and where in it words begin and end, in code points."""

    snippet: str
    marks: tuple[tuple[int, int], ...]


class Needles:
    """The words of a search; all of them have to occur."""

    def __init__(self, words: Iterable[str]) -> None:
        self._folded = tuple(dict.fromkeys(word.casefold() for word in words))
        self._words = tuple(_Word(word) for word in self._folded)
        longest = max((len(form) for word in self._words for form in word.forms), default=0)
        self._overlap = 4 * longest  # folding never makes a text shorter; a character has four bytes at most

    def may_hold(self, body: bytes) -> bool:
        """Tell whether all words may occur in a body; False is certain."""
        missing = self._words
        for at in range(0, max(1, len(body)), _PIECE):
            piece = _Piece(body[at : at + _PIECE + self._overlap])
            missing = tuple(word for word in missing if not word.may_be_in(piece))
            if not missing:
                return True
        return False

    def find(self, texts: Iterable[tuple[str, str]]) -> tuple[str, Found] | None:
        """Find all words in the texts of one message; return which text has most, and where it has the first.

        Texts come with their names. One that is JSON is read: what it holds is shown rather than how it is
        escaped.
        """
        missing = set(self._folded)
        best: tuple[str, str, str, list[str]] | None = None
        for name, text in texts:
            for told in _readings(text):
                folded = told.casefold()
                here = [word for word in self._folded if word in folded]
                missing.difference_update(here)
                if here and (best is None or len(here) > len(best[3])):
                    best = name, told, folded, here
            if best is not None and len(best[3]) == len(self._folded):
                break
        if best is None or missing:
            return None
        name, told, folded, here = best
        return name, self._snippet(told, folded, here[0])

    def _snippet(self, text: str, folded: str, word: str) -> Found:
        at = folded.index(word)
        begin, end = _unfolded(text, folded, at), _unfolded(text, folded, at + len(word) - 1) + 1
        cut = slice(max(0, begin - _AROUND), end + _AROUND)
        line = _SPACE.sub(" ", text[cut]).strip()
        shown = ("…" if cut.start else "") + line + ("…" if cut.stop < len(text) else "")
        return Found(shown, tuple(_marks(shown, [_SPACE.sub(" ", word).strip() for word in self._folded])))


class _Piece:
    """Some bytes, and what is asked of them more than once; each only when it is asked."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.lower = body.lower()  # by ASCII's rules

    @functools.cached_property
    def beyond_ascii(self) -> bytes:
        """All bytes of letters beyond ASCII: few as a rule, and soon looked through."""
        return self.body.translate(None, _ASCII)

    @functools.cached_property
    def has_escapes(self) -> bool:
        """Whether JSON may have escaped a letter; a single byte is found fifty times faster than two."""
        return b"\\" in self.lower and b"\\u" in self.lower

    def may_have(self, letters: Iterable[str]) -> bool:
        """Tell whether one of some letters beyond ASCII is there, as it is or escaped."""
        if any(letter.encode() in self.beyond_ascii for letter in letters):
            return True
        return self.has_escapes and any(
            json.dumps(letter)[1:-1].lower().encode() in self.lower for letter in letters
        )

    def holds(self, texts: Iterable[str]) -> bool:
        """Tell for certain, and slowly, whether one of some case-folded texts is there."""
        text = self.body.decode("utf-8", "replace").casefold()
        if any(form in text for form in texts):
            return True
        for _ in range(_LEVELS if self.has_escapes else 0):
            text = _paired(_ESCAPE.sub(_unescaped, text)).casefold()
            if any(form in text for form in texts):
                return True
        return False


class _Word:
    """One word, and what tells fast whether it can stand in some bytes."""

    def __init__(self, folded: str) -> None:
        cases = (folded, folded.upper(), folded.title())
        forms = (form for case in cases for form in (case, *_escaped(case)))
        self.forms = tuple(dict.fromkeys(form.encode().lower() for form in forms))
        self._texts = tuple(form.decode() for form in self.forms)
        cased = [letter for letter in dict.fromkeys(folded) if not letter.isascii() and letter in _sources()]
        self._needed = tuple((letter, *_sources()[letter]) for letter in cased)
        self._strange = () if cased else _strangers(folded)

    def may_be_in(self, piece: _Piece) -> bool:
        """Tell whether the word may stand in a piece."""
        if any(form in piece.lower for form in self.forms):
            return True
        if self._needed:  # each letter that has a case must be there in some case, before it is worth folding
            return all(map(piece.may_have, self._needed)) and piece.holds(self._texts)
        return bool(self._strange) and piece.may_have(self._strange) and piece.holds(self._texts)


@functools.cache
def _sources() -> dict[str, tuple[str, ...]]:
    """Return, for each letter that folding brings forth, the letters beyond ASCII that it comes from."""
    sources: dict[str, list[str]] = {}
    for letter in map(chr, itertools.chain.from_iterable(itertools.starmap(range, _WITH_CASE))):
        folded = letter.casefold()
        if folded != letter:
            for part in dict.fromkeys(folded):
                sources.setdefault(part, []).append(letter)
    return {letter: tuple(found) for letter, found in sources.items()}


def _strangers(word: str) -> tuple[str, ...]:
    """Return the letters beyond ASCII of which a part may fold to a part of a word: ß in `strasse`."""
    suspects = dict.fromkeys(source for letter in word for source in _sources().get(letter, ()))
    return tuple(suspect for suspect in suspects if _overlap(suspect.casefold(), word))


def _overlap(folded: str, word: str) -> bool:
    if folded in word:
        return True
    return any(word.startswith(folded[n:]) or word.endswith(folded[:-n]) for n in range(1, len(folded)))


def _escaped(text: str, levels: int = _LEVELS) -> Iterator[str]:
    """Spell a text as JSON writers do of which each escapes what the one before wrote, all letters or few."""
    for ascii_only in (True, False):
        spelled = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield spelled
        if levels > 1 and spelled != text:
            yield from _escaped(spelled, levels - 1)


def _unescaped(found: re.Match[str]) -> str:
    return chr(int(found[1], 16)) if found[1] else _SHORT.get(found[2], found[2])


def _readings(text: str) -> Iterator[str]:
    """Yield the texts inside a text that is JSON, whatever their depth, then the text itself."""
    if text[:1] in ("{", "["):
        try:
            yield from _strings(json.loads(text))
        except (ValueError, RecursionError):  # cut off by an attribute limit, as a rule
            yield _json_free(text)
    yield text


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield from _readings(value)
    elif isinstance(value, list):
        for inner in value:  # pyright: ignore[reportUnknownVariableType] - any JSON
            yield from _strings(inner)
    elif isinstance(value, dict):
        for inner in value.values():  # pyright: ignore[reportUnknownVariableType] - any JSON
            yield from _strings(inner)


_LOOSE: Final = re.compile(r"\\+(?:u([0-9a-fA-F]{4})|([\"/bfnrt]))")


def _json_free(text: str) -> str:
    """Undo the escapes of JSON that is no JSON any more."""
    return _paired(_LOOSE.sub(_unescaped, text))


def _paired(text: str) -> str:
    """Turn pairs of surrogates into the characters that they stand for."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _unfolded(text: str, folded: str, at: int) -> int:
    """Return which character of a text became the one at a place of the folded text."""
    if len(text) == len(folded):
        return at
    return bisect.bisect_right(range(len(text)), at, key=lambda n: len(text[:n].casefold())) - 1


def _marks(shown: str, words: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yield where words stand in a short text, without overlaps, from left to right; no word is empty."""
    owners = [no for no, character in enumerate(shown) for _ in character.casefold()]
    folded = shown.casefold()
    found = re.finditer("|".join(map(re.escape, sorted(words, key=len, reverse=True))), folded)
    last = 0
    for match in found:
        begin, end = owners[match.start()], owners[match.end() - 1] + 1
        if begin >= last:
            yield begin, end
            last = end
