"""A member of a pool: what works (an engine, an actor), whether it does, and how much it has done."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Generic, Protocol, TypeVar, runtime_checkable

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)  # seconds before a member that failed is tried again, each time
_LOST_AFTER = 5  # failures in a row, half a minute: a pool of such members only has ended


class MemberState(StrEnum):
    """Whether a member gets clips."""

    READY = "ready"
    RESTING = "resting"  # it failed, and is tried again after a pause
    LOST = "lost"  # it failed again and again; still tried, but nothing waits for it


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """A member as a person sees it. ``clips``: answered so far; ``per_hour``: their rate since its first one began."""

    name: str
    state: MemberState
    busy: int
    slots: int
    clips: int
    per_hour: float


class Worker(Protocol):
    """What a member is made of: an engine, or an actor on another machine."""

    @property
    def slots(self) -> int:
        """How many clips it works on at once."""
        ...

    def close(self) -> None:
        """Stop all work, from any thread."""
        ...


@runtime_checkable
class Pingable(Protocol):
    """A worker that can tell whether it works without a clip."""

    def ping(self) -> None:
        """Return where it works. Raises NotYetError where it is starting, else a MusicFlamingoError."""


class NotYetError(Exception):
    """A worker has not started yet; that is no failure, and it may be asked again at once."""


W = TypeVar("W", bound=Worker)


class Member(Generic[W]):
    """A worker in a pool. ``open`` makes another one in its place after it hung. The pool's lock guards all of it."""

    def __init__(self, name: str, open: Callable[[], W], worker: W | None = None) -> None:
        """Open the worker, unless it is given. Raises what ``open`` raises."""
        self.name = name
        self.worker = worker or open()
        self._open = open
        self.hangs = False
        self.busy = 0
        self.clips = 0
        self.failures = 0  # in a row
        self.due: float | None = None  # when it is tried again (monotonic); None: it is ready
        self.is_being_tried = False
        self.last_error: Exception | None = None
        self._first_began: float | None = None
        self._recent: deque[Path] = deque(maxlen=max(1, self.worker.slots))

    @property
    def is_lost(self) -> bool:
        """Whether it failed so often that nothing waits for it."""
        return self.due is not None and self.failures >= _LOST_AFTER

    @property
    def per_hour(self) -> float:
        """Clips an hour since its first one began."""
        if self._first_began is None or not self.clips:
            return 0.0
        return self.clips * 3600 / max(1e-9, time.monotonic() - self._first_began)

    def order(self, clip: Path) -> tuple[bool, float, float]:
        """Return by what the member for a clip is chosen: who knows it, then the least loaded, then the fastest."""
        return clip not in self._recent, self.busy / self.worker.slots, -self.per_hour

    def begin(self, clip: Path) -> None:
        """Note that a clip was given to it."""
        self.busy += 1
        if clip not in self._recent:
            self._recent.append(clip)
        if self._first_began is None:
            self._first_began = time.monotonic()

    def succeeded(self) -> None:
        """Note a clip that it answered."""
        self.clips += 1
        self.failures = 0

    def failed(self, error: Exception, hangs: bool = False) -> float:
        """Leave it out for a while; return for how many seconds. Several clips that fail together count once."""
        self.last_error = error
        self.hangs = self.hangs or hangs
        if self.due is None or self.is_being_tried:
            self.failures += 1
            self.due = time.monotonic() + PAUSES[min(self.failures, len(PAUSES)) - 1]
        return max(0.0, self.due - time.monotonic())

    def start_later(self) -> None:
        """Leave it out until its first ping is answered."""
        self.due = time.monotonic()

    def reopen(self) -> None:
        """Replace a worker that hung. Raises what opening it raises. Without the pool's lock."""
        self.worker.close()
        self.worker = self._open()
        self.busy = 0
        self.hangs = False

    def status(self) -> MemberStatus:
        """Return how it is."""
        state = MemberState.LOST if self.is_lost else MemberState.READY if self.due is None else MemberState.RESTING
        return MemberStatus(
            name=self.name,
            state=state,
            busy=self.busy,
            slots=self.worker.slots,
            clips=self.clips,
            per_hour=self.per_hour,
        )
