"""Engine pool: a clip goes to the least loaded member that works; the clip of one that fails goes to another, once."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from musicflamingo_cli.engines.contract import Engine
from musicflamingo_cli.engines.pool.member import Member, MemberStatus, Pingable
from musicflamingo_cli.errors import (
    AnswerCancelledError,
    EngineError,
    FailureKind,
    ModelError,
    MusicFlamingoError,
    StoppedError,
    TimedOutError,
    ToolMissingError,
    TooLongError,
)
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling

logger = logging.getLogger(__name__)

_MEMBERS_FAULT = (FailureKind.ENGINE, FailureKind.TIMEOUT)
_OF_THE_CLIP = (TooLongError, AnswerCancelledError, StoppedError)  # errors that say nothing about the member
_CLOSING_SECONDS = 10.0


class _End:
    """In place of a result: there are no more."""


_Item = Answer | Failure | BaseException | _End


class PoolEngine:
    """Several engines as one; see ``Engine``. It fails only when all of its members have failed for some time."""

    def __init__(self, members: Sequence[Member], idle_limit: float) -> None:
        """``idle_limit``: the seconds without a result after which a member hangs; loading a model counts."""
        self._members = list(members)
        self._idle_limit = idle_limit
        self._changed = threading.Condition()
        self._stopped = False
        self._waiting: set[queue.SimpleQueue[_Item]] = set()  # of the clips in progress
        self._keeper: threading.Thread | None = None

    @property
    def name(self) -> str:
        """The members' name where they have the same, else `pool`."""
        names = {member.engine.name for member in self._members}
        return names.pop() if len(names) == 1 else "pool"

    @property
    def provenance(self) -> Mapping[str, str]:
        """What all members have in common; each answer carries its own member's."""
        first, *others = (member.engine.provenance for member in self._members)
        return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}

    @property
    def slots(self) -> int:
        """How many clips the members that work take at once; at least one."""
        return max(1, sum(member.engine.slots for member in self._members if member.due is None))

    @property
    def members(self) -> list[MemberStatus]:
        """How each member is."""
        with self._changed:
            return [member.status() for member in self._members]

    def expected_audio_tokens(self, clip: Clip) -> int:
        """The least that any member expects; each answer carries its own member's."""
        return min(member.engine.expected_audio_tokens(clip) for member in self._members)

    def describe(
        self,
        clip: Clip,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        on_text: Callable[[str], None] | None = None,
    ) -> Iterator[Answer | Failure]:
        """Yield one result for each prompt; see ``Engine.describe``.

        Where a member fails, another one answers the prompts that are left; where that fails, too, its error is raised.
        """
        pending = {prompt.preset: prompt for prompt in prompts}
        failed: Member | None = None
        for is_last in (False, True):
            member = self._take(clip, failed)
            held: list[Failure] = []
            answered = 0
            try:
                for result in self._results_of(member, clip, list(pending.values()), sampling, on_text):
                    if isinstance(result, Failure) and result.kind in _MEMBERS_FAULT:
                        held.append(result)
                        continue
                    answered += 1
                    del pending[result.preset if isinstance(result, Failure) else result.prompt.preset]
                    yield result
            except _OF_THE_CLIP:
                raise
            except (EngineError, ModelError, ToolMissingError) as error:
                self._leave_out(member, error)
                if is_last:
                    raise
            else:
                if answered or not held:
                    self._note_success(member)
                else:
                    self._leave_out(member, EngineError(held[0].reason, held[0].hint))
                if answered or not held or is_last:
                    yield from held
                    return
            failed = member

    def leave_out(self, name: str, error: Exception) -> None:
        """Leave a member out because of an error that was noticed outside of the pool."""
        for member in self._members:
            if member.name == name:
                self._leave_out(member, error)

    def close(self) -> None:
        """Stop all members, from any thread; clips in progress raise StoppedError."""
        with self._changed:
            self._stopped = True
            for results in self._waiting:
                results.put(_stopped())
            self._changed.notify_all()
        closing = [threading.Thread(target=member.engine.close, daemon=True) for member in self._members]
        for thread in closing:
            thread.start()
        deadline = time.monotonic() + _CLOSING_SECONDS
        for thread in closing:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _take(self, clip: Clip, failed: Member | None) -> Member:
        """Wait for a member with room and take it; not the one that ``failed``, where there is another.

        Raises StoppedError, and what the members failed with where all are lost.
        """
        with self._changed:
            while True:
                if self._stopped:
                    raise _stopped()
                others = [member for member in self._members if member is not failed and not member.is_lost]
                free = [member for member in others or self._members if member.has_room]
                if free:
                    member = min(free, key=lambda each: each.order(clip.path))
                    member.begin(clip.path)
                    return member
                if all(member.is_lost for member in self._members):
                    raise self._all_lost()
                self._changed.wait(1.0)

    def _all_lost(self) -> MusicFlamingoError:
        errors = [member.last_error for member in self._members]
        last = errors[-1]
        if all(isinstance(error, (ModelError, ToolMissingError)) for error in errors):
            assert isinstance(last, MusicFlamingoError)
            return last
        hint = last.hint if isinstance(last, MusicFlamingoError) else ""
        many = f"all {len(errors)} engines have failed; the last: " if len(errors) > 1 else ""
        return EngineError(f"{many}{self._members[-1].name}: {last}", hint)

    def _results_of(
        self,
        member: Member,
        clip: Clip,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        on_text: Callable[[str], None] | None,
    ) -> Iterator[Answer | Failure]:
        """Yield a member's results. Raises what it raises, TimedOutError where it hangs, StoppedError."""
        engine, results = member.engine, queue.SimpleQueue[_Item]()
        abandoned = threading.Event()

        def work() -> None:
            try:
                for result in engine.describe(clip, prompts, sampling, on_text):
                    results.put(result)
                    if abandoned.is_set():
                        break
                last: _Item = _End()
            except BaseException as error:
                last = error
            self._give_back(member, engine)
            results.put(last)

        with self._changed:
            self._waiting.add(results)
        threading.Thread(target=work, daemon=True, name=f"pool {member.name}").start()
        try:
            while True:
                try:
                    item = results.get(timeout=self._idle_limit)
                except queue.Empty:
                    error = TimedOutError(f"no answer within {self._idle_limit:g} s", "allow more with --timeout")
                    self._leave_out(member, error, hangs=True)
                    raise error from None
                if isinstance(item, _End):
                    return
                if isinstance(item, BaseException):
                    raise item
                yield _of_member(item, engine, clip)
        finally:
            abandoned.set()
            with self._changed:
                self._waiting.discard(results)

    def _give_back(self, member: Member, engine: Engine) -> None:
        """Free the slot of a clip, unless the member has got another engine since."""
        with self._changed:
            if member.engine is engine:
                member.busy -= 1
            self._changed.notify_all()

    def _note_success(self, member: Member) -> None:
        with self._changed:
            member.succeeded()

    def _leave_out(self, member: Member, error: Exception, hangs: bool = False) -> None:
        with self._changed:
            if self._stopped:
                return
            is_news = member.due is None
            seconds = member.failed(error, hangs)
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, daemon=True, name="pool keeper")
                self._keeper.start()
            self._changed.notify_all()
        if is_news:
            logger.warning("%s failed and is left out for %.0f s: %s", member.name, seconds, error)

    def _keep(self) -> None:
        """Try members that failed again, each when its pause is over, until the pool is closed."""
        with self._changed:
            while not self._stopped:
                resting = [member for member in self._members if member.due is not None and not member.is_being_tried]
                for member in resting:
                    if member.due is not None and member.due <= time.monotonic():
                        member.is_being_tried = True
                        threading.Thread(target=self._try_again, args=(member,), daemon=True).start()
                self._changed.wait(
                    min((max(0.01, each.due - time.monotonic()) for each in resting if each.due), default=1)
                )

    def _try_again(self, member: Member) -> None:
        """Take a member back where it can be opened and answers a ping, else leave it out for longer."""
        problem: Exception | None = None
        try:
            if member.hangs:
                member.reopen()
            if isinstance(member.engine, Pingable):
                member.engine.ping()
        except Exception as error:  # whatever it is, the member does not work
            problem = error
        with self._changed:
            if problem is None:
                member.due = None
            else:
                member.failed(problem)
            member.is_being_tried = False
            self._changed.notify_all()
            if self._stopped and problem is None:
                with contextlib.suppress(MusicFlamingoError):
                    member.engine.close()  # it was opened while the pool was being closed
        if problem is None and not self._stopped:
            logger.info("%s works again", member.name)


def _of_member(result: Answer | Failure, engine: Engine, clip: Clip) -> Answer | Failure:
    """An answer with what its own member says of itself."""
    if isinstance(result, Failure):
        return result
    made = {"engine": engine.name, **engine.provenance, **result.provenance}
    return replace(result, provenance=made, expected_audio_tokens=engine.expected_audio_tokens(clip))


def _stopped() -> StoppedError:
    return StoppedError("the run was stopped before the answer arrived", "run the same command again")
