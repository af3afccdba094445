"""The demo's stage: a backend, a model, and the acts that are played on it, each a child process."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from otel_sessions.cli._api import Api
from otel_sessions.cli._demo.processes import (
    Child,
    agent_environment,
    child_environment,
    last_line,
    running,
)
from otel_sessions.cli._demo.story import Sighting, Watch
from otel_sessions.errors import BackendError, EndpointError

__all__ = ["Stage", "at_once", "set_up"]

_LOOK_EVERY: Final = 0.4  # seconds; the shortest state of the story lasts four
_WORK_BEFORE_DEATH: Final = 5.0  # seconds: its open spans are announced after one, heartbeats come every two
_SILENCE: Final = 12.0  # seconds that the dead worker's part goes on: its lease of ten, and a look
_TRIP_EVERY: Final = 20.0  # seconds between two trips once the story is told
_TRIPS: Final = (
    "To Porto by train, 3 people, 2 nights",
    "To Oslo in winter, 4 people, 5 nights",
    "To Kyoto for the blossom, 2 adults, 7 nights",
)
_IDLE: Final = "5"  # seconds of silence after which a session without a sign of life is idle
_PLAY: Final = "otel_sessions.cli._demo."


@dataclass(slots=True)
class Stage:
    """Where the acts are played: the backend's addresses, the model's, and what was seen so far."""

    backend: Child
    http: str
    grpc: str
    model: str
    logs: Path
    say: Callable[[str], None]
    watch: Watch = field(default_factory=Watch)

    @property
    def api(self) -> Api:
        """The backend's API."""
        return Api(self.http)

    async def observe(self, tell: Callable[[Sighting, str], None], *, until_complete: bool = False) -> None:
        """Look at the backend's sessions again and again, and tell what changed, and its page.

        Never ends by itself, or with `until_complete` once every sight of the story was seen. Raises
        BackendError where the backend no longer answers.
        """
        while not (until_complete and not self.watch.missing):
            try:
                answer = await asyncio.to_thread(self.api.sessions, 100)
            except EndpointError as error:
                raise BackendError(
                    f"the demo's backend is gone: {self.backend.last_words() or error}"
                ) from error
            for sighting in reversed(self.watch.look(answer["sessions"])):
                tell(sighting, self.api.page(sighting.session["id"]))
            await asyncio.sleep(_LOOK_EVERY)

    def last_words(self) -> dict[str, str]:
        """Return the last line of each part of the demo that complained."""
        said = {log.stem: last_line(log) for log in sorted(self.logs.glob("*.log"))}
        return {part: line for part, line in said.items() if line}

    async def play_story(self) -> None:
        """Play each act once, a breath apart, several at the same time."""
        await at_once(
            self._act(0, "agent", "trip", "To Lisbon in May, 2 adults, 4 nights"),
            self._doomed_worker(1),
            self._act(2, "emitter", service="newsreader"),
            self._act(3, "agent", "table", "In Lisbon on Friday, 2 people"),
            self._act(4, "agent", "bargain", "To Oslo at any time, 2 people"),
        )

    async def play_on(self) -> None:
        """Play one trip after another at a calm pace; never ends by itself."""
        for prompt in itertools.cycle(_TRIPS):
            await asyncio.gather(self._act(0, "agent", "trip", prompt), asyncio.sleep(_TRIP_EVERY))

    async def _act(self, delay: float, module: str, *arguments: str, service: str = "travel-agent") -> None:
        await asyncio.sleep(delay)
        environment = agent_environment(self.http, service) | {"DEMO_MODEL_URL": self.model}
        log = self.logs / f"{module}.log"
        async with running(_PLAY + module, *arguments, environment=environment, log=log) as child:
            await child.process.wait()

    async def _doomed_worker(self, delay: float) -> None:
        await asyncio.sleep(delay)
        environment, log = agent_environment(self.http, "indexer"), self.logs / "worker.log"
        async with running(_PLAY + "worker", environment=environment, log=log) as child:
            await child.announcement()
            await asyncio.sleep(_WORK_BEFORE_DEATH)
            self.say("kill -9 for the worker that indexes documents: from now on only its silence speaks")
            await child.kill()
        await asyncio.sleep(_SILENCE)


@asynccontextmanager
async def set_up(
    http: str, grpc: str, data: Path, *, logs: Path, say: Callable[[str], None]
) -> AsyncGenerator[Stage]:
    """Start backend and model, and end both when the block is left; `say` tells what happens on stage.

    Raises BackendError with the backend's own words where it can't start.
    """
    environment = child_environment()
    async with AsyncExitStack() as stack:
        serve = (
            "serve",
            "--http",
            http,
            "--grpc",
            grpc,
            "--data",
            str(data),
            "--idle-after",
            _IDLE,
            "--json",
        )
        backend = await stack.enter_async_context(
            running("otel_sessions.cli.main", *serve, environment=environment, log=logs / "backend.log")
        )
        listening = await backend.announcement()
        model = await stack.enter_async_context(
            running(_PLAY + "model_server", environment=environment, log=logs / "model_server.log")
        )
        url = (await model.announcement())["url"]
        yield Stage(
            backend=backend,
            http=f"http://{listening['http']}",
            grpc=listening["grpc"],
            model=url,
            logs=logs,
            say=say,
        )


async def at_once(*acts: Coroutine[Any, Any, None], until: Coroutine[Any, Any, None] | None = None) -> None:
    """Run all acts at the same time until all are done, or until `until` is.

    Where one fails, or the caller is cancelled, none goes on.
    """
    tasks = [asyncio.ensure_future(act) for act in acts]
    goal = None if until is None else asyncio.ensure_future(until)
    every = {*tasks, *([goal] if goal else [])}
    waiting = every
    try:
        while waiting and not (goal and goal.done()):
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in every:
            task.cancel()
        await asyncio.gather(*every, return_exceptions=True)
