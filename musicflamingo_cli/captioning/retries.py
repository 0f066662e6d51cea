"""A batch with retries: every track once, then those that failed temporarily or were in progress elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from musicflamingo_cli.captioning.batch import (
    IN_PROGRESS_ELSEWHERE,
    Dataset,
    Task,
    claim_and_caption,
    run_batch,
    scan,
)
from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.engines.observer import UNOBSERVED, Observer
from musicflamingo_cli.errors import BatchStoppedError
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.types import Outcome, Track

logger = logging.getLogger(__name__)

PAUSES = (1.0, 5.0)  # seconds before each retry of what failed temporarily
MOST_PENDING = 1000  # tracks; when more fail, the fault is not temporary
_TOO_MANY_IN_A_ROW = 10  # tracks that failed although none of them is to blame


class TrackCaptioner(Protocol):
    """What a batch needs of whatever captions its tracks, here or on other machines."""

    @property
    def slots(self) -> int:
        """How many tracks it captions at once; the number may change while it works."""
        ...

    def caption(
        self,
        track: Track,
        presets: Sequence[Preset],
        info: Mapping[str, Any],
        *,
        save: bool,
        observer: Observer = UNOBSERVED,
    ) -> Outcome:
        """Ask ``presets`` about a track; ``info`` is its sidecar's data. From any thread.

        Raises ToolMissingError and ModelError, which concern every track, and nothing else.
        """
        ...

    def close(self) -> None:
        """Stop all work, from any thread; tracks in progress end as interrupted."""
        ...


class Watcher(Protocol):
    """What follows a batch, called in the thread noted."""

    def starting(self, audio: Path) -> Observer:
        """A track is in progress (any thread); what is returned follows it."""
        ...

    def ended(self, audio: Path) -> None:
        """A track is no longer in progress, finished or not (the thread of ``run``)."""

    def settled(self, outcome: Outcome) -> None:
        """A track's final outcome, once for every track (the thread of ``run``)."""


class RetryingBatch:
    """Runs a selection over datasets, and reports to ``watcher``.

    ``keep_going``: do not stop when many tracks in a row fail.
    """

    def __init__(
        self, datasets: Sequence[Dataset], captioner: TrackCaptioner, watcher: Watcher, keep_going: bool = False
    ) -> None:
        self._datasets = datasets
        self._captioner = captioner
        self._watcher = watcher
        self._pending: dict[Path, Outcome | None] = {}  # None: in progress elsewhere, nothing known of it
        self._failures = FailuresInARow(is_ignored=keep_going)

    def run(self, selection: Selection) -> int:
        """Caption the selection; return how many tracks are left to other processes. Raises BatchStoppedError."""
        try:
            self._round(selection, is_first=True)
            for pause in PAUSES:
                if not self._pending:
                    break
                if failed := sum(outcome is not None for outcome in self._pending.values()):
                    logger.info("%d tracks failed temporarily; retrying in %g s", failed, pause)
                    time.sleep(pause)
                only = frozenset(audio.absolute() for audio in self._pending)
                self._round(replace(selection, only=only, limit=None), is_first=False)
        finally:
            left = [outcome for outcome in self._pending.values() if outcome is not None]
            elsewhere = len(self._pending) - len(left)
            for outcome in left:
                self._watcher.settled(outcome)
        return elsewhere

    def _round(self, selection: Selection, is_first: bool) -> None:
        def caption(task: Task) -> Outcome:
            observer = self._watcher.starting(task.track.audio)
            return self._captioner.caption(task.track, task.presets, task.info, save=selection.save, observer=observer)

        def done(outcome: Outcome) -> None:
            self._watcher.ended(outcome.track.audio)
            self._settle_or_keep(outcome)
            if is_first:
                self._failures.note(outcome)

        items = scan(self._datasets, selection)
        if not is_first:  # not again what is skipped or cannot be read
            items = (item for item in items if item.track.audio in self._pending)
        captioner = self._captioner
        run_batch(
            items,
            lambda task: claim_and_caption(caption, task, selection),
            lambda: captioner.slots,
            captioner.close,
            done,
        )

    def _settle_or_keep(self, outcome: Outcome) -> None:
        """Report an outcome as final, or keep the track for a retry."""
        audio = outcome.track.audio
        before = self._pending.pop(audio, None)
        if outcome.skipped == IN_PROGRESS_ELSEWHERE:
            self._pending[audio] = before
            return
        if before is not None:
            outcome = merged_tries(before, outcome)
        if is_temporary(outcome) and len(self._pending) < MOST_PENDING:
            self._pending[audio] = outcome
        else:
            self._watcher.settled(outcome)


class FailuresInARow:
    """Ends a run where many tracks in a row fail and none of them is to blame; not where ``is_ignored``."""

    def __init__(self, is_ignored: bool) -> None:
        self._is_ignored = is_ignored
        self._count = 0

    def note(self, outcome: Outcome) -> None:
        """Count an outcome. Raises BatchStoppedError.

        Tracks that are to blame themselves (silent, unreadable) do not count either way.
        """
        if outcome.saved or (outcome.captions and not outcome.failures):
            self._count = 0
        if not outcome.failures or outcome.saved or not all(f.kind.blames_engine for f in outcome.failures):
            return
        self._count += 1
        if self._count >= _TOO_MANY_IN_A_ROW and not self._is_ignored:
            last = outcome.failures[-1]
            raise BatchStoppedError(
                f"{self._count} tracks in a row got no caption; the last: {last.kind}: {last.reason}",
                "find the cause with: musicflamingo doctor; or continue anyway with --keep-going",
            )


def is_temporary(outcome: Outcome) -> bool:
    """Return whether a track failed for reasons that may go away."""
    return bool(outcome.failures) and all(failure.kind.is_transient for failure in outcome.failures)


def merged_tries(before: Outcome, now: Outcome) -> Outcome:
    """Two tries of one track as one outcome; a temporary failure counts only if it happened again."""
    repeated = {caption.preset for caption in now.captions}  # where the first answers could not be saved
    # Answers that could not be saved count only where nothing was found in their place.
    was_answered = (before.captions or before.segments) and (before.saved or not now.skipped)
    return Outcome(
        track=now.track,
        captions=tuple(each for each in before.captions if was_answered and each.preset not in repeated) + now.captions,
        failures=now.failures,
        skipped="" if was_answered else now.skipped,
        notes=tuple(dict.fromkeys(before.notes + now.notes)),
        audio_seconds=max(before.audio_seconds, now.audio_seconds),
        seconds=before.seconds + now.seconds,
        saved=before.saved or now.saved,
        segments=(before.segments if was_answered else ()) + now.segments,
    )
