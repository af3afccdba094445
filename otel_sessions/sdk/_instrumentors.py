"""Which frameworks are traced by what: the one table, and what an installation makes of it.

Pure: distributions in, findings out. An instrumentor patches a framework from outside; where a framework
makes OpenTelemetry spans of its own accord, the table tells how they are switched on. Names are those of the
projects' own metadata (openinference 0.1.66 and its kin, OpenLLMetry 0.62.4, opentelemetry-python-genai,
opentelemetry-python-contrib 0.66b2), read in November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib.metadata import Distribution
from typing import Final

__all__ = [
    "EVERY",
    "FRAMEWORKS",
    "GROUP",
    "Coverage",
    "Finding",
    "Framework",
    "Installed",
    "Instrumentor",
    "disabled_names",
    "installed",
    "normalised",
    "survey",
]

GROUP: Final = "opentelemetry_instrumentor"
"""The entry point group in which instrumentors are found."""

EVERY: Final = "*"
"""In OTEL_PYTHON_DISABLED_INSTRUMENTATIONS: all of them."""


@dataclass(frozen=True, slots=True)
class Instrumentor:
    """A distribution that traces a framework, and its name in the entry point group."""

    distribution: str
    name: str


@dataclass(frozen=True, slots=True)
class Framework:
    """A framework or client of models, by any of its distributions.

    The first of `instrumentors` is the one to suggest. `native` says how its own spans are switched on, ""
    where it makes none. `incidental` is what many programs have for another purpose (boto3): nothing is
    missing where it is not traced.
    """

    title: str
    distributions: tuple[str, ...]
    instrumentors: tuple[Instrumentor, ...] = ()
    native: str = ""
    incidental: bool = False


def _inference(name: str, entry: str | None = None) -> Instrumentor:
    return Instrumentor(f"openinference-instrumentation-{name}", entry or name.replace("-", "_"))


def _plain(name: str, entry: str | None = None) -> Instrumentor:
    """Of OpenLLMetry and of OpenTelemetry's contrib, which share a prefix."""
    return Instrumentor(f"opentelemetry-instrumentation-{name}", entry or name.replace("-", "_"))


def _genai(name: str, entry: str | None = None) -> Instrumentor:
    return Instrumentor(f"opentelemetry-instrumentation-genai-{name}", entry or name.replace("-", "_"))


_GLOBAL_PROVIDER: Final = "on by itself once a tracer provider is set"

FRAMEWORKS: Final = (
    Framework("Agno", ("agno",), (_inference("agno"), _plain("agno"), _genai("agno"))),
    Framework(
        "AgentScope",
        ("agentscope",),
        native="agentscope 2: Agent(…, middlewares=[TracingMiddleware()]); "
        "agentscope 1: agentscope.init(tracing_url='http://localhost:4318/v1/traces')",
    ),
    Framework(
        "Anthropic",
        ("anthropic",),
        (_inference("anthropic"), _plain("anthropic"), _genai("anthropic")),
    ),
    Framework(
        "AutoGen",
        ("autogen-agentchat", "autogen-core"),
        (_inference("autogen-agentchat"),),
        native=f"{_GLOBAL_PROVIDER}; AUTOGEN_DISABLE_RUNTIME_TRACING=true turns it off",
    ),
    Framework(
        "Amazon Bedrock",
        ("boto3",),
        (_inference("bedrock"), _plain("bedrock", "boto3"), _plain("botocore")),
        incidental=True,
    ),
    Framework(
        "Claude Agent SDK",
        ("claude-agent-sdk",),
        (_inference("claude-agent-sdk"), _genai("claude-agent-sdk", "claude-agent-sdk")),
    ),
    Framework("Cohere", ("cohere",), (_plain("cohere"),)),
    Framework("CrewAI", ("crewai",), (_inference("crewai"), _plain("crewai"), _genai("crewai"))),
    Framework("DSPy", ("dspy", "dspy-ai"), (_inference("dspy"), _genai("dspy"))),
    Framework(
        "Google ADK",
        ("google-adk",),
        (_inference("google-adk"),),
        native=_GLOBAL_PROVIDER,
    ),
    Framework(
        "Google Gen AI",
        ("google-genai",),
        (
            _inference("google-genai"),
            _plain("google-genai", "google-genai"),
            _plain("google-generativeai"),
        ),
    ),
    Framework("Groq", ("groq",), (_inference("groq"), _plain("groq"))),
    Framework(
        "Haystack",
        ("haystack-ai",),
        (_inference("haystack"), _plain("haystack")),
        native="haystack 2: on by itself where opentelemetry-sdk is installed; "
        "haystack 3: pip install opentelemetry-haystack, and an OpenTelemetryConnector in the pipeline",
    ),
    Framework(
        "LangChain, LangGraph",
        ("langchain-core", "langchain", "langgraph"),
        (_inference("langchain"), _plain("langchain"), _genai("langchain")),
        native="pip install 'langsmith[otel]', and LANGSMITH_TRACING=true LANGSMITH_TRACING_MODE=otel",
    ),
    Framework("LiteLLM", ("litellm",), (_inference("litellm"),), native="litellm.callbacks = ['otel']"),
    Framework(
        "LlamaIndex",
        ("llama-index-core", "llama-index-workflows"),
        (_inference("llama-index"), _plain("llamaindex", "llama-index"), _genai("llama-index")),
        native="pip install llama-index-observability-otel, and "
        "LlamaIndexOpenTelemetry().start_registering()",
    ),
    Framework("MCP", ("mcp",), (_inference("mcp"), _plain("mcp")), incidental=True),
    Framework(
        "Microsoft Agent Framework",
        ("agent-framework", "agent-framework-core"),
        native="agent_framework.observability.enable_instrumentation()",
    ),
    Framework("Mistral AI", ("mistralai",), (_inference("mistralai"), _plain("mistralai"))),
    Framework("Ollama", ("ollama",), (_plain("ollama"),)),
    Framework(
        "OpenAI",
        ("openai",),
        (_inference("openai"), _plain("openai"), _plain("openai-v2", "openai"), _genai("openai")),
    ),
    Framework(
        "OpenAI Agents",
        ("openai-agents",),
        (
            _inference("openai-agents"),
            _plain("openai-agents"),
            _plain("openai-agents-v2", "openai_agents"),
            _genai("openai-agents"),
        ),
    ),
    Framework(
        "Pydantic AI",
        ("pydantic-ai-slim", "pydantic-ai"),
        native="Agent.instrument_all()",
    ),
    Framework(
        "Semantic Kernel",
        ("semantic-kernel",),
        native="SEMANTICKERNEL_EXPERIMENTAL_GENAI_ENABLE_OTEL_DIAGNOSTICS=true",
    ),
    Framework("smolagents", ("smolagents",), (_inference("smolagents"), _genai("smolagents"))),
    Framework("Strands Agents", ("strands-agents",), native=_GLOBAL_PROVIDER),
    Framework("Together", ("together",), (_plain("together"),)),
    Framework(
        "Vertex AI",
        ("google-cloud-aiplatform",),
        (_inference("vertexai"), _plain("vertexai")),
    ),
)
"""Every framework we know, by its title."""


class Coverage(Enum):
    """What traces a framework that is installed."""

    INSTRUMENTED = "instrumented"
    """One instrumentor."""
    DOUBLED = "doubled"
    """Several: each call is seen as often, and its tokens are counted as often."""
    DISABLED = "disabled"
    """None, for OTEL_PYTHON_DISABLED_INSTRUMENTATIONS names all that are installed."""
    NATIVE = "native"
    """None is installed; the framework can do it itself."""
    MISSING = "missing"
    """Nothing, until an instrumentor is installed."""


@dataclass(frozen=True, slots=True)
class Installed:
    """What an environment has: versions by distribution, and the entry points of instrumentors.

    Names of distributions are normalised, as `normalised` does it.
    """

    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    entries: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])


@dataclass(frozen=True, slots=True)
class Finding:
    """What is to be said of a framework that is installed.

    `instrumentors` are those that are installed and not disabled; `suggestion` is what to install where
    nothing traces it, None where there is nothing to install.
    """

    framework: Framework
    distribution: str
    version: str
    coverage: Coverage
    instrumentors: tuple[Instrumentor, ...] = ()
    suggestion: str | None = None


def normalised(name: str) -> str:
    """Return a distribution's name as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(distributions: Iterable[Distribution]) -> Installed:
    """Read what `importlib.metadata.distributions()` found.

    Of two of one name the first counts, as in imports.
    """
    versions: dict[str, str] = {}
    entries: dict[str, tuple[str, ...]] = {}
    for distribution in distributions:
        metadata = distribution.metadata
        # An interrupted uninstall leaves a folder without a name.
        name = normalised(metadata["Name"]) if "Name" in metadata else ""
        if not name or name in versions:
            continue
        versions[name] = distribution.version
        names = tuple(entry.name for entry in distribution.entry_points if entry.group == GROUP)
        if names:
            entries[name] = names
    return Installed(versions, entries)


def disabled_names(value: str) -> frozenset[str]:
    """Read OTEL_PYTHON_DISABLED_INSTRUMENTATIONS: names of entry points, by commas."""
    return frozenset(name.strip() for name in value.split(",") if name.strip())


def survey(
    environment: Installed,
    *,
    disabled: frozenset[str] = frozenset(),
    frameworks: Iterable[Framework] = FRAMEWORKS,
) -> tuple[Finding, ...]:
    """Tell of each framework that is installed what traces it.

    What many programs have for another purpose is left out unless an instrumentor is there.
    """
    found = (_finding(framework, environment, disabled) for framework in frameworks)
    return tuple(finding for finding in found if finding is not None and _tells(finding))


def _tells(finding: Finding) -> bool:
    return bool(finding.instrumentors) or not finding.framework.incidental


def _finding(framework: Framework, environment: Installed, disabled: frozenset[str]) -> Finding | None:
    there = next((name for name in framework.distributions if name in environment.versions), None)
    if there is None:
        return None
    present = tuple(
        Instrumentor(known.distribution, name)
        for known in framework.instrumentors
        if known.distribution in environment.versions
        for name in environment.entries.get(known.distribution, (known.name,))[:1]
    )
    active = tuple(one for one in present if one.name not in disabled and EVERY not in disabled)
    coverage = _coverage(framework, present, active)
    missing = coverage is Coverage.MISSING
    return Finding(
        framework,
        there,
        environment.versions[there],
        coverage,
        active,
        framework.instrumentors[0].distribution if missing and framework.instrumentors else None,
    )


def _coverage(
    framework: Framework, present: tuple[Instrumentor, ...], active: tuple[Instrumentor, ...]
) -> Coverage:
    if len(active) > 1:
        return Coverage.DOUBLED
    if active:
        return Coverage.INSTRUMENTED
    if present:
        return Coverage.DISABLED
    return Coverage.NATIVE if framework.native else Coverage.MISSING
