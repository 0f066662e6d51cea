"""Engine pool: a clip goes to the least loaded member that works; the clip of one that fails goes to another, once."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from musicflamingo_cli.engines.contract import Engine
from musicflamingo_cli.engines.observer import UNOBSERVED, Observer
from musicflamingo_cli.engines.pool.member import Member, MemberStatus
from musicflamingo_cli.engines.pool.roster import Roster, stopped
from musicflamingo_cli.errors import (
    AnswerCancelledError,
    EngineError,
    FailureKind,
    ModelError,
    StoppedError,
    TimedOutError,
    ToolMissingError,
    TooLongError,
)
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling

_MEMBERS_FAULT = (FailureKind.ENGINE, FailureKind.TIMEOUT)
_OF_THE_CLIP = (TooLongError, AnswerCancelledError, StoppedError)  # errors that say nothing about the member


class _RestartedError(EngineError):
    """A member was replaced, because another clip hung there, before it answered."""


class _End:
    """In place of a result: there are no more."""


_Item = Answer | Failure | BaseException | _End


class PoolEngine:
    """Several engines as one; see ``Engine``. It fails only when all of its members have failed for some time."""

    def __init__(self, members: Sequence[Member[Engine]], idle_limit: float) -> None:
        """``idle_limit``: the seconds without a result after which a member hangs; loading a model counts."""
        self._roster = Roster(members)
        self._idle_limit = idle_limit
        self._waiting: set[queue.SimpleQueue[_Item]] = set()  # of the clips in progress

    @property
    def name(self) -> str:
        """The members' name where they have the same, else `pool`."""
        names = {engine.name for engine in self._engines}
        return names.pop() if len(names) == 1 else "pool"

    @property
    def provenance(self) -> Mapping[str, str]:
        """What all members have in common; each answer carries its own member's."""
        first, *others = (engine.provenance for engine in self._engines)
        return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}

    @property
    def slots(self) -> int:
        """How many clips the members that work take at once; at least one."""
        return self._roster.slots

    @property
    def members(self) -> list[MemberStatus]:
        """How each member is."""
        return self._roster.status()

    @property
    def _engines(self) -> list[Engine]:
        return [member.worker for member in self._roster.all]

    def expected_audio_tokens(self, clip: Clip) -> int:
        """The least that any member expects; each answer carries its own member's."""
        return min(engine.expected_audio_tokens(clip) for engine in self._engines)

    def describe(
        self,
        clip: Clip,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        observer: Observer = UNOBSERVED,
    ) -> Iterator[Answer | Failure]:
        """Yield one result for each prompt; see ``Engine.describe``.

        Where a member fails, another one answers the prompts that are left; where that fails, too, its error is raised.
        """
        pending = {prompt.preset: prompt for prompt in prompts}
        failed: Member[Engine] | None = None
        for is_last in (False, True):
            member = self._roster.take(clip.path, failed)
            observer.placed(member.name)
            held: list[Failure] = []
            answered = 0
            try:
                for result in self._results_of(member, clip, list(pending.values()), sampling, observer):
                    if isinstance(result, Failure) and result.kind in _MEMBERS_FAULT:
                        held.append(result)
                        continue
                    answered += 1
                    del pending[result.preset if isinstance(result, Failure) else result.prompt.preset]
                    yield result
            except _OF_THE_CLIP:
                raise
            except (EngineError, ModelError, ToolMissingError) as error:
                self._note_failure(member, error)
                if is_last:
                    raise
            else:
                if answered or not held:
                    self._roster.note_success(member)
                else:
                    self._roster.leave_out(member, EngineError(held[0].reason, held[0].hint))
                if answered or not held or is_last:
                    yield from held
                    return
            failed = member

    def _note_failure(self, member: Member[Engine], error: Exception) -> None:
        """Leave a member out, but not for a clip that ended because it was replaced: the one that hung has counted."""
        if not isinstance(error, _RestartedError):
            self._roster.leave_out(member, error)

    def leave_out(self, name: str, error: Exception) -> None:
        """Leave a member out because of an error that was noticed outside of the pool."""
        for member in self._roster.all:
            if member.name == name:
                self._roster.leave_out(member, error)

    def close(self) -> None:
        """Stop all members, from any thread; clips in progress raise StoppedError."""
        with self._roster.changed:
            self._roster.is_stopped = True  # with the lock, so that no clip begins unnoticed
            waiting = list(self._waiting)
        for results in waiting:
            results.put(stopped())
        self._roster.close()

    def _results_of(
        self,
        member: Member[Engine],
        clip: Clip,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        observer: Observer,
    ) -> Iterator[Answer | Failure]:
        """Yield a member's results. Raises what it raises, TimedOutError where it hangs, StoppedError."""
        engine, results = member.worker, queue.SimpleQueue[_Item]()
        abandoned = threading.Event()

        def work() -> None:
            try:
                for result in engine.describe(clip, prompts, sampling, observer):
                    results.put(result)
                    if abandoned.is_set():
                        break
                last: _Item = _End()
            except BaseException as error:
                last = error
            self._roster.give_back(member, engine)
            results.put(last)

        with self._roster.changed:
            if self._roster.is_stopped:
                results.put(stopped())
            self._waiting.add(results)
        threading.Thread(target=work, daemon=True, name=f"pool {member.name}").start()
        try:
            while True:
                try:
                    item = results.get(timeout=self._idle_limit)
                except queue.Empty:
                    error = TimedOutError(f"no answer within {self._idle_limit:g} s", "allow more with --timeout")
                    self._roster.leave_out(member, error, hangs=True)
                    raise error from None
                if isinstance(item, _End):
                    return
                if isinstance(item, StoppedError) and not self._roster.is_stopped:  # beside a clip that hung
                    raise _RestartedError(f"{member.name} was restarted before it answered", item.hint) from item
                if isinstance(item, BaseException):
                    raise item
                yield _of_member(item, engine, clip)
        finally:
            abandoned.set()
            with self._roster.changed:
                self._waiting.discard(results)


def _of_member(result: Answer | Failure, engine: Engine, clip: Clip) -> Answer | Failure:
    """An answer with what its own member says of itself."""
    if isinstance(result, Failure):
        return result
    made = {"engine": engine.name, **engine.provenance, **result.provenance}
    return replace(result, provenance=made, expected_audio_tokens=engine.expected_audio_tokens(clip))
