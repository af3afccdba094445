"""The real programs beside us: pinned, built once into a cache of this user, found by the tests.

`python tests/neighbours/programs.py` makes them all and says what it does. Nothing of these ships as a
binary that could be installed: the OpenTelemetry Collector (of the parts in `collector.yaml`), telemetrygen
and Jaeger build from Go modules, Prometheus is unpacked from the system's package without installing it, so
that no service of it ever starts.

What can't be made because something is missing here (no Go, no network, no apt) is `Unavailable`: the tests
skip with that reason. What should have been made and failed is `BuildError`: the tests fail.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "COLLECTOR",
    "JAEGER",
    "PROMETHEUS",
    "TELEMETRYGEN",
    "BuildError",
    "Program",
    "Unavailable",
    "cache_folder",
    "executable",
]

COLLECTOR_VERSION = "0.161.0"
TELEMETRYGEN_VERSION = "0.161.0"
JAEGER_VERSION = "1.62.0"
OLDEST_GO = (1, 26)
"""What the Collector's go.mod asks for."""
MANIFEST = Path(__file__).with_name("collector.yaml")

BUILD_SECONDS = 1800
PROBE_SECONDS = 60

Say = Callable[[str], None]


class Unavailable(Exception):  # noqa: N818 -- it is a reason to skip, not an error
    """Something that a program is made with is not on this machine."""


class BuildError(Exception):
    """A program that could have been made was not."""


@dataclass(frozen=True, slots=True)
class Program:
    """One program: what decides about its contents, and how it is made in an empty folder."""

    name: str
    recipe: str
    """Every version and line that goes into it: another recipe is another place in the cache."""
    make: Callable[[Path], None]
    produces: tuple[str, ...]
    """Paths in its folder, the first one is the program itself."""

    @property
    def folder(self) -> Path:
        """Where it lies once it is made."""
        digest = hashlib.sha256("\n".join((self.recipe, *self.produces)).encode()).hexdigest()[:12]
        return cache_folder() / f"{self.name}-{digest}"


def cache_folder() -> Path:
    """Return the folder of this user in which all programs lie."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "otel-sessions-tests" / "neighbours"


def executable(program: Program, say: Say = print) -> Path:
    """Return a program's path; make it first where it isn't there.

    Safe in several processes at once: one makes it, the others wait for the lock. Raise `Unavailable` or
    `BuildError`.
    """
    found = program.folder / program.produces[0]
    if found.exists():
        return found
    cache_folder().mkdir(parents=True, exist_ok=True)
    with _locked(cache_folder() / f"{program.name}.lock"):
        if not found.exists():
            _make(program, say)
    return found


def _make(program: Program, say: Say) -> None:
    """Make it aside, then put it in its place in one step: what is there is whole."""
    began = time.monotonic()
    say(f"{program.name}: making it")
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=f".{program.name}-") as aside:
        work, done = Path(aside) / "work", Path(aside) / "done"
        work.mkdir()
        program.make(work)
        for produced in program.produces:
            (done / produced).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(work / produced, done / produced)
        done.rename(program.folder)
    say(f"{program.name}: made in {time.monotonic() - began:.0f} s")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _run(command: list[str | Path], folder: Path, env: dict[str, str] | None = None) -> str:
    """Run one step in a folder; return what it wrote to standard output, or raise BuildError with all of it."""
    try:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=folder,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise BuildError(f"{command} took longer than {BUILD_SECONDS} s") from late
    if done.returncode:
        raise BuildError(
            f"{command} ended with {done.returncode}:\n{done.stdout[-4000:]}{done.stderr[-8000:]}"
        )
    return done.stdout


# --- Go -----------------------------------------------------------------------------------------------------


def _go(folder: Path, *arguments: str, binaries: Path | None = None) -> None:
    """Run the go command; programs that it installs go to `binaries`."""
    _build([_go_program(folder), *arguments], folder, {"GOBIN": str(binaries)} if binaries else {})


def _build(command: list[str | Path], folder: Path, env: dict[str, str] | None = None) -> None:
    """Run what fetches modules; raise Unavailable where its trouble is that they can't be had here."""
    go = _go_program(folder)
    _must_reach_the_proxy(go, folder)
    try:
        _run(command, folder, _go_environment() | (env or {}))
    except BuildError:
        _must_reach_the_proxy(go, folder)
        raise


def _go_environment() -> dict[str, str]:
    # The toolchain that is there, no other is downloaded; modules may be added to a go.mod that we write.
    return {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "GOWORK": "off"}


def _go_program(folder: Path) -> str:
    go = shutil.which("go")
    if go is None:
        raise Unavailable("Go is not installed")
    version = _run([go, "env", "GOVERSION"], folder, _go_environment()).strip()
    numbers = re.match(r"go(\d+)\.(\d+)", version)
    if numbers and tuple(map(int, numbers.groups())) < OLDEST_GO:
        raise Unavailable(f"Go {OLDEST_GO[0]}.{OLDEST_GO[1]} or newer is needed, here is {version}")
    return go


def _must_reach_the_proxy(go: str, folder: Path) -> None:
    """Ask for the versions of one module, which no cache answers."""
    try:
        subprocess.run(
            [go, "list", "-m", "-versions", "go.opentelemetry.io/collector/cmd/builder"],
            cwd=folder,
            env={**os.environ, **_go_environment()},
            capture_output=True,
            timeout=PROBE_SECONDS,
            check=True,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as silent:
        raise Unavailable("Go's module proxy can't be reached") from silent


def _make_collector(folder: Path) -> None:
    builder = f"go.opentelemetry.io/collector/cmd/builder@v{COLLECTOR_VERSION}"
    _go(folder, "install", builder, binaries=folder / "bin")
    manifest = folder / "manifest.yaml"
    written = MANIFEST.read_text().replace("dist:\n", f"dist:\n  output_path: {folder / 'out'}\n", 1)
    manifest.write_text(written)
    _build([folder / "bin" / "builder", "--config", manifest], folder)
    (folder / "out" / "otelcol").rename(folder / "otelcol")


def _make_telemetrygen(folder: Path) -> None:
    module = "github.com/open-telemetry/opentelemetry-collector-contrib/cmd/telemetrygen"
    _go(folder, "install", f"{module}@v{TELEMETRYGEN_VERSION}", binaries=folder)


_JAEGER_MODULE = f"""module neighbours

go {OLDEST_GO[0]}.{OLDEST_GO[1]}

require github.com/jaegertracing/jaeger v{JAEGER_VERSION}

replace github.com/Shopify/sarama => github.com/Shopify/sarama v1.33.0
"""


def _make_jaeger(folder: Path) -> None:
    # A module of our own around it: `go install` refuses a module with replace lines.
    (folder / "go.mod").write_text(_JAEGER_MODULE)
    _go(folder, "build", "-o", "jaeger", "github.com/jaegertracing/jaeger/cmd/all-in-one")


# --- Debian ---------------------------------------------------------------------------------------------------


def _make_prometheus(folder: Path) -> None:
    """Unpack the system's package: installing it would start a service and take port 9090."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Unavailable("Prometheus comes from apt, which is not here")
    try:
        _run(["apt-get", "download", "-q", "prometheus"], folder)
    except BuildError as unknown:
        if os.geteuid() != 0:
            raise Unavailable("apt knows no prometheus, and only root may update its lists") from unknown
        _update_apt(folder)
        _run(["apt-get", "download", "-q", "prometheus"], folder)
    (package,) = folder.glob("*.deb")
    _run(["dpkg-deb", "-x", package, folder], folder)


def _update_apt(folder: Path) -> None:
    try:
        _run(["apt-get", "update", "-q"], folder)
    except BuildError as silent:
        raise Unavailable("apt's lists can't be updated") from silent


# --- What there is --------------------------------------------------------------------------------------------

COLLECTOR = Program("otelcol", MANIFEST.read_text() + COLLECTOR_VERSION, _make_collector, ("otelcol",))
TELEMETRYGEN = Program("telemetrygen", TELEMETRYGEN_VERSION, _make_telemetrygen, ("telemetrygen",))
JAEGER = Program("jaeger", _JAEGER_MODULE, _make_jaeger, ("jaeger",))
PROMETHEUS = Program("prometheus", "apt", _make_prometheus, ("usr/bin/prometheus", "usr/bin/promtool"))


def main() -> int:
    """Make all of them; return 1 where one that could have been made was not."""
    return max([_shown(program) for program in (COLLECTOR, TELEMETRYGEN, JAEGER, PROMETHEUS)])


def _shown(program: Program) -> int:
    try:
        _say(f"{program.name}: {executable(program, _say)}")
    except Unavailable as reason:
        _say(f"{program.name}: its tests will be skipped: {reason}")
    except BuildError as error:
        _say(f"{program.name}: FAILED: {error}")
        return 1
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
