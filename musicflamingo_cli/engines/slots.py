"""Which thread may use which slot of the resident process, and when that process is started, restarted and ended."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from musicflamingo_cli.engines.resident_process import Died, ResidentProcess
from musicflamingo_cli.errors import StoppedError
from musicflamingo_cli.types import Clip

P = TypeVar("P", bound=ResidentProcess)
# Starts a process whose slots hold at least so many tokens; passes it to the second argument before waiting for it.
Start = Callable[[int, Callable[[P], None]], P]


@dataclass(frozen=True, slots=True)
class Slot(Generic[P]):
    """A slot that a thread has acquired."""

    process: P
    number: int


class Slots(Generic[P]):
    """Hands out the slots of one process. One condition guards all state; ``stop`` may be called at any time."""

    def __init__(self, start: Start[P]) -> None:
        """``start`` is called with the lock held, whenever a process is needed."""
        self._start = start
        self._changed = threading.Condition()
        self._process: P | None = None
        self._free: list[int] = []  # the least recently used first
        self._clips: dict[int, Path] = {}  # the clip in each slot's memory
        self._busy = 0
        self._is_exclusive = False  # whether the one slot in use was acquired exclusively
        self._largest = 0  # tokens that some clip has needed
        self._waiting_exclusive = 0
        self._stopped = False

    @contextlib.contextmanager
    def acquire(self, context: int, clip: Clip, exclusive: bool = False) -> Iterator[Slot[P]]:
        """Wait for a free slot of at least ``context`` tokens; with ``exclusive``, until no other slot is in use.

        Starts the process where none runs, and restarts it where its slots are too small. Raises StoppedError after
        ``stop``.
        """
        slot = self._take(context, clip, exclusive)
        try:
            yield slot
        finally:
            self._release(slot)

    def end(self, process: P) -> bool:
        """End this process; return whether it was still in use (several threads notice the same death)."""
        with self._changed:
            if self._process is not process or self._stopped:
                return False
            self._end_process()
            return True

    def raise_if_stopped(self) -> None:
        """Raise StoppedError after ``stop``: then the process died because we ended it."""
        if self._stopped:
            raise StoppedError("the run was stopped before the answer arrived", "run the same command again")

    def stop(self) -> None:
        """End the process and with it all requests in progress; nothing starts afterwards."""
        self._stopped = True  # before the lock: a thread that waits for the process to load holds it
        if (process := self._process) is not None:
            process.close()
        with self._changed:
            self._end_process()
            self._changed.notify_all()

    def _take(self, context: int, clip: Clip, exclusive: bool) -> Slot[P]:
        with self._changed:
            self._largest = max(self._largest, context)
            self._waiting_exclusive += exclusive
            try:
                while not self._may_enter(exclusive):
                    self._changed.wait()
                process = self._running()
            finally:
                self._waiting_exclusive -= exclusive
                self._changed.notify_all()
            number = next((n for n in self._free if self._clips.get(n) == clip.path), self._free[0])
            self._free.remove(number)
            self._clips[number] = clip.path
            self._busy += 1
            self._is_exclusive = exclusive
            return Slot(process, number)

    def _may_enter(self, exclusive: bool) -> bool:
        self.raise_if_stopped()
        if self._is_exclusive:
            return False
        if exclusive or self._process is None or self._process.context < self._largest:
            return self._busy == 0
        return bool(self._free) and not self._waiting_exclusive

    def _running(self) -> P:
        """Return a process whose slots are large enough; start it where there is none."""
        if self._process is not None and self._process.context < self._largest:
            self._end_process()
        if self._process is None:
            try:
                self._process = self._start(self._largest, self._register)
            except BaseException:
                self._end_process()
                raise
            self._free, self._clips = list(range(self._process.slots)), {}
        return self._process

    def _register(self, process: P) -> None:
        """Remember a process that is still loading, so that ``stop`` can end it."""
        self._process = process
        if self._stopped:
            raise Died("stopped while loading")

    def _release(self, slot: Slot[P]) -> None:
        with self._changed:
            self._busy -= 1
            self._is_exclusive = False
            if self._process is slot.process:
                self._free.append(slot.number)
            self._changed.notify_all()

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None
        self._free = []
