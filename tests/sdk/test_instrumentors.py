"""What an installation has to trace its frameworks with."""

from __future__ import annotations

from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

import pytest

from otel_sessions.errors import ConfigurationError
from otel_sessions.sdk._instrument import asked
from otel_sessions.sdk._instrumentors import (
    FRAMEWORKS,
    GROUP,
    Coverage,
    Finding,
    Installed,
    disabled_names,
    installed,
    normalised,
    survey,
)

OPENINFERENCE = "openinference-instrumentation-openai"
OPENLLMETRY = "opentelemetry-instrumentation-openai"


def environment(*frameworks: str, **entries: tuple[str, ...]) -> Installed:
    """Return an environment with these frameworks and instrumentors."""
    instrumentors = {name.replace("_", "-"): names for name, names in entries.items()}
    return Installed(dict.fromkeys((*frameworks, *instrumentors), "1.0"), instrumentors)


def only(findings: tuple[Finding, ...]) -> Finding:
    """Return the one finding."""
    (finding,) = findings
    return finding


def a_distribution(folder: Path, name: str, version: str = "1.0", entries: str = "") -> Distribution:
    """Write a distribution as pip leaves it."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(entries)
    return PathDistribution(info)


def test_a_framework_without_an_instrumentor_is_missing_one_and_is_told_which() -> None:
    """What to install is named, for that is all a reader wants."""
    finding = only(survey(environment("openai")))
    assert (finding.coverage, finding.suggestion) == (Coverage.MISSING, OPENINFERENCE)
    assert finding.instrumentors == ()


def test_one_instrumentor_is_enough_whoever_made_it() -> None:
    """Each of the known ones counts; nothing more is suggested."""
    finding = only(survey(environment("openai", opentelemetry_instrumentation_openai=("openai",))))
    assert (finding.coverage, finding.suggestion) == (Coverage.INSTRUMENTED, None)
    assert [one.distribution for one in finding.instrumentors] == [OPENLLMETRY]


def test_two_instrumentors_of_one_framework_are_doubled() -> None:
    """Both patch the same calls, and every token is counted twice."""
    both = environment(
        "openai",
        openinference_instrumentation_openai=("openai",),
        opentelemetry_instrumentation_openai=("openai",),
    )
    finding = only(survey(both))
    assert finding.coverage is Coverage.DOUBLED
    assert [one.distribution for one in finding.instrumentors] == [OPENINFERENCE, OPENLLMETRY]


def test_an_instrumentor_that_is_switched_off_does_not_double() -> None:
    """OTEL_PYTHON_DISABLED_INSTRUMENTATIONS names entry points, which differ between makers."""
    both = environment(
        "boto3",
        openinference_instrumentation_bedrock=("bedrock",),
        opentelemetry_instrumentation_bedrock=("boto3",),
    )
    finding = only(survey(both, disabled=disabled_names(" boto3 , other")))
    assert finding.coverage is Coverage.INSTRUMENTED
    assert [one.name for one in finding.instrumentors] == ["bedrock"]


@pytest.mark.parametrize("value", ["openai", "*", "a,openai"])
def test_a_framework_whose_only_instrumentor_is_switched_off_is_disabled(value: str) -> None:
    """Nothing is suggested to who said that nothing shall be traced."""
    here = environment("openai", openinference_instrumentation_openai=("openai",))
    finding = only(survey(here, disabled=disabled_names(value)))
    assert (finding.coverage, finding.suggestion) == (Coverage.DISABLED, None)


def test_a_framework_with_spans_of_its_own_lacks_nothing() -> None:
    """It says how they are switched on."""
    finding = only(survey(environment("pydantic-ai-slim", "pydantic-ai")))
    assert finding.coverage is Coverage.NATIVE
    assert "instrument_all" in finding.framework.native


def test_what_programs_have_for_other_purposes_is_no_finding() -> None:
    """Who uploads files by boto3 lacks no instrumentor of models."""
    assert survey(environment("boto3", "mcp")) == ()


def test_a_framework_that_is_not_installed_is_no_finding() -> None:
    """An instrumentor alone traces nothing."""
    assert survey(environment(openinference_instrumentation_crewai=("crewai",))) == ()


def test_an_environment_is_read_from_its_metadata(tmp_path: Path) -> None:
    """Names are compared as PEP 503 says, entry points are those of the instrumentors' group alone."""
    found = installed(
        [
            a_distribution(
                tmp_path,
                "OpenInference.Instrumentation_OpenAI",
                entries=f"[console_scripts]\nx = a:b\n[{GROUP}]\nopenai = c:D\n",
            ),
            a_distribution(tmp_path, "openai", "2.8.0"),
        ]
    )
    assert found.versions == {OPENINFERENCE: "1.0", "openai": "2.8.0"}
    assert found.entries == {OPENINFERENCE: ("openai",)}


def test_of_two_versions_on_the_path_the_first_counts(tmp_path: Path) -> None:
    """It is the one that would be imported."""
    both = [a_distribution(tmp_path / at, "openai", at) for at in ("2.0", "1.0")]
    assert installed(both).versions == {"openai": "2.0"}


def test_a_folder_that_a_broken_uninstall_left_is_passed_over(tmp_path: Path) -> None:
    """It has no name, and pip only warns of it."""
    (tmp_path / "broken-1.0.dist-info").mkdir()
    assert installed([PathDistribution(tmp_path / "broken-1.0.dist-info")]) == Installed()


def test_the_table_is_consistent() -> None:
    """A distribution belongs to one framework, names are normalised, and each framework has a way to be traced."""
    frameworks = [name for framework in FRAMEWORKS for name in framework.distributions]
    instrumentors = [one.distribution for framework in FRAMEWORKS for one in framework.instrumentors]
    assert len(set(frameworks)) == len(frameworks)
    assert len(set(instrumentors)) == len(instrumentors)
    assert all(name == normalised(name) for name in (*frameworks, *instrumentors))
    assert all(framework.instrumentors or framework.native for framework in FRAMEWORKS)


@pytest.mark.parametrize(
    ("value", "expected"), [("", None), (" ", None), ("true", True), (" TRUE ", True), ("false", False)]
)
def test_the_variable_is_a_switch_with_three_positions(value: str, expected: bool | None) -> None:
    """Unset, each launcher and `init()` does what it does by default."""
    assert asked({"OTEL_SESSIONS_INSTRUMENT": value}) is expected


def test_a_variable_that_is_no_switch_is_refused_by_name() -> None:
    """It would else be read as one of both."""
    with pytest.raises(ConfigurationError, match="OTEL_SESSIONS_INSTRUMENT='perhaps'"):
        asked({"OTEL_SESSIONS_INSTRUMENT": "perhaps"})
