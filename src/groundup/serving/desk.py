"""What all routes of one server share: its models, its settings, its measurements, and whether it is about to stop."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from groundup.errors import printable
from groundup.serving.errors import Refused
from groundup.serving.metrics import Metrics
from groundup.serving.options import ServerOptions
from groundup.serving.served import Classifier, Embedder, Language, Served, Shelf
from groundup.serving.streams import Answers, Asked

LOADING_THREADS, WORKING_THREADS = 4, 4

Result = TypeVar("Result")


class Desk:
    """One server's shared state. Used from its event loop."""

    def __init__(self, shelf: Shelf, options: ServerOptions) -> None:
        self.shelf, self.options = shelf, options
        self.metrics = Metrics()
        self.draining = False
        self.under_way = 0
        self._answers: weakref.WeakSet[Answers] = weakref.WeakSet()
        self._getting: dict[str, asyncio.Future[Served]] = {}
        self._pools: dict[str, ThreadPoolExecutor] = {}

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        """What a call that blocks returns."""
        return await asyncio.get_running_loop().run_in_executor(self._pool("work", WORKING_THREADS), work)

    async def compute(self, work: Callable[[], Result]) -> Result:
        """What uses all cores by itself: one at a time, also where nobody waits for the last one any more."""
        return await asyncio.get_running_loop().run_in_executor(self._pool("compute", 1), work)

    def _pool(self, name: str, threads: int) -> ThreadPoolExecutor:
        if name not in self._pools:
            self._pools[name] = ThreadPoolExecutor(threads, f"groundup-{name}")
        return self._pools[name]

    async def served(self, name: str | None) -> Served:
        """The model of that name, or the first; loaded if it was not. Requests for one model wait for it together.

        Raises:
            GroundupError: there is none of that name, or it does not fit.
        """
        if name is None:
            names = self.shelf.names()
            if not names:
                raise Refused(404, "this server has no model", "model_not_found", "model")
            name = names[0]
        known = self.shelf.find(name)
        if known is not None:
            return known
        wanted, loop = name, asyncio.get_running_loop()
        future = self._getting.get(name)
        if future is None:
            future = loop.run_in_executor(self._pool("load", LOADING_THREADS), lambda: self.shelf.get(wanted))
            self._getting[name] = future
            future.add_done_callback(lambda done: self._got(wanted, done))
        return await asyncio.shield(future)

    def _got(self, name: str, done: asyncio.Future[Served]) -> None:
        del self._getting[name]
        if not done.cancelled():
            done.exception()  # looked at, for whoever asked may have gone

    async def language(self, name: str | None) -> tuple[Served, Language]:
        served = await self.served(name)
        if served.language is None:
            raise _other(served, "writes no text")
        return served, served.language

    async def embedder(self, name: str) -> tuple[Served, Embedder]:
        served = await self.served(name)
        if served.embedder is None:
            raise _other(served, "makes no vectors")
        return served, served.embedder

    async def classifier(self, name: str) -> tuple[Served, Classifier]:
        served = await self.served(name)
        if served.classifier is None:
            raise _other(served, "has no labels")
        return served, served.classifier

    def answers(self, language: Language, asked: Sequence[Asked]) -> Answers:
        """Begin the answers of a request.

        Raises:
            GroundupError: the engine refuses.
        """
        answers = Answers(language, asked)
        answers.start()
        self._answers.add(answers)
        return answers

    def stop_answers(self) -> None:
        """End what is still being answered, with an error that says so."""
        for answers in list(self._answers):
            answers.fail(Refused(503, "the server is stopping", "server_stopping"))

    def close(self) -> None:
        """Free the threads. Calls that have begun in them end by themselves."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        self._pools.clear()

    def loads(self) -> dict[str, dict[str, float]]:
        """How busy each loaded language model is."""
        return {one.name: one.language.load_now() for one in self.shelf.loaded() if one.language is not None}


def _other(served: Served, what: str) -> Refused:
    return Refused(404, f"the model {printable(served.name, 100)} {what}", "unsupported_model", "model")
