"""Work on a body in a thread, which holds the body for as long as it goes on, whoever still waits for it.

A sender that gives up ends the call that waits, but no thread. If the room of its body were given back then,
those that give up in time and come again could fill the memory with bodies that nobody counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

__all__ = ["aside"]

T = TypeVar("T")


async def aside(threads: Executor, work: Callable[[bytes], T], body: bytes) -> T:
    """Do something with a body in a thread; return what it returned, or raise what it raised.

    When cancelled, it lets go of a body that no thread has begun with, or else ends when the thread does.
    """
    held = [body]  # a queue of threads keeps what was cancelled in it until its turn comes
    begun = threads.submit(lambda: work(held.pop()))
    done = asyncio.wrap_future(begun)
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        if begun.cancel():
            held.clear()
        else:
            await asyncio.wait([done])
        raise
