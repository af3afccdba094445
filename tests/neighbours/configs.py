"""What stands in collector-config/: its files, and the names that they use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from otel_sessions import semconv
from otel_sessions.backend import vocabulary

__all__ = ["COMMANDS", "FOLDER", "attributes", "known_attributes", "load", "metrics"]

FOLDER = Path(__file__).parents[2] / "collector-config"

COMMANDS: Mapping[str, tuple[Path, ...]] = {
    "local": (FOLDER / "local.yaml",),
    "jaeger": (FOLDER / "jaeger.yaml",),
    "prometheus": (FOLDER / "prometheus.yaml",),
    "agent": (FOLDER / "scaled" / "agent.yaml",),
    "gateway": (FOLDER / "scaled" / "gateway.yaml",),
    "clickhouse": (FOLDER / "scaled" / "gateway.yaml", FOLDER / "scaled" / "clickhouse.yaml"),
}
"""The files that one Collector is started with."""

_ATTRIBUTE = re.compile(r"attributes\[\"([^\"]+)\"\]|delete_key\([\w.]+, \"([^\"]+)\"\)")
_METRIC = re.compile(r"\btraces_span_metrics_\w+")


def load(path: Path) -> dict[str, Any]:
    """Read one configuration."""
    return yaml.safe_load(path.read_text())


def attributes(config: Mapping[str, Any]) -> set[str]:
    """Return every attribute that a configuration names: in statements, as dimension, as key of routes."""
    named = {name for text in _texts(config) for found in _ATTRIBUTE.findall(text) for name in found if name}
    for exporter in config.get("exporters", {}).values():
        named |= set(exporter.get("routing_attributes", ()))
    for processor in config.get("processors", {}).values():
        named |= set(processor.get("keys", ()))
    for connector in config.get("connectors", {}).values():
        named |= {dimension["name"] for dimension in connector["dimensions"]}
        named |= set(connector["resource_metrics_key_attributes"])
    return named


def known_attributes() -> set[str]:
    """Return every attribute that semconv and the backend's vocabulary know."""
    known = {value for value in vars(semconv).values() if isinstance(value, str)}
    for words in vars(vocabulary).values():
        known |= set(_keys(words))
    return {name.rpartition(":")[2].partition("#")[0] for name in known}


def metrics(text: str) -> set[str]:
    """Return the metrics of spans that a text names."""
    return set(_METRIC.findall(text))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _keys(words: Any) -> Iterator[str]:
    """Go through the tables of the vocabulary, whatever their shape."""
    if isinstance(words, str):
        yield words
    elif isinstance(words, Mapping):
        for key, value in words.items():
            yield from _keys(key)
            yield from _keys(value)
    elif isinstance(words, (tuple, frozenset)):
        for item in words:
            yield from _keys(item)
