"""Checks of the spool: a folder that can be written, room on its disk, and what lies in it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from otel_sessions.cli._doctor.facts import SpoolFacts, Waiting
from otel_sessions.cli._doctor.findings import Finding, ok, problem, unknown, warning
from otel_sessions.cli._drawing import duration

__all__ = ["check_spool", "check_waiting"]

_LITTLE: Final = 100 * 1024 * 1024
"""Bytes free from which on a spool is soon no help; it takes up to 512 MiB for one address."""
_FRESH: Final = 60.0
"""Seconds that a living program's spans may wait before something is wrong with where they go."""


def check_spool(spool: SpoolFacts) -> list[Finding]:
    """Say where spans wait, and whether they can."""
    if spool.chosen_off:
        return [
            warning(
                "spool",
                "OTEL_SESSIONS_SPOOL=off: what is not delivered when a program ends is lost",
                "unset OTEL_SESSIONS_SPOOL",
            )
        ]
    if spool.folder is None:
        return [
            warning(
                "spool",
                spool.trouble
                or "this user has no home, so what is not delivered when a program ends is lost",
                "export OTEL_SESSIONS_SPOOL=/A/FOLDER/THAT/LASTS",
            )
        ]
    if spool.trouble:
        return [
            problem(
                "spool",
                f"{spool.folder} can't be written: {spool.trouble}. What is not delivered in time is lost",
                f"mkdir -p {spool.folder} && chmod u+rwx {spool.folder}; df -h {spool.folder}",
            )
        ]
    if spool.free is not None and spool.free < _LITTLE:
        return [
            warning(
                "spool",
                f"{spool.free // 1_000_000} MB are free where {spool.folder} is",
                f"df -h {spool.folder}",
            )
        ]
    return [ok("spool", f"{spool.folder} can be written")]


def check_waiting(spool: SpoolFacts, addresses: Collection[str]) -> list[Finding]:
    """Say what waits for the `addresses` of this environment and what was set aside; others in one line."""
    if spool.folder is None:
        return [unknown("waiting", "there is no spool")]
    found = [finding for it in spool.waiting if it.address in addresses for finding in _of(it)]
    others = [it for it in spool.waiting if it.address not in addresses and (it.items or it.rejected)]
    if others:
        found.append(
            warning(
                "waiting",
                f"for {len(others)} other addresses: {sum(it.items for it in others)} spans and events "
                f"waiting, {sum(it.rejected for it in others)} refused",
                "otel-sessions spool list",
            )
        )
    return found or [ok("waiting", "nothing waits")]


def _of(waiting: Waiting) -> Iterator[Finding]:
    only = f"--address {waiting.address}"
    there = _counted(waiting.items, waiting)
    if waiting.items and waiting.of_living and waiting.age < _FRESH:
        yield ok("waiting", f"{there} of a running program on the way to {waiting.address}")
    elif waiting.items:
        oldest = duration(round(waiting.age * 1e9))
        yield warning(
            "waiting",
            f"{there} waiting for {waiting.address}, the oldest for {oldest}",
            f"otel-sessions spool send {only}",
        )
    if waiting.rejected:
        why = f": {waiting.reasons[0]}" if waiting.reasons else ""
        refused = _counted(waiting.rejected, waiting)
        yield problem(
            "waiting",
            f"{waiting.address} refused {refused} for good, set aside here{why}",
            f"otel-sessions spool send --rejected {only}",
        )
    if waiting.damaged:
        said = f"damaged files for {waiting.address}: {waiting.damaged}"
        yield warning("waiting", said, "otel-sessions spool list")


def _counted(number: int, waiting: Waiting) -> str:
    what = "life cycle event" if waiting.signal == "logs" else "span"
    return f"{number} {what}{'' if number == 1 else 's'}"
