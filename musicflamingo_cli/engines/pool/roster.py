"""The members of a pool: which one gets a clip, and how those that fail are left out and taken back."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Generic

from musicflamingo_cli.engines.pool.member import Member, MemberStatus, NotYetError, Pingable, W
from musicflamingo_cli.errors import EngineError, ModelError, MusicFlamingoError, StoppedError, ToolMissingError

logger = logging.getLogger(__name__)

_CLOSING_SECONDS = 10.0
_COUNTED_FOR = 0.1  # seconds; who comes for a slot that is gone by then waits for the next


class Roster(Generic[W]):
    """Hands out members. One lock guards all state; every method may be called from any thread.

    Who waits for a member waits for ``changed``. What tries members again has a condition of its own: woken by each
    clip that ends, it would go through all members each time, and with a thousand that costs more than the clip.
    """

    def __init__(self, members: Sequence[Member[W]], patience: float = 0.0) -> None:
        """``patience``: for how many seconds to wait for a member to come back where all are lost."""
        self._patience = patience
        self.all = list(members)
        lock = threading.RLock()
        self.changed = threading.Condition(lock)
        self._states_changed = threading.Condition(lock)
        self.is_stopped = False
        self._keeper: threading.Thread | None = None
        self._slots, self._count_again = 1, 0.0
        if any(member.due is not None for member in members):
            self._start_keeper()

    @property
    def slots(self) -> int:
        """How many clips the members that work take at once; at least one."""
        now = time.monotonic()
        if now >= self._count_again:  # it is asked several times for each clip, and there may be a thousand members
            self._slots = max(1, sum(member.worker.slots for member in self.all if member.due is None))
            self._count_again = now + _COUNTED_FOR
        return self._slots

    def status(self) -> list[MemberStatus]:
        """Return how each member is."""
        with self.changed:
            return [member.status() for member in self.all]

    def take(self, clip: Path, failed: Member[W] | None = None) -> Member[W]:
        """Wait for a member with room and take it; not the one that ``failed``, where there is another.

        ``clip`` identifies what it is for: a member that had it before is preferred. Raises StoppedError, and what the
        members failed with where all are lost.
        """
        give_up: float | None = None
        with self.changed:
            while True:
                if self.is_stopped:
                    raise stopped()
                free = [member for member in self.all if member.due is None and member.busy < member.worker.slots]
                if failed in free and any(each is not failed and not each.is_lost for each in self.all):
                    free.remove(failed)
                if free:
                    member = min(free, key=lambda each: each.order(clip))
                    member.begin(clip)
                    return member
                if not all(member.is_lost for member in self.all):
                    give_up = None
                elif time.monotonic() >= (give_up := give_up or time.monotonic() + self._patience):
                    raise self._all_lost()
                self.changed.wait(1.0)

    def give_back(self, member: Member[W], worker: W) -> None:
        """Free the slot of a clip, unless the member has got another worker since."""
        with self.changed:
            if member.worker is worker:
                member.busy -= 1
            self.changed.notify_all()

    def note_success(self, member: Member[W]) -> None:
        """Count a clip that a member answered."""
        with self.changed:
            member.succeeded()

    def leave_out(self, member: Member[W], error: Exception, hangs: bool = False) -> None:
        """Leave a member that failed out for a while; with ``hangs``, it is replaced before it is taken back."""
        with self.changed:
            if self.is_stopped:
                return
            is_news = member.due is None
            seconds = member.failed(error, hangs)
            self._start_keeper()
            self._notify_of_states()
        if is_news:
            logger.warning("%s failed and is left out for %.0f s: %s", member.name, seconds, error)

    def close(self) -> None:
        """Stop all members; whoever waits for one gets StoppedError."""
        with self.changed:
            self.is_stopped = True
            self._notify_of_states()
        closing = [threading.Thread(target=member.worker.close, daemon=True) for member in self.all]
        for thread in closing:
            thread.start()
        deadline = time.monotonic() + _CLOSING_SECONDS
        for thread in closing:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _notify_of_states(self) -> None:
        self._count_again = 0.0
        self.changed.notify_all()
        self._states_changed.notify_all()

    def _all_lost(self) -> MusicFlamingoError:
        errors = [member.last_error for member in self.all]
        last = errors[-1]
        if all(isinstance(error, (ModelError, ToolMissingError)) for error in errors):
            assert isinstance(last, MusicFlamingoError)
            return last
        hint = last.hint if isinstance(last, MusicFlamingoError) else ""
        many = f"all {len(errors)} engines have failed; the last: " if len(errors) > 1 else ""
        return EngineError(f"{many}{self.all[-1].name}: {last}", hint)

    def _start_keeper(self) -> None:
        if self._keeper is None:
            self._keeper = threading.Thread(target=self._keep, daemon=True, name="pool keeper")
            self._keeper.start()

    def _keep(self) -> None:
        """Try members that failed again, each when its pause is over, until the pool is closed."""
        with self.changed:
            while not self.is_stopped:
                for member in self._due():
                    member.is_being_tried = True
                    threading.Thread(target=self._try_again, args=(member,), daemon=True).start()
                pauses = [due - time.monotonic() for member in self.all if (due := self._next_try(member)) is not None]
                self._states_changed.wait(max(0.01, min(pauses, default=1.0)))

    def _due(self) -> Iterator[Member[W]]:
        for member in self.all:
            if (due := self._next_try(member)) is not None and due <= time.monotonic():
                yield member

    @staticmethod
    def _next_try(member: Member[W]) -> float | None:
        return None if member.is_being_tried else member.due

    def _try_again(self, member: Member[W]) -> None:
        """Take a member back where it can be opened and answers a ping, else leave it out for longer."""
        problem: Exception | None = None
        try:
            if member.hangs:
                member.reopen()
            if isinstance(member.worker, Pingable):
                member.worker.ping()
        except Exception as error:  # whatever it is, the member does not work
            problem = error
        with self.changed:
            was_new = member.last_error is None
            if problem is None:
                member.due = None
            elif isinstance(problem, NotYetError):
                member.due = time.monotonic()
            else:
                member.failed(problem)
            member.is_being_tried = False
            is_stopped = self.is_stopped
            self._notify_of_states()
        if problem is None and is_stopped:
            with contextlib.suppress(MusicFlamingoError):
                member.worker.close()  # it was opened while the pool was being closed
        elif problem is None and not was_new:
            logger.info("%s works again", member.name)
        elif was_new and not is_stopped and not isinstance(problem, (NotYetError, type(None))):
            logger.warning("%s does not start: %s", member.name, problem)


def stopped() -> StoppedError:
    """Return the error of a clip that the end of the run leaves without an answer."""
    return StoppedError("the run was stopped before the answer arrived", "run the same command again")
