"""Which thread may use which slot of the one resident process, and when that is started, started anew, and ended."""

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
# Starts a process whose slots hold at least so many tokens, and calls the second argument before waiting for it.
Start = Callable[[int, Callable[[P], None]], P]


@dataclass(frozen=True, slots=True)
class Slot(Generic[P]):
    """A slot on loan."""

    process: P
    number: int


class Slots(Generic[P]):
    """Lends slots. All state is guarded by one condition; ``stop`` alone may come from any thread at any time."""

    def __init__(self, start: Start[P]) -> None:
        self._start = start
        self._changed = threading.Condition()
        self._process: P | None = None
        self._free: list[int] = []  # the longest unused first
        self._heard: dict[int, Path] = {}  # the clip in each slot's memory
        self._busy = 0
        self._is_alone = False  # whether the one slot in use is lent alone
        self._largest = 0  # tokens that some clip has needed
        self._waiting_alone = 0
        self._stopped = False

    @contextlib.contextmanager
    def lend(self, context: int, clip: Clip, alone: bool = False) -> Iterator[Slot[P]]:
        """A slot of at least ``context`` tokens, when one is free; ``alone``: while no other is in use.

        Starts the process where none runs, and again where it is too small. Raises StoppedError after ``stop``.
        """
        slot = self._take(context, clip, alone)
        try:
            yield slot
        finally:
            self._give_back(slot)

    def end(self, process: P) -> bool:
        """End this process; whether it was still in use (several threads see the same death)."""
        with self._changed:
            if self._process is not process or self._stopped:
                return False
            self._end_process()
            return True

    def raise_if_stopped(self) -> None:
        """Raises StoppedError after ``stop``: what looks like a death was our doing."""
        if self._stopped:
            raise StoppedError("stopped before it was answered", "run the same command again")

    def stop(self) -> None:
        """End the process, and with it all that is asked of it; nothing starts afterwards."""
        self._stopped = True  # before the lock: a thread that waits for it to load holds it
        if (process := self._process) is not None:
            process.close()
        with self._changed:
            self._end_process()
            self._changed.notify_all()

    def _take(self, context: int, clip: Clip, alone: bool) -> Slot[P]:
        with self._changed:
            self._largest = max(self._largest, context)
            self._waiting_alone += alone
            try:
                while not self._may_enter(alone):
                    self._changed.wait()
                process = self._running()
            finally:
                self._waiting_alone -= alone
                self._changed.notify_all()
            number = next((n for n in self._free if self._heard.get(n) == clip.path), self._free[0])
            self._free.remove(number)
            self._heard[number] = clip.path
            self._busy += 1
            self._is_alone = alone
            return Slot(process, number)

    def _may_enter(self, alone: bool) -> bool:
        self.raise_if_stopped()
        if self._is_alone:
            return False
        if alone or self._process is None or self._process.context < self._largest:
            return self._busy == 0
        return bool(self._free) and not self._waiting_alone

    def _running(self) -> P:
        if self._process is not None and self._process.context < self._largest:
            self._end_process()
        if self._process is None:
            try:
                self._process = self._start(self._largest, self._note)
            except BaseException:
                self._end_process()
                raise
            self._free, self._heard = list(range(self._process.slots)), {}
        return self._process

    def _note(self, process: P) -> None:
        """A process that is loading: known already, so that ``stop`` can end it."""
        self._process = process
        if self._stopped:
            raise Died("stopped while loading")

    def _give_back(self, slot: Slot[P]) -> None:
        with self._changed:
            self._busy -= 1
            self._is_alone = False
            if self._process is slot.process:
                self._free.append(slot.number)
            self._changed.notify_all()

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None
        self._free = []
