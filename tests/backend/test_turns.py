"""Turns to send a gRPC message: few at once, never kept by who does not use them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from otel_sessions.backend.ingest import BackPressureError
from otel_sessions.backend.receiver import turns as module
from otel_sessions.backend.receiver.answers import StalledError
from otel_sessions.backend.receiver.turns import Turns


async def sent(message: bytes) -> bytes:
    """Come at once."""
    return message


async def never() -> bytes:
    """Trickle."""
    await asyncio.Event().wait()
    raise AssertionError


async def take(turns: Turns, message: Callable[[], Awaitable[bytes]], peer: str = "peer") -> bytes:
    """Read one message in a turn."""
    async with turns.turn(peer):
        return await turns.read(message(), peer)  # type: ignore[arg-type]


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario, not for ever."""
    asyncio.run(asyncio.wait_for(scenario(), 20))  # type: ignore[arg-type]


def test_who_trickles_loses_its_turn_once_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest goes, with a word to come back; whoever waited is served."""
    monkeypatch.setattr(module, "SAFE_SECONDS", 0.05)

    async def scenario() -> None:
        turns = Turns(2)
        slow = [asyncio.create_task(take(turns, never)) for _ in range(2)]
        await asyncio.sleep(0)
        assert await take(turns, lambda: sent(b"honest")) == b"honest"
        with pytest.raises(StalledError):
            await slow[0]
        assert not slow[1].done()
        slow[1].cancel()

    run(scenario)


def test_who_trickles_alone_is_let_be_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow network is no crime while nobody waits, and no excuse for ever."""
    monkeypatch.setattr(module, "SAFE_SECONDS", 0.0)
    monkeypatch.setattr(module, "READ_SECONDS", 0.1)

    async def scenario() -> None:
        turns = Turns(1)
        with pytest.raises(StalledError):
            await take(turns, never)
        assert await take(turns, lambda: sent(b"next")) == b"next"

    run(scenario)


def test_who_waits_too_long_is_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for longer than an exporter does."""
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.05)

    async def scenario() -> None:
        turns = Turns(1)
        slow = asyncio.create_task(take(turns, never))
        await asyncio.sleep(0)
        with pytest.raises(BackPressureError):
            await take(turns, lambda: sent(b"late"))
        slow.cancel()
        await asyncio.wait({slow})
        assert await take(turns, lambda: sent(b"next")) == b"next"

    run(scenario)


def test_the_newest_that_waits_comes_first() -> None:
    """The oldest is the nearest to giving up: its answer would come too late."""

    async def scenario() -> None:
        turns = Turns(1)
        order: list[str] = []
        over = asyncio.Event()

        async def first() -> bytes:
            await over.wait()
            return b""

        async def waiting(name: str) -> None:
            async with turns.turn(name):
                order.append(name)

        holding = asyncio.create_task(take(turns, first))
        await asyncio.sleep(0)
        tasks = [asyncio.create_task(waiting(name)) for name in ("old", "newer", "newest")]
        await asyncio.sleep(0)
        over.set()
        await asyncio.gather(holding, *tasks)
        assert order == ["newest", "newer", "old"]

    run(scenario)


def test_a_connection_that_has_brought_a_message_comes_before_those_that_have_not() -> None:
    """A crowd of strangers that trickle never keeps an agent waiting that has sent all day."""

    async def scenario() -> None:
        turns = Turns(1)
        await take(turns, lambda: sent(b"before"), "agent")
        order: list[str] = []

        async def waiting(name: str) -> None:
            async with turns.turn(name):
                order.append(name)

        async with turns.turn("holder"):
            tasks = [asyncio.create_task(waiting(name)) for name in ("agent", "stranger", "another")]
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert order == ["agent", "another", "stranger"]

    run(scenario)


def test_a_crowd_that_trickles_is_pushed_out_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as somebody waits, whoever has had its time has to go."""
    monkeypatch.setattr(module, "SAFE_SECONDS", 0.05)

    async def scenario() -> None:
        turns = Turns(2)
        crowd = [asyncio.create_task(take(turns, never)) for _ in range(10)]
        while sum(one.done() for one in crowd) < 8:
            await asyncio.wait([one for one in crowd if not one.done()], return_when=asyncio.FIRST_COMPLETED)
        assert all(isinstance(one.exception(), StalledError) for one in crowd if one.done())
        for one in crowd:
            one.cancel()

    run(scenario)


def test_a_sender_that_goes_while_it_waits_takes_no_turn_with_it() -> None:
    """Nor one that goes in the very moment in which its turn comes."""

    async def scenario() -> None:
        turns = Turns(1)
        for at_the_moment in (False, True):
            async with turns.turn("holder"):
                gone = asyncio.create_task(take(turns, lambda: sent(b"gone")))
                await asyncio.sleep(0)
                if not at_the_moment:
                    gone.cancel()
                    await asyncio.wait({gone})
            gone.cancel()
            await asyncio.wait({gone})
            assert await take(turns, lambda: sent(b"next")) == b"next"

    run(scenario)


def test_a_turn_that_comes_in_the_moment_in_which_the_waiting_is_over_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the loop was busy, the holder ended and the waiter's time ran out: whoever comes next is served."""
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.02)

    async def scenario() -> None:
        turns = Turns(1)
        over = asyncio.Event()

        async def hold() -> None:
            async with turns.turn("holder"):
                await over.wait()

        holding = asyncio.create_task(hold())
        late = asyncio.create_task(take(turns, lambda: sent(b"late"), "late"))
        await asyncio.sleep(0)
        over.set()
        time.sleep(0.04)  # noqa: ASYNC251 - the loop is busy
        await asyncio.wait({holding, late})
        late.exception()  # refused or served, as asyncio's version has it
        assert await take(turns, lambda: sent(b"next"), "next") == b"next"

    run(scenario)
