"""Work on several tracks at once: as many as an engine has slots, and one more, whose clip is prepared meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class WorkerPool(Generic[T, R]):
    """Calls ``work`` in threads for ``slots`` items at once and one more. A context manager: it ends the threads."""

    def __init__(self, work: Callable[[T], R], slots: int) -> None:
        self._work = work
        self._at_once = slots + 1
        self._threads = ThreadPoolExecutor(self._at_once, thread_name_prefix="track")
        self._running: set[Future[R]] = set()

    def __enter__(self) -> WorkerPool[T, R]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for future in self._running:
            future.cancel()
        self._threads.shutdown(wait=True)

    def results(self, items: Iterable[T]) -> Iterator[R]:
        """Yield the result of each item as it is finished. ``items`` may be endless: they are taken when there is room.

        Raises what ``work`` raises.
        """
        waiting = iter(items)
        while True:
            for item in islice(waiting, self._at_once - len(self._running)):
                self._running.add(self._threads.submit(self._work, item))
            if not self._running:
                return
            finished, _ = wait(self._running, return_when=FIRST_COMPLETED)
            for future in finished:
                self._running.discard(future)  # first: after an interrupt it must not be yielded again
                yield future.result()

    def remaining(self) -> Iterator[R]:
        """Yield the results of what is still running, once it was stopped; those that raise are left out."""
        for future in list(self._running):
            with contextlib.suppress(Exception):
                yield future.result()
