"""Where this very package came from, as the command that installs it elsewhere; pure but for one look."""

from __future__ import annotations

import json
import shlex
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from otel_sessions._version import __version__

__all__ = ["command_for", "install_command"]

_NAME: Final = "otel-sessions"


@cache
def install_command() -> str:
    """Return the command that installs what runs here: from an index, a folder, a file, a repository."""
    try:
        found: Distribution = distribution(_NAME)
    except PackageNotFoundError:  # it runs from a folder that is only on the path
        return command_for(json.dumps({"url": Path(__file__).parents[2].as_uri()}))
    return command_for(found.read_text("direct_url.json"))


def command_for(direct_url: str | None) -> str:
    """Return the command for what `direct_url.json` says (PEP 610); None is an index."""
    if direct_url is None:
        return f"pip install {_NAME}=={__version__}"
    said: dict[str, Any] = json.loads(direct_url)
    url = str(said["url"])
    if vcs := said.get("vcs_info"):
        return "pip install " + shlex.quote(f"{vcs['vcs']}+{url}@{vcs['commit_id']}")
    place = url2pathname(urlsplit(url).path) if url.startswith("file:") else url
    return "pip install " + shlex.quote(place)
