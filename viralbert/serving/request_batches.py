"""Dynamic batching: texts of several requests are computed together.

One thread computes beside the event loop.

Lesson 09 measures what it is worth. While a batch is computed, the next one gathers; only a text
that comes to an idle service waits for company, `wait_s` at most. The model comes in as a function
from texts to answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, Generic, TypeVar

Answer = TypeVar("Answer")


class ComputeError(RuntimeError):
    """The computation ended in something that is no `Exception`.

    That is, for example, a panic of a library written in Rust.
    """


class Batcher(Generic[Answer]):
    """Puts texts together, and hands each request its own answers or its own error."""

    def __init__(
        self,
        compute: Callable[[list[str]], Sequence[Answer]],
        size: int,
        wait_s: float,
        observe: Callable[[int], object] = lambda n: None,
    ) -> None:
        """Take over `compute`: nobody else calls it from now on.

        Args:
            compute: A function from texts to as many answers, in their order.
            size: Texts that are computed together; a longer request is cut up, so that others get
                in between.
            wait_s: How long a text waits for others.
            observe: A function that is called with the number of texts of each batch.
        """
        self._compute, self._size, self._wait_s, self._observe = compute, size, wait_s, observe
        self._queue: asyncio.Queue[tuple[list[str], asyncio.Future[list[Answer]]]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "model")
        self._task: asyncio.Task[None] | None = None
        self._began: float | None = None

    @property
    def is_working(self) -> bool:
        """Whether batches are computed, which they are inside `working`."""
        return self._task is not None and not self._task.done()

    @property
    def busy_s(self) -> float:
        """For how many seconds the thread has been at what it does now; 0 if it does nothing."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Anything else that computes, in the same thread.

        Raises:
            ComputeError: It ended in something that would end whoever waits for it, too.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._timed, function, *arguments
        )

    async def answers(self, texts: list[str]) -> list[Answer]:
        """One for each text, in order; raises what `compute` raises for these texts alone."""
        answers: list[Answer] = []
        for start in range(0, len(texts), self._size):
            future = asyncio.get_running_loop().create_future()
            self._queue.put_nowait((texts[start : start + self._size], future))
            answers += await future
        return answers

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Inside the context batches are computed."""
        self._task = asyncio.create_task(self._work())
        try:
            yield
        finally:
            self._task.cancel()
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        while True:
            # Whoever gave up meanwhile (its time is over) is not computed.
            jobs = [job for job in await self._gather() if not job[1].done()]
            if not jobs:
                continue
            texts = [texts for texts, _ in jobs]
            self._observe(sum(map(len, texts)))
            for (_, future), outcome in zip(
                jobs, await self.run(self._attempt, texts), strict=True
            ):
                if future.done():
                    continue
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)

    async def _gather(self) -> list[tuple[list[str], asyncio.Future[list[Answer]]]]:
        jobs = [await self._queue.get()]
        until = asyncio.get_running_loop().time() + self._wait_s
        while sum(len(texts) for texts, _ in jobs) < self._size:
            try:
                if self._queue.empty():
                    async with asyncio.timeout_at(until):
                        jobs.append(await self._queue.get())
                else:
                    jobs.append(self._queue.get_nowait())
            except TimeoutError:
                break
        return jobs

    def _timed(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self._began = time.monotonic()
        try:
            return function(*arguments)
        except BaseException as error:
            raise _harmless(error) from None
        finally:
            self._began = None

    def _attempt(self, jobs: list[list[str]]) -> list[list[Answer] | Exception]:
        """Compute the answers of each job, or its own error.

        Jobs that fail together are halved until the culprit is alone.
        """
        try:
            answers = iter(self._compute([text for texts in jobs for text in texts]))
            return [list(islice(answers, len(texts))) for texts in jobs]
        except BaseException as error:  # a panic of one text must not end the thread's work for all
            if len(jobs) == 1:
                return [_harmless(error)]
            half = len(jobs) // 2
            return self._attempt(jobs[:half]) + self._attempt(jobs[half:])


def _harmless(error: BaseException) -> Exception:
    """An error that a future can hold, and that ends nothing but the request it belongs to."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return ComputeError(type(error).__name__).with_traceback(error.__traceback__)
