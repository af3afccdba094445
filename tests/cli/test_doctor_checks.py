"""What the doctor concludes: tables of facts and findings; no process, no network."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_sessions.backend.provenance import install_command
from otel_sessions.cli._doctor.arrival import check_arrival, check_backend, check_clock
from otel_sessions.cli._doctor.examine import examine
from otel_sessions.cli._doctor.facts import (
    Arrived,
    Backend,
    Facts,
    Interpreter,
    Package,
    Probe,
    Reach,
    SpoolFacts,
    Target,
    Waiting,
)
from otel_sessions.cli._doctor.findings import CHECKS, Finding, Verdict, worst
from otel_sessions.cli._doctor.gather import gather_targets, known_names
from otel_sessions.cli._doctor.installed import check_conflicts, check_copies, check_packages, check_python
from otel_sessions.cli._doctor.instrumentors import check_instrumentors
from otel_sessions.cli._doctor.probe import find_backend
from otel_sessions.cli._doctor.reach import check_answers, check_way
from otel_sessions.cli._doctor.variables import check_effect, check_values, check_variables
from otel_sessions.cli._doctor.waiting import check_spool, check_waiting
from otel_sessions.sdk import _answer
from otel_sessions.sdk._answer import Answer
from otel_sessions.sdk._instrumentors import Installed

NAMES = known_names()
OK, WARNING, PROBLEM, UNKNOWN = Verdict.OK, Verdict.WARNING, Verdict.PROBLEM, Verdict.UNKNOWN
TAKEN = Answer(_answer.Verdict.ACCEPTED)
ENDPOINT = "http://127.0.0.1:4318"
HERE = Reach("127.0.0.1", 4318, ("127.0.0.1",), connected=True, spoken="http")
BACKEND = Backend((ENDPOINT,), ENDPOINT, version="0.1.0")
SENT = {
    "session.id": "doctor-1",
    "otel_sessions.session.outcome": "ok",
    "otel_sessions.session.name": "doctor probe",
}
EVENTS = ("session.start", "session.end")
PROBE = Probe(
    "doctor-1",
    "ab" * 16,
    "cd" * 8,
    SENT,
    {"service.name": "travel"},
    EVENTS,
    {"traces": TAKEN, "logs": TAKEN},
)
ARRIVED = Arrived(
    10.0,
    0.05,
    SENT,
    {"service.name": "travel"},
    1,
    {name: {"session.id": "doctor-1"} for name in EVENTS},
    ENDPOINT,
)
CORE = tuple(Package(f"opentelemetry-{name}", "1.45.2", "/venv") for name in ("api", "sdk", "proto"))


def facts(environ: dict[str, str] | None = None, **more) -> Facts:
    """Return facts of a place where all is well, but for what is said."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, **(environ or {})}
    sound = Facts(
        interpreter=Interpreter((3, 13, 0), "/usr/bin/python"),
        packages=CORE,
        installed=Installed(),
        environ=environ,
        names=NAMES,
        targets=gather_targets(environ),
        reaches={"traces": HERE, "logs": HERE},
        backend=BACKEND,
        probe=PROBE,
        arrived=ARRIVED,
        spool=SpoolFacts("/state/spool", free=10**12),
    )
    return replace(sound, **more)


def the(findings: list[Finding], verdict: Verdict) -> Finding:
    """Return the one finding of a verdict."""
    (found,) = [finding for finding in findings if finding.verdict is verdict]
    return found


def test_where_all_is_well_every_check_says_so_once():
    """No check is left out, and none says more than there is."""
    found = examine(facts())
    assert [finding.check for finding in found] == list(CHECKS)
    assert {finding.verdict for finding in found} == {OK}, found


def test_a_problem_always_has_a_line_to_paste():
    """Whatever is wrong at once, every problem names its fix."""
    found = examine(
        facts(
            {"OTEL_SDK_DISABLED": "true", "OTEL_BSP_SCHEDULE_DELAY": "soon", "OTEL_LOGS_EXPORTER": "none"},
            reaches={"traces": Reach("nowhere", 4318, name_trouble="not known")},
            backend=replace(BACKEND, not_ready="commits fail: the disk is full"),
            arrived=Arrived(10.0),
            spool=SpoolFacts(
                "/state/spool", trouble="Permission denied", waiting=(Waiting(ENDPOINT, rejected=3),)
            ),
        )
    )
    problems = [finding for finding in found if finding.verdict is PROBLEM]
    assert len(problems) >= 6
    assert [finding for finding in problems if not finding.fix] == []
    assert worst(found) is PROBLEM


# --- Installed -------------------------------------------------------------------------------------------


def test_a_python_without_the_gil_is_said_to_be_untested():
    """Nobody should take silence for a promise."""
    assert the(check_python(Interpreter((3, 13, 0), "python3.13t", free_threaded=True)), WARNING).fix


@pytest.mark.parametrize(
    ("requirement", "found", "fits"),
    [
        ("opentelemetry-api==1.45.2", "1.45.2", True),
        ("opentelemetry-api==1.45.2", "1.44.0", False),
        ("opentelemetry-semantic-conventions==0.66b1", "0.66b2", False),
        ("opentelemetry-api~=1.12", "1.45.2", True),
        ("opentelemetry-api~=1.12", "2.0.0", False),
        ("opentelemetry-sdk>=1.45.2", "1.36.0", False),
        ("opentelemetry-sdk (>=1.45.2)", "1.45.2", True),
        ('opentelemetry-sdk==9; extra == "test"', "1.45.2", True),
        ("wrapt==1.0", "2.0", True),  # not of the family
        ("opentelemetry-api==1.45.2", None, True),  # not installed: nothing to break
    ],
)
def test_a_pin_that_is_broken_among_packages_of_opentelemetry_is_named(requirement, found, fits):
    """An installer breaks them with no more than a warning, and an import then fails far away."""
    name = re.match(r"[\w-]+", requirement)[0]
    installed = [Package("opentelemetry-exporter-x", "1.45.2", "/venv", (requirement,))]
    installed += [Package(name, found, "/venv")] if found else []
    (finding,) = check_packages(installed)
    assert (finding.verdict is OK) is fits, finding
    if not fits:
        assert name in finding.fix
        assert found in finding.seen


def test_two_copies_are_told_with_their_places_and_the_first_is_what_an_import_takes():
    """A second copy on the path is invisible to `pip show`."""
    twice = [*CORE, Package("opentelemetry-sdk", "1.20.0", "/usr/lib/python3")]
    finding = the(check_copies(twice), PROBLEM)
    assert "/usr/lib/python3" in finding.seen
    assert "/venv" in finding.seen
    pinned = Package("opentelemetry-exporter-x", "1", "/venv", ("opentelemetry-sdk==1.45.2",))
    assert check_packages([*twice, pinned])[0].verdict is OK
    ours = [Package("otel-sessions", "0.1.0", place) for place in ("/venv", "/usr/lib/python3")]
    assert the(check_copies(ours), PROBLEM).fix.endswith(f"; python -m {install_command()}")


@pytest.mark.parametrize(
    ("packages", "breaks"),
    [
        ({"agentops": "0.4.21", "opentelemetry-exporter-otlp-proto-http": "1.45.0"}, True),
        ({"agentops": "0.4.21", "opentelemetry-exporter-otlp-proto-http": "1.44.0"}, False),
        ({"agentops": "0.5.0", "opentelemetry-exporter-otlp-proto-http": "1.45.0"}, False),
        ({"agentops": "0.4.21"}, False),
        ({"openlit": "1.45.0", "opentelemetry-api": "1.45.2"}, True),
        ({"llama-index-core": "0.12.4", "llama-deploy": "0.3.6"}, True),
        ({"llama-index-core": "0.12.10", "llama-deploy": "0.3.6"}, False),
        ({"agentscope": "1.0.21", "mcp": "2.0.0"}, True),
        ({"agentscope": "2.0.11", "mcp": "2.0.0"}, False),
    ],
)
def test_a_package_that_is_known_to_break_beside_another_is_named(packages, breaks):
    """Only in the versions that were seen to break."""
    (finding,) = check_conflicts([Package(name, version) for name, version in packages.items()])
    assert (finding.verdict is PROBLEM) is breaks


def test_a_framework_is_untraced_traced_doubled_switched_off_or_traces_itself():
    """And what to type follows from which of these it is."""
    cohere = "opentelemetry-instrumentation-cohere"
    two = ("openinference-instrumentation-crewai", "opentelemetry-instrumentation-crewai")

    def of(*names: str, **environ: str) -> list[Finding]:
        return check_instrumentors(Installed(versions=dict.fromkeys(names, "1.0")), environ)

    assert the(of("cohere"), WARNING).fix == f"python -m pip install {cohere}"
    assert cohere in the(of("cohere", cohere), OK).seen
    doubled = the(of("crewai", *two), PROBLEM)
    assert "as often" in doubled.seen
    assert doubled.fix == f"python -m pip uninstall -y {two[1]}"
    off = the(of("cohere", cohere, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="cohere"), WARNING)
    assert off.fix == "unset OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
    assert "Agent.instrument_all()" in the(of("pydantic-ai"), OK).seen
    assert "no framework" in the(of(), OK).seen


# --- Environment -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPIONT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("OTEL_EXPORTER_OTLP_HEADER", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("OTEL_SESSION_HEARTBEAT", "OTEL_SESSIONS_HEARTBEAT"),
        ("OTEL_SERVICENAME", "OTEL_SERVICE_NAME"),
        ("otel_service_name", "OTEL_SERVICE_NAME"),
    ],
)
def test_a_slip_in_a_name_is_told_with_what_is_meant(name, meant):
    """A variable that nobody reads is set in vain, and in silence."""
    finding = the(check_variables({name: "x"}, NAMES), PROBLEM)
    assert meant in finding.fix
    assert name in finding.seen


@pytest.mark.parametrize(
    "name",
    [
        "OTEL_LOG_USER_PROMPTS",
        "OTEL_PYTHON_LOG_LEVEL",
        "OTEL_NODE_RESOURCE_DETECTORS",
        "PATH",
        "HOTEL",
        "OTELIA",
    ],
)
def test_what_others_read_is_no_slip(name):
    """Claude Code, other languages and instrumentations have OTEL_* of their own."""
    assert {finding.verdict for finding in check_variables({name: "x"}, NAMES)} == {OK}


def test_every_variable_that_is_documented_is_known():
    """Nothing that docs/configuration.md tells of looks like a slip."""
    text = (Path(__file__).parents[2] / "docs/configuration.md").read_text()
    documented = set(re.findall(r"`(OTEL_[A-Z_]*[A-Z])`", text))
    assert {name for name in documented if name.startswith("OTEL_SESSIONS_")} <= NAMES
    found = check_variables(dict.fromkeys(documented, "1"), NAMES)
    assert [finding for finding in found if finding.verdict is not OK] == []


def test_no_secret_is_shown():
    """The output is made to be pasted into an issue."""
    secrets = {
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20hunter2",
        "OTEL_SESSIONS_TOKEN": "hunter2",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://ann:hunter2@host:4318",
        "OTEL_SESSIONS_RESUME_SECRET": "hunter2",
    }
    assert "hunter2" not in str(examine(facts(secrets)))


@pytest.mark.parametrize(
    ("environ", "blamed"),
    [
        ({"OTEL_BSP_SCHEDULE_DELAY": "soon"}, "OTEL_BSP_SCHEDULE_DELAY"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_PROTOCOL"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_LOGS_TIMEOUT": "-1"}, "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT"),
        ({"OTEL_SESSIONS_HEARTBEAT": "60", "OTEL_SESSIONS_LEASE": "30"}, "OTEL_SESSIONS_HEARTBEAT"),
        ({"OTEL_SESSIONS_SPOOL": "spool"}, "OTEL_SESSIONS_SPOOL"),
        ({"OTEL_SPAN_EVENT_COUNT_LIMIT": "abc"}, "OTEL_SPAN_EVENT_COUNT_LIMIT"),
        ({"OTEL_SESSIONS_RESUME_SECRET": "short"}, "OTEL_SESSIONS_RESUME_SECRET"),
    ],
)
def test_a_value_without_sense_is_told_with_its_variable(environ, blamed):
    """The agent would refuse to start, or record nothing."""
    finding = the(check_values(environ), PROBLEM)
    assert finding.fix == f"unset {blamed}"


def test_one_senseless_value_does_not_hide_the_next():
    """`init()` stops at the first; whoever mends one wants to know of all."""
    found = check_values({"OTEL_BSP_SCHEDULE_DELAY": "soon", "OTEL_BSP_MAX_QUEUE_SIZE": "many"})
    assert {finding.fix for finding in found} == {
        "unset OTEL_BSP_SCHEDULE_DELAY",
        "unset OTEL_BSP_MAX_QUEUE_SIZE",
    }


def test_values_that_make_sense_together_are_not_blamed_alone():
    """A heartbeat of ten minutes needs a longer lease, and has one."""
    together = {"OTEL_SESSIONS_HEARTBEAT": "600", "OTEL_SESSIONS_LEASE": "3600"}
    assert the(check_values(together), OK)
    assert the(check_values({"OTEL_SESSIONS_HEARTBEAT": "600"}), PROBLEM)


def test_quotes_that_came_with_an_env_file_are_seen():
    """Docker's --env-file keeps them as part of the value."""
    found = check_values({"OTEL_SERVICE_NAME": '"travel"'})
    assert the(found, PROBLEM).fix == "OTEL_SERVICE_NAME=travel"


@pytest.mark.parametrize(
    ("environ", "verdict", "fix"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, PROBLEM, "unset OTEL_SDK_DISABLED"),
        ({"OTEL_LOGS_EXPORTER": "none"}, PROBLEM, "export OTEL_LOGS_EXPORTER=otlp"),
        (
            {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "0", "OTEL_ATTRIBUTE_COUNT_LIMIT": "128"},
            PROBLEM,
            "export OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=128",
        ),
        ({"OTEL_ATTRIBUTE_COUNT_LIMIT": "32"}, PROBLEM, "export OTEL_ATTRIBUTE_COUNT_LIMIT=128"),
        (
            {"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "5"},
            PROBLEM,
            "export OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT=128",
        ),
        ({"OTEL_TRACES_EXPORTER": "console"}, PROBLEM, "export OTEL_TRACES_EXPORTER=otlp"),
        ({"OTEL_TRACES_EXPORTER": "console,otlp"}, OK, ""),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318/v1/traces"},
            PROBLEM,
            "export OTEL_EXPORTER_OTLP_ENDPOINT=http://h:4318",
        ),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h:4318",
            },
            PROBLEM,
            "export OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://h:4318/v1/traces",
        ),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://v.example/v1/traces"},
            WARNING,
            "export OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=https://v.example/v1/logs",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4317"},
            WARNING,
            "export OTEL_EXPORTER_OTLP_ENDPOINT=http://h:4318",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            WARNING,
            "export OTEL_EXPORTER_OTLP_ENDPOINT=http://h:4317",
        ),
        (
            {"OTEL_TRACES_SAMPLER": "traceidratio"},
            WARNING,
            "export OTEL_TRACES_SAMPLER=parentbased_always_on",
        ),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_on"}, OK, ""),
        (
            {"OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=1,a=b"},
            WARNING,
            "export OTEL_RESOURCE_ATTRIBUTES=a=b",
        ),
        ({"OTEL_BSP_EXPORT_TIMEOUT": "1"}, WARNING, "unset OTEL_BSP_EXPORT_TIMEOUT"),
        ({"OTEL_EXPORTER_JAEGER_ENDPOINT": "x"}, WARNING, "unset OTEL_EXPORTER_JAEGER_ENDPOINT"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://h:4318", "OTEL_EXPORTER_OTLP_INSECURE": "true"},
            WARNING,
            "unset OTEL_EXPORTER_OTLP_INSECURE",
        ),
        ({"OTEL_SDK_DISABLED": "  "}, OK, ""),
    ],
)
def test_what_is_switched_off_contradictory_or_ignored_is_told(environ, verdict, fix):
    """Each with the line that mends it."""
    (finding,) = check_effect(environ)
    assert (finding.verdict, finding.fix) == (verdict, fix)


@given(
    st.dictionaries(
        st.sampled_from(sorted(NAMES)),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
        | st.sampled_from(["//[", "http://[::1", "a:b:c"]),
        max_size=6,
    )
)
def test_no_environment_confuses_the_checks(environ):
    """Whatever is set, there are findings and no traceback."""
    assert check_variables(environ, NAMES)
    assert check_values(environ)
    assert check_effect(environ)
    assert gather_targets(environ)


# --- The way ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "reach", "check", "fix"),
    [
        ({}, Reach("h", 4318, name_trouble="not known"), "name", "getent hosts h"),
        ({}, Reach("127.0.0.1", 4318, connection_trouble="refused"), "connection", "otel-sessions serve"),
        (
            {},
            Reach("localhost", 9000, connection_trouble="refused"),
            "connection",
            "otel-sessions serve --http localhost:9000",
        ),
        (
            {},
            Reach("h", 4317, connection_trouble="refused", open_beside=True),
            "connection",
            "export OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf OTEL_EXPORTER_OTLP_ENDPOINT=http://h:4318",
        ),
        (
            {},
            Reach("h", 4317, connected=True, spoken="grpc"),
            "protocol",
            "export OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
        ),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            Reach("h", 4318, connected=True, spoken="http"),
            "protocol",
            "export OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
        ),
        (
            {},
            Reach("h", 4318, connected=True, spoken="tls"),
            "tls",
            "export OTEL_EXPORTER_OTLP_ENDPOINT=https://127.0.0.1:4318",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://h:4318"},
            Reach("h", 4318, connected=True, tls_trouble="wrong version number", spoken="http"),
            "tls",
            "export OTEL_EXPORTER_OTLP_ENDPOINT=http://h:4318",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://h:4318"},
            Reach("h", 4318, connected=True, tls_trouble="self-signed certificate"),
            "tls",
            "export OTEL_EXPORTER_OTLP_CERTIFICATE=/PATH/OF/THE/AUTHORITY.pem",
        ),
        (
            {},
            Reach("127.0.0.1", 4318, connected=True, proxy="http://p:3128", proxy_variable="HTTP_PROXY"),
            "proxy",
            'export no_proxy="$no_proxy,127.0.0.1" NO_PROXY="$NO_PROXY,127.0.0.1"',
        ),
    ],
)
def test_the_step_that_fails_is_the_problem_and_what_lies_behind_it_is_unknown(environ, reach, check, fix):
    """One cause is one problem."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, **environ}
    found = check_way(gather_targets(environ), {"traces": reach, "logs": reach})
    finding = the(found, PROBLEM)
    assert (finding.check, finding.fix) == (check, fix)


def test_a_request_that_was_taken_counts_for_more_than_a_look_from_outside():
    """Vendors speak HTTP and gRPC at one port, and gRPC has authorities of its own."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://v.example", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    seen = {
        "traces": Reach("v.example", 443, connected=True, tls_trouble="unable to get issuer", spoken="http")
    }
    targets = gather_targets(environ)
    assert worst(check_way(targets, seen, {"traces": Answer(_answer.Verdict.AGAIN)})) is PROBLEM
    assert worst(check_way(targets, seen, {"traces": TAKEN})) is OK
    proxied = {
        "traces": Reach("127.0.0.1", 4318, connected=True, proxy="http://p", proxy_variable="HTTP_PROXY")
    }
    assert the(check_way(gather_targets({}), proxied, {"traces": TAKEN}), WARNING).check == "proxy"


def test_a_token_that_leaves_this_machine_in_clear_is_warned_of():
    """Over the loopback address nobody listens in between."""
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=x",
    }
    away = Reach("h", 4318, connected=True, spoken="http")
    assert the(check_way(gather_targets(environ), {"traces": away}), WARNING).check == "tls"
    assert worst(check_way(gather_targets(environ), {"traces": HERE})) is OK


@pytest.mark.parametrize(
    ("answer", "environ", "verdict", "part"),
    [
        (
            Answer(_answer.Verdict.REFUSED, "HTTP 401 Unauthorized"),
            {},
            PROBLEM,
            "authorization=Bearer%20TOKEN",
        ),
        (
            Answer(_answer.Verdict.REFUSED, "gRPC UNAUTHENTICATED: no"),
            {},
            PROBLEM,
            "authorization=Bearer%20TOKEN",
        ),
        (
            Answer(_answer.Verdict.UNSUPPORTED, "HTTP 404 Not Found"),
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h:4318"},
            PROBLEM,
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://h:4318/v1/traces",
        ),
        (
            Answer(_answer.Verdict.UNSUPPORTED, "HTTP 404 Not Found"),
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318/v1/traces"},
            PROBLEM,
            "OTEL_EXPORTER_OTLP_ENDPOINT=http://h:4318",
        ),
        (
            Answer(_answer.Verdict.UNSUPPORTED, "HTTP 415 Unsupported Media Type"),
            {},
            PROBLEM,
            "PROTOCOL=grpc",
        ),
        (
            Answer(_answer.Verdict.AGAIN, "HTTP 503 Service Unavailable"),
            {},
            PROBLEM,
            "otel-sessions spool list",
        ),
        (Answer(_answer.Verdict.ACCEPTED, "too old", rejected=1), {}, PROBLEM, "doctor"),
        (Answer(_answer.Verdict.ACCEPTED), {}, OK, ""),
    ],
)
def test_what_the_endpoint_answers_is_told_with_what_to_do(answer, environ, verdict, part):
    """By OTLP's own answers, over HTTP and gRPC."""
    probe = replace(PROBE, answers={"traces": answer, "logs": TAKEN})
    spans = next(it for it in check_answers(facts(environ, probe=probe)) if it.check == "spans")
    assert spans.verdict is verdict
    assert part in spans.fix


def test_an_endpoint_of_spans_alone_is_a_warning_with_its_consequence():
    """Everything but liveness works there."""
    none = Answer(_answer.Verdict.UNSUPPORTED, "HTTP 404 Not Found")
    found = check_answers(facts(probe=replace(PROBE, answers={"traces": TAKEN, "logs": none})))
    finding = the(found, WARNING)
    assert finding.check == "events"
    assert "nobody sees what is alive" in finding.seen
    assert "logs" in finding.fix


@pytest.mark.parametrize(
    ("endpoint", "detail", "fix"),
    [
        ("http://h:7318/v1/traces", "HTTP 404 Not Found", "export OTEL_EXPORTER_OTLP_ENDPOINT=http://h:7318"),
        ("http://h:7318/v1/logs", "HTTP 404 Not Found", "export OTEL_EXPORTER_OTLP_ENDPOINT=http://h:7318"),
        ("http://h:7318", "HTTP 404 Not Found", "http://h:7318/PATH-OF-ITS-RECEIVER"),
        ("http://h:7318", "gRPC UNIMPLEMENTED", "export OTEL_EXPORTER_OTLP_PROTOCOL=grpc"),
    ],
)
def test_where_spans_are_not_taken_either_it_is_no_endpoint_of_spans_alone(endpoint, detail, fix):
    """A Collector with a further pipeline would mend nothing."""
    none = Answer(_answer.Verdict.UNSUPPORTED, detail)
    probe = replace(PROBE, answers={"traces": none, "logs": none})
    found = check_answers(facts({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, probe=probe))
    assert [it.verdict for it in found] == [PROBLEM, PROBLEM]
    for finding in found:
        assert "Spans alone arrive" not in finding.seen
        assert finding.fix.endswith(fix)


@pytest.mark.parametrize(
    ("endpoint", "backend"),
    [
        ("http://127.0.0.1:1/v1/traces", "http://127.0.0.1:1"),
        ("http://127.0.0.1:1/v1/logs/", "http://127.0.0.1:1"),
        ("http://127.0.0.1:1/below/v1/traces", "http://127.0.0.1:1/below"),
        ("http://127.0.0.2:4317", "http://127.0.0.2:4318"),
    ],
)
def test_the_backend_is_looked_for_where_its_page_would_be(endpoint, backend):
    """Not below a path of OTLP, and not at the port of gRPC, though an endpoint names them by mistake."""
    targets = gather_targets({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})
    tried = find_backend(None, {}, targets, None).tried
    assert tried[0] == backend
    assert len(tried) <= 2


# --- What came out ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrived", "check", "verdict", "said"),
    [
        (replace(ARRIVED, after=None), "arrival", PROBLEM, "did not come"),
        (replace(ARRIVED, after=5.0), "arrival", WARNING, "5.0 s"),
        (
            replace(ARRIVED, attributes={k: v for k, v in SENT.items() if k != "session.id"}),
            "attributes",
            PROBLEM,
            "session.id",
        ),
        (replace(ARRIVED, attributes={**SENT, "session.id": "****"}), "attributes", PROBLEM, "session.id"),
        (
            replace(ARRIVED, attributes={**SENT, "otel_sessions.session.name": "****"}),
            "attributes",
            WARNING,
            "session.name is changed",
        ),
        (replace(ARRIVED, resource={}), "attributes", WARNING, "service.name is gone"),
        (replace(ARRIVED, span_events=0), "attributes", WARNING, "event of the span"),
        (replace(ARRIVED, events={}), "liveness", PROBLEM, "traces-only"),
        (replace(ARRIVED, events={"session.start": {"session.id": "x"}}), "liveness", PROBLEM, "session.end"),
        (replace(ARRIVED, events={name: {} for name in EVENTS}), "liveness", PROBLEM, "session.id"),
    ],
)
def test_what_is_lost_on_the_way_is_told_with_its_consequence(arrived, check, verdict, said):
    """What a Collector's processors do to telemetry shows nowhere else."""
    found = [finding for finding in check_arrival(facts(arrived=arrived)) if finding.check == check]
    assert [finding.verdict for finding in found] == [verdict]
    assert said in found[0].seen


@pytest.mark.parametrize(
    ("skew", "uncertainty", "verdict"),
    [(0.5, 0.0, OK), (-90.0, 0.1, WARNING), (3.0, 2.0, OK), (3.0, 0.1, WARNING)],
)
def test_a_clock_is_wrong_only_beyond_what_the_question_took(skew, uncertainty, verdict):
    """A slow answer is no proof of a wrong clock."""
    (finding,) = check_clock(replace(BACKEND, skew=skew, uncertainty=uncertainty))
    assert finding.verdict is verdict
    if verdict is WARNING:
        assert ("ahead of" if skew < 0 else "behind") in finding.seen


def test_a_backend_is_not_found_asks_for_a_token_can_not_store_or_is_of_another_version():
    """Four troubles, four things to do."""
    assert "--backend" in the(check_backend(Backend((ENDPOINT,))), UNKNOWN).fix
    assert "TOKEN" in the(check_backend(Backend((ENDPOINT,), ENDPOINT, trouble="asks")), UNKNOWN).fix
    assert "disk" in the(check_backend(replace(BACKEND, not_ready="the disk is full")), PROBLEM).seen
    other = the(check_backend(replace(BACKEND, version="9.9")), WARNING)
    assert "9.9" in other.seen
    assert other.fix == f"python -m {install_command()}"


def test_of_a_probe_that_was_not_taken_nobody_says_that_no_backend_was_asked():
    """The backend is there; what keeps the probe from it is told once, by `spans`."""
    refused = Answer(_answer.Verdict.REFUSED, "HTTP 401 Unauthorized")
    probe = replace(PROBE, answers={"traces": refused, "logs": refused})
    found = check_arrival(facts(probe=probe, arrived=None))
    assert {it.check for it in found} == {"arrival", "attributes", "liveness"}
    assert {it.verdict for it in found} == {UNKNOWN}
    assert all("the probe was not taken" in it.seen for it in found)
    assert "see `spans`" in found[0].seen
    unasked = check_arrival(facts(arrived=None, backend=Backend((ENDPOINT,))))
    assert all("no backend could be asked" in it.seen for it in unasked)


def test_without_an_endpoint_to_send_to_nothing_is_claimed():
    """Console and none have no way to follow, and no answer."""
    environ = {"OTEL_TRACES_EXPORTER": "console", "OTEL_LOGS_EXPORTER": "none"}
    none = facts(environ, reaches={}, probe=None, arrived=None, why_no_probe="spans go to console")
    unsure = {finding.check for finding in examine(none) if finding.verdict is UNKNOWN}
    assert {"name", "spans", "events", "arrival", "attributes", "liveness"} <= unsure


def test_a_setting_without_sense_keeps_a_signal_from_being_sent():
    """The finding names it, for the exporter would."""
    targets = {"traces": Target("traces", trouble="PROTOCOL=x"), "logs": Target("logs", "none")}
    found = check_answers(facts(targets=targets, probe=None))
    assert [finding.verdict for finding in found] == [PROBLEM, UNKNOWN]


# --- Spool -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spool", "verdict", "said"),
    [
        (SpoolFacts(chosen_off=True), WARNING, "lost"),
        (SpoolFacts(), WARNING, "no home"),
        (SpoolFacts("/s", trouble="the disk is full", free=0), PROBLEM, "the disk is full"),
        (SpoolFacts("/s", free=1_000_000), WARNING, "1 MB"),
        (SpoolFacts("/s", free=10**12), OK, "/s"),
    ],
)
def test_a_spool_that_can_not_hold_what_waits_is_told(spool, verdict, said):
    """Before something has to wait there."""
    (finding,) = check_spool(spool)
    assert finding.verdict is verdict
    assert said in finding.seen


@pytest.mark.parametrize(
    ("waiting", "verdict", "fix"),
    [
        (Waiting("http://a", 3, of_living=True, age=2.0), OK, ""),
        (
            Waiting("http://a", 3, of_living=True, age=600.0),
            WARNING,
            "otel-sessions spool send --address http://a",
        ),
        (Waiting("http://a", 3, age=2.0), WARNING, "otel-sessions spool send --address http://a"),
        (Waiting("http://a", rejected=2), PROBLEM, "otel-sessions spool send --rejected --address http://a"),
        (Waiting("http://a", damaged=1), WARNING, "otel-sessions spool list"),
        (Waiting("http://elsewhere", 3), WARNING, "otel-sessions spool list"),
    ],
)
def test_what_waits_is_told_with_what_sends_it(waiting, verdict, fix):
    """Spans of a program that runs are on their way; what is left behind needs somebody."""
    (finding,) = check_waiting(SpoolFacts("/s", waiting=(waiting,)), {"http://a"})
    assert (finding.verdict, finding.fix) == (verdict, fix)


def test_events_that_wait_for_grpc_are_not_called_spans():
    """Both signals go to one address there, so it tells nothing of what they are."""
    address = "http://a:4317"
    waiting = (Waiting(address, 3, age=90.0, signal="logs"), Waiting(address, 1, age=90.0))
    found = [it.seen for it in check_waiting(SpoolFacts("/s", waiting=waiting), {address})]
    assert [it.partition(" waiting")[0] for it in found] == ["3 life cycle events", "1 span"]


def test_the_document_lists_the_checks_of_the_code():
    """docs/doctor.md has a row for each, in their order, in the same words."""
    text = (Path(__file__).parents[2] / "docs/doctor.md").read_text()
    rows = re.findall(r"^\| `([a-z]+)` \| (.+?) \|", text, re.MULTILINE)
    assert rows == list(CHECKS.items())
