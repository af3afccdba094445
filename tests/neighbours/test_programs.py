"""Claims about how the programs beside us are made: once, whole, and with a reason where they can't be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import programs
import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Build into a cache that is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def program(make, recipe="1"):
    """Describe a program that is made by a function."""
    return programs.Program("greeter", recipe, make, ("bin/greeter", "beside"))


def well(folder):
    """Make it as it should be."""
    (folder / "bin").mkdir()
    (folder / "bin" / "greeter").write_text("hello")
    (folder / "beside").write_text("")


def test_a_program_is_made_once_and_again_for_another_recipe():
    """A second call finds it; another version or manifest is another place."""
    calls = []

    def make(folder):
        calls.append(folder)
        well(folder)

    first = programs.executable(program(make))
    assert first.read_text() == "hello"
    assert programs.executable(program(make)) == first
    assert len(calls) == 1
    assert programs.executable(program(make, recipe="2")) != first
    assert len(calls) == 2


def test_what_failed_half_way_leaves_nothing_that_looks_made():
    """A build that dies after its first file is made anew, whole."""

    def broken(folder):
        (folder / "bin").mkdir()
        (folder / "bin" / "greeter").write_text("half")
        raise programs.BuildError("no space left")

    with pytest.raises(programs.BuildError):
        programs.executable(program(broken))
    assert [path.name for path in programs.cache_folder().iterdir()] == ["greeter.lock"]
    assert programs.executable(program(well)).read_text() == "hello"


def test_several_workers_make_a_program_once(tmp_path):
    """Three processes ask at the same time: one makes it, and all find it whole."""
    source = f"""
import sys, time
sys.path.insert(0, {str(Path(programs.__file__).parent)!r})
import programs
def make(folder):
    with open({str(tmp_path / "made")!r}, "a") as made:
        made.write("x")
    time.sleep(0.3)
    (folder / "greeter").write_text("hello")
print(programs.executable(programs.Program("greeter", "1", make, ("greeter",)), lambda line: None).read_text())
"""
    workers = [
        subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True, env=os.environ)
        for _ in range(3)
    ]
    assert [worker.communicate(timeout=30)[0] for worker in workers] == ["hello\n"] * 3
    assert (tmp_path / "made").read_text() == "x"


def test_without_go_there_is_a_reason_and_no_failure(monkeypatch, tmp_path):
    """Who has no Go is told so."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(programs.Unavailable, match="Go is not installed"):
        programs.executable(programs.TELEMETRYGEN, lambda _: None)
    with pytest.raises(programs.Unavailable, match="apt"):
        programs.executable(programs.PROMETHEUS, lambda _: None)


@pytest.mark.neighbours
def test_without_a_module_proxy_there_is_a_reason_and_no_failure(monkeypatch):
    """Who has Go, but no network, is told so."""
    if programs.shutil.which("go") is None:
        pytest.skip("Go is not installed")
    monkeypatch.setenv("GOPROXY", "http://127.0.0.1:9")
    with pytest.raises(programs.Unavailable, match="proxy can't be reached"):
        programs.executable(programs.TELEMETRYGEN, lambda _: None)


@pytest.mark.neighbours
def test_a_build_that_fails_with_go_and_its_proxy_there_fails_loudly(tmp_path):
    """A version that does not exist is our mistake, and no reason to skip."""
    if programs.shutil.which("go") is None:
        pytest.skip("Go is not installed")
    try:
        programs._go(tmp_path, "version")
    except programs.Unavailable as reason:
        pytest.skip(str(reason))
    with pytest.raises(programs.BuildError, match="nowhere"):
        programs._go(tmp_path, "install", "go.opentelemetry.io/collector/cmd/builder@v0.0.1-nowhere")
