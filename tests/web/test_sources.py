"""What the page's sources promise before any browser reads them."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from otel_sessions.cli._drawing import state
from otel_sessions.lifecycle import EndReason, Outcome

ROOT = Path(__file__).parents[2]
WEB = ROOT / "otel_sessions" / "backend" / "web"
STATIC = WEB / "static"
TESTS = Path(__file__).parent / "js"
MODULES = sorted((STATIC / "js").glob("*.js"))


@pytest.fixture(scope="module")
def deno() -> str:
    """Find deno beside this Python, or on the path."""
    found = shutil.which("deno", path=str(Path(sys.executable).parent)) or shutil.which("deno")
    if found is None:
        pytest.skip("no deno: pip install deno==2.9.8")
    return found


def run(*command: str | Path) -> None:
    """Run a tool that has to be content; show what it says if it is not."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_decides_without_a_browser_keeps_its_promises(deno: str) -> None:
    """The claims of tests/web/js hold; their types and those of what they import are checked on the way."""
    run(deno, "test", "--check", "--no-lock", "--no-remote", "--config", WEB / "deno.json", TESTS)


def test_every_module_is_well_typed(deno: str) -> None:
    """The JSDoc types of all modules agree with one another and with the DOM's."""
    run(deno, "check", "--no-lock", "--no-remote", "--config", WEB / "deno.json", *MODULES)


def test_sources_are_linted_and_formatted(deno: str) -> None:
    """One style, decided by the tool."""
    run(deno, "lint", "--config", WEB / "deno.json", *MODULES)
    run(deno, "fmt", "--check", "--config", WEB / "deno.json", *MODULES, *TESTS.glob("*.js"))


def test_the_page_and_the_terminal_name_an_end_with_the_same_words(deno: str) -> None:
    """Glyph, word and reason, for all that an end can be."""
    outcomes = [None, *(outcome.value for outcome in Outcome)]
    ends = [(outcome, reason) for outcome in outcomes for reason in (None, *(it.value for it in EndReason))]
    program = f"""
        const {{ endedState }} = await import("{(STATIC / "js/format.js").as_uri()}");
        const said = {json.dumps(ends)}.map(([outcome, reason]) => endedState(outcome, reason));
        console.log(JSON.stringify(said.map(({{ glyph, word, note }}) => [glyph, word.toLowerCase(), note])));
    """
    done = subprocess.run([deno, "eval", program], capture_output=True, text=True, check=True, cwd=ROOT)
    on_page = [
        f"{glyph} {word}" + (f" ({note})" if note else "") for glyph, word, note in json.loads(done.stdout)
    ]
    in_terminal = [
        str(state({"state": "ended", "outcome": outcome, "end_reason": reason})) for outcome, reason in ends
    ]
    assert on_page == in_terminal


def test_vendored_files_are_the_ones_on_the_list() -> None:
    """No byte of what others wrote differs from what was vendored, and nothing unlisted lies beside it."""
    folder = STATIC / "vendor"
    listed = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    present = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "SHA256SUMS"
    }
    assert present == listed


def test_licences_of_all_vendored_packages_are_there() -> None:
    """Each package in the bundle has its licence text beside it."""
    text = (STATIC / "vendor" / "LICENSES.txt").read_text()
    for package in ("preact", "@preact/signals", "@preact/signals-core", "htm"):
        assert f"==== {package} ====" in text
    assert text.count("MIT License") == 3
    assert "Apache License" in text


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_no_module_makes_html_code_or_style_of_text(path: Path) -> None:
    """What is hostile can't be run, because nothing here turns text into markup, code or style sheets."""
    source = path.read_text()
    banned = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|dangerouslySetInnerHTML|DOMParser|\beval\(|new Function|cssText|setAttribute\(|style=\"|srcdoc"
    assert not re.findall(banned, source)


@pytest.mark.parametrize("path", [*MODULES, STATIC / "css" / "app.css"], ids=lambda path: path.name)
def test_no_source_names_another_origin(path: Path) -> None:
    """No request leaves the origin: there is no absolute address in any source."""
    assert not re.findall(r"https?://[\w.]+", path.read_text())


# --- Contrast -----------------------------------------------------------------------------------

TEXT = (
    *("text", "muted", "faint", "link", "error"),
    *("running", "waiting", "stale", "lost", "ended", "idle"),
)
GROUNDS = ("bg", "surface", "raised", "hover", "select")


def tokens() -> dict[str, tuple[str, str]]:
    """Read the colour tokens: light, dark."""
    css = (STATIC / "css" / "app.css").read_text()
    return {
        name: (light, dark)
        for name, light, dark in re.findall(r"--([\w-]+):\s*light-dark\((#\w+), (#\w+)\)", css)
    }


def luminance(colour: str) -> float:
    """Compute the relative luminance that WCAG 2 defines."""
    digits = colour[1:] if len(colour) == 7 else "".join(c * 2 for c in colour[1:])
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_every_text_colour_can_be_read_on_every_ground(theme: int) -> None:
    """Contrast is at least 4.5 in both themes, selected and hovered rows included."""
    colours = tokens()
    for text in TEXT:
        for ground in GROUNDS:
            pair = sorted((luminance(colours[text][theme]), luminance(colours[ground][theme])))
            ratio = (pair[1] + 0.05) / (pair[0] + 0.05)
            assert ratio >= 4.5, f"{text} on {ground}: {ratio:.2f}"
