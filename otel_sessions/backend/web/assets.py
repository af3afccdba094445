"""The page's own files, read once: bytes, media type and gzip form, under one hash of all their contents.

The hash is part of every address, so an answer may be cached for ever, and the relative imports of the
modules inherit it. Nothing is looked up on disk while serving: a path that is not in the table is not there.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

__all__ = ["ENTRY_POINT", "Asset", "Assets", "load_assets"]

ENTRY_POINT: Final = "js/main.js"
STATIC: Final = Path(__file__).parent / "static"

_MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}
_COMPRESSED: Final = frozenset({".css", ".js", ".json", ".svg", ".txt"})

# Static imports alone: what a page loads by `import()` is not needed at its start.
_STATIC_IMPORT: Final = re.compile(
    r"""^\s*(?:import|export)\b(?:[^'"();]*?\bfrom)?\s*["'](\.{1,2}/[^"']+)["']""", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it is sent."""

    body: bytes
    zipped: bytes | None  # None where gzip gains nothing
    media_type: str


@dataclass(frozen=True, slots=True)
class Assets:
    """All files by path below static/, their common hash, and the modules to preload."""

    files: Mapping[str, Asset]
    hash: str
    preload: tuple[str, ...]

    def url(self, path: str) -> str:
        """Return the address of one file, good for ever."""
        return f"/static/{self.hash}/{path}"


def load_assets(root: Path = STATIC) -> Assets:
    """Read all files below `root` that have a media type here, by default those of the package."""
    paths = sorted(path for path in root.rglob("*") if path.suffix in _MEDIA_TYPES and path.is_file())
    bodies = {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
    digest = hashlib.sha256()
    for path, body in bodies.items():
        digest.update(f"{path}\0{len(body)}\0".encode())
        digest.update(body)
    return Assets(
        files={path: _asset(path, body) for path, body in bodies.items()},
        hash=digest.hexdigest()[:16],
        preload=_module_graph(bodies),
    )


def _asset(path: str, body: bytes) -> Asset:
    suffix = PurePosixPath(path).suffix
    zipped = gzip.compress(body, 9, mtime=0) if suffix in _COMPRESSED else None
    if zipped is not None and len(zipped) >= len(body):
        zipped = None
    return Asset(body, zipped, _MEDIA_TYPES[suffix])


def _module_graph(bodies: Mapping[str, bytes]) -> tuple[str, ...]:
    """List the entry point and all it imports statically, so that the browser fetches them at once."""
    reached: dict[str, None] = {}
    waiting = [ENTRY_POINT]
    while waiting:
        path = waiting.pop(0)
        if path in reached or path not in bodies:
            continue
        reached[path] = None
        source = bodies[path].decode("utf-8", "replace")
        waiting += [_resolve(path, target) for target in _STATIC_IMPORT.findall(source)]
    return tuple(reached)


def _resolve(importer: str, target: str) -> str:
    parts = list(PurePosixPath(importer).parent.parts)
    for part in PurePosixPath(target).parts:
        if part == "..":
            parts = parts[:-1]
        else:
            parts.append(part)
    return "/".join(parts)
