"""Work on several tracks at once: as many as an engine has slots, and some more, whose clips are prepared meanwhile."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_MOST_THREADS = 4096  # threads start as they are needed, so this costs nothing
_LOOK_SECONDS = 0.5  # how often to look whether the engine has got more slots


class WorkerPool(Generic[T, R]):
    """Calls ``work`` in threads for ``slots()`` items at once and some more. A context manager: it ends the threads.

    One more for each eight slots, at least one. The number of slots may change while it works.
    """

    def __init__(self, work: Callable[[T], R], slots: Callable[[], int]) -> None:
        self._work = work
        self._slots = slots
        self._threads = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="track")
        self._running: set[Future[R]] = set()
        self._finished: queue.SimpleQueue[Future[R]] = queue.SimpleQueue()

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
            slots = self._slots()
            at_once = slots + max(1, slots // 8)  # one alone would leave slots of a large pool without a clip
            for item in islice(waiting, max(0, at_once - len(self._running))):
                future = self._threads.submit(self._work, item)
                self._running.add(future)
                future.add_done_callback(self._finished.put)
            if not self._running:
                return
            with contextlib.suppress(queue.Empty):
                future = self._finished.get(timeout=_LOOK_SECONDS)
                self._running.discard(future)  # first: after an interrupt it must not be yielded again
                yield future.result()

    def remaining(self) -> Iterator[R]:
        """Yield the results of what is still running, once it was stopped; those that raise are left out."""
        for future in list(self._running):
            with contextlib.suppress(Exception):
                yield future.result()


class SlotGate:
    """Lets as many threads in at once as there are slots; a context manager. ``slots`` is asked each time."""

    def __init__(self, slots: Callable[[], int]) -> None:
        self._slots = slots
        self._changed = threading.Condition()
        self._inside = 0

    def __enter__(self) -> SlotGate:
        with self._changed:
            while self._inside >= max(1, self._slots()):
                self._changed.wait(_LOOK_SECONDS)
            self._inside += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify()
