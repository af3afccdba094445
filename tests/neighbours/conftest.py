"""Real neighbours for tests: Collectors, Jaeger, Prometheus, each a process of its own on free ports.

What is needed is built on first use (`programs.py`); a test skips where that can't be. Every process ends
with its test, by its own id, whatever happened; the logs of a failed test's processes are in its report.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import programs
import pytest
from processes import Collector, Jaeger, Neighbour, Prometheus, free_addresses

LOG_CHARACTERS = 6000
_STARTED = pytest.StashKey[list[Neighbour]]()


# --- Programs -------------------------------------------------------------------------------------------------


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the build of a program out of a test's time: only what the test itself does is limited."""
    for item in items:
        if item.get_closest_marker("neighbours") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(120, func_only=True))


def _executable(program: programs.Program, request: pytest.FixtureRequest) -> Path:
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def say(line: str) -> None:
        if capture is not None:
            with capture.global_and_fixture_disabled():
                print(f"\n{line}", flush=True)

    try:
        return programs.executable(program, say)
    except programs.Unavailable as reason:
        pytest.skip(f"{program.name}: {reason}")


@pytest.fixture(scope="session")
def otelcol(request: pytest.FixtureRequest) -> Path:
    """Return the Collector's program."""
    return _executable(programs.COLLECTOR, request)


@pytest.fixture(scope="session")
def telemetrygen(request: pytest.FixtureRequest) -> Path:
    """Return the program telemetrygen."""
    return _executable(programs.TELEMETRYGEN, request)


@pytest.fixture(scope="session")
def jaeger_program(request: pytest.FixtureRequest) -> Path:
    """Return Jaeger's all-in-one program."""
    return _executable(programs.JAEGER, request)


@pytest.fixture(scope="session")
def prometheus_program(request: pytest.FixtureRequest) -> Path:
    """Return Prometheus' server program."""
    return _executable(programs.PROMETHEUS, request)


@pytest.fixture(scope="session")
def promtool(prometheus_program: Path) -> Path:
    """Return the program promtool, which checks rules and configurations."""
    return prometheus_program.with_name("promtool")


# --- Processes ------------------------------------------------------------------------------------------------


@pytest.fixture
def start_neighbour(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[str, Sequence[str | Path], str, Mapping[str, str]], Neighbour]]:
    """Start any program; it ends with the test, and its log is shown if the test fails."""
    started = request.node.stash.setdefault(_STARTED, [])

    def start(name: str, command: Sequence[str | Path], ready: str, env: Mapping[str, str]) -> Neighbour:
        log = tmp_path / f"{name}-{len(started)}.log"
        started.append(Neighbour(name, command, ready, log, env))
        started[-1].start()
        return started[-1]

    yield start
    for neighbour in started:
        neighbour.kill()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Attach the ends of the logs to a failure."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        report.sections.extend(
            (f"log of {neighbour.name}, process by process", neighbour.log[-LOG_CHARACTERS:])
            for neighbour in item.stash.get(_STARTED, [])
        )


@pytest.fixture
def start_collector(
    otelcol: Path, start_neighbour: Callable[..., Neighbour], tmp_path: Path
) -> Iterator[Callable[..., Collector]]:
    """Start a Collector with a configuration (or several, merged), with the addresses of collector-config/.

    A configuration listens at `${env:COLLECTOR_GRPC}` and `${env:COLLECTOR_HTTP}`, has the extension
    health_check at `${env:COLLECTOR_HEALTH}`, keeps its queues in `${env:COLLECTOR_QUEUE}`, and shows metrics
    of spans, if any, at `${env:COLLECTOR_METRICS}`: all set here, other variables come by `env`.
    `collector.process.kill()`, `.stop()` and `.start()` act on the process; addresses and queue stay.
    A statement that fails on some span is a warning in a Collector's log, and fails the test here.
    """
    started: list[Collector] = []

    def start(config: Path | Sequence[Path], env: Mapping[str, str] | None = None) -> Collector:
        configs = [config] if isinstance(config, Path) else config
        queue = tmp_path / f"queue-{len(started)}"
        grpc, http, health, metrics = free_addresses(4)
        settings = {
            "COLLECTOR_GRPC": grpc,
            "COLLECTOR_HTTP": http,
            "COLLECTOR_HEALTH": health,
            "COLLECTOR_METRICS": metrics,
            "COLLECTOR_QUEUE": str(queue),
        }
        # Its own metrics would take port 8888, whichever Collector of this machine comes first.
        quiet = ("--set", "service.telemetry.metrics.level=none")
        command = [otelcol, *(f"--config={path}" for path in configs), *quiet]
        process = start_neighbour("collector", command, f"http://{health}/", {**settings, **(env or {})})
        started.append(Collector(grpc, http, metrics, queue, process))
        return started[-1]

    yield start
    for collector in started:
        assert "failed to execute statement" not in collector.process.log


@pytest.fixture
def start_jaeger(jaeger_program: Path, start_neighbour: Callable[..., Neighbour]) -> Callable[..., Jaeger]:
    """Start a Jaeger that keeps its spans in memory, or in a folder (Badger) that survives a restart."""

    def start(folder: Path | None = None) -> Jaeger:
        names = ("collector.otlp.grpc", "collector.otlp.http", "query.http-server", "query.grpc-server")
        names += ("admin.http", "collector.grpc-server", "collector.http-server", "http-server")
        addresses = dict(zip(names, free_addresses(len(names)), strict=True))
        options = [f"--{name}.host-port={address}" for name, address in addresses.items()]
        # Agents that nobody here speaks to: without an option each takes a fixed port of the machine.
        agents = ("jaeger-binary", "jaeger-compact", "zipkin-compact")
        options += [f"--processor.{agent}.server-host-port=127.0.0.1:0" for agent in agents]
        options.append("--log-level=warn")
        env = {
            "SPAN_STORAGE_TYPE": "memory",
            "COLLECTOR_OTLP_ENABLED": "true",
            # It traces itself, to whoever has port 4317 of this machine.
            "OTEL_TRACES_SAMPLER": "always_off",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{addresses['collector.otlp.grpc']}",
        }
        if folder is not None:
            env["SPAN_STORAGE_TYPE"] = "badger"
            places = [f"--badger.directory-{kind}={folder / kind}" for kind in ("key", "value")]
            options += ["--badger.ephemeral=false", *places]
        ready = f"http://{addresses['admin.http']}/"
        process = start_neighbour("jaeger", [jaeger_program, *options], ready, env)
        grpc, http, query = (addresses[name] for name in names[:3])
        return Jaeger(grpc, http, f"http://{query}", process)

    return start


@pytest.fixture
def start_prometheus(
    prometheus_program: Path, start_neighbour: Callable[..., Neighbour], tmp_path: Path
) -> Callable[..., Prometheus]:
    """Start a Prometheus that scrapes targets every second: job name -> HOST:PORT or HOST:PORT/path.

    `rules` are files of recording and alerting rules; `token` is sent as a bearer token with each scrape.
    """
    count = 0

    def start(targets: Mapping[str, str], rules: Sequence[Path] = (), token: str | None = None) -> Prometheus:
        nonlocal count
        count += 1
        folder = tmp_path / f"prometheus-{count}"
        folder.mkdir()
        config = folder / "prometheus.yml"
        # JSON is YAML too.
        config.write_text(json.dumps(_prometheus_config(targets, rules, token)))
        (address,) = free_addresses(1)
        command = [
            *(prometheus_program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"),
            f"--web.listen-address={address}",
            "--enable-feature=exemplar-storage,native-histograms",
        ]
        process = start_neighbour("prometheus", command, f"http://{address}/-/ready", {})
        return Prometheus(f"http://{address}", process)

    return start


def _prometheus_config(
    targets: Mapping[str, str], rules: Sequence[Path], token: str | None
) -> dict[str, object]:
    jobs = []
    for job, target in targets.items():
        address, _, path = target.partition("/")
        jobs.append(
            {"job_name": job, "metrics_path": f"/{path or 'metrics'}"}
            | {"static_configs": [{"targets": [address]}]}
            | ({"authorization": {"credentials": token}} if token else {})
        )
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": jobs,
    }
