"""A batch in rounds: everything once; then what failed for now, or was in work elsewhere, is looked at again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from musicflamingo_cli.captioning.batch import ELSEWHERE, Dataset, Task, claim_and, run_batch, scan
from musicflamingo_cli.captioning.captioner import Captioner
from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.errors import BatchStoppedError
from musicflamingo_cli.types import COMPLETE, Outcome, Track

# What may go away by itself: asked again when everything else is done, after these pauses in seconds.
TRANSIENT = frozenset(["engine", "timeout", "system", "sidecar busy", "no space"])
PAUSES = (1.0, 5.0)
_MOST_PENDING = 1000  # tracks; with more, the fault is no passing one
# What says more about the engine, the model or the disk than about a track: so many in a row, and the run stops.
_NO_FAULT_OF_TRACKS = frozenset(["engine", "timeout", "not heard", "refused answer", "fault", "no space"])
_TOO_MANY_IN_A_ROW = 10


class Rounds:
    """``settled`` is called once for every track, in the thread that called ``run``.

    ``say`` gets a sentence before a round, ``starting`` and ``ended`` each track that comes into work and out of it.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        captioner: Captioner,
        settled: Callable[[Outcome], None],
        say: Callable[[str], None],
        starting: Callable[[Path], None],
        ended: Callable[[Path], None],
        keep_going: bool = False,
    ) -> None:
        self._datasets = datasets
        self._captioner = captioner
        self._settled = settled
        self._say = say
        self._starting = starting
        self._ended = ended
        self._keep_going = keep_going
        self._pending: dict[Path, Outcome | None] = {}  # None: in work elsewhere, nothing known of it
        self._in_a_row = 0

    def run(self, selection: Selection) -> int:
        """Do the selection; the number of tracks that are left to other processes. Raises BatchStoppedError."""
        try:
            self._round(selection, is_first=True)
            for pause in PAUSES:
                if not self._pending:
                    break
                if failed := sum(outcome is not None for outcome in self._pending.values()):
                    self._say(f"{failed} tracks failed for now; trying them again in {pause:g} s")
                    time.sleep(pause)
                only = frozenset(audio.absolute() for audio in self._pending)
                self._round(replace(selection, only=only, limit=None), is_first=False)
        finally:
            left = [outcome for outcome in self._pending.values() if outcome is not None]
            elsewhere = len(self._pending) - len(left)
            for outcome in left:
                self._settled(outcome)
        return elsewhere

    def _round(self, selection: Selection, is_first: bool) -> None:
        def ask(task: Task) -> Outcome:
            self._starting(task.track.audio)
            return self._captioner.caption(task.track, task.presets, task.info)

        def done(outcome: Outcome) -> None:
            self._ended(outcome.track.audio)
            self._take(outcome)
            if is_first:
                self._watch(outcome)

        items = scan(self._datasets, selection)
        if not is_first:  # not again what is skipped, or cannot be looked into
            items = (item for item in items if item.track.audio in self._pending)
        engine = self._captioner.engine
        run_batch(items, lambda task: claim_and(ask, task, selection), engine.lanes, engine.close, done)

    def _take(self, outcome: Outcome) -> None:
        """Settle an outcome, or keep it for another round."""
        audio = outcome.track.audio
        before = self._pending.pop(audio, None)
        if outcome.skipped == ELSEWHERE:
            self._pending[audio] = before
            return
        if before is not None:
            outcome = _merged(before, outcome)
        kinds = {failure.kind for failure in outcome.failures}
        if kinds and kinds <= TRANSIENT and len(self._pending) < _MOST_PENDING:
            self._pending[audio] = outcome
        else:
            self._settled(outcome)

    def _watch(self, outcome: Outcome) -> None:
        """Raises BatchStoppedError where track after track ends without a caption through no fault of its own.

        Tracks that are at fault themselves (silent, unreadable) say nothing either way.
        """
        if outcome.saved or (outcome.captions and not outcome.failures):
            self._in_a_row = 0
        kinds = {failure.kind for failure in outcome.failures}
        if not kinds or outcome.saved or not kinds <= _NO_FAULT_OF_TRACKS:
            return
        self._in_a_row += 1
        if self._in_a_row >= _TOO_MANY_IN_A_ROW and not self._keep_going:
            last = outcome.failures[-1]
            raise BatchStoppedError(
                f"{self._in_a_row} tracks in a row got no caption; the last: {last.kind}: {last.reason}",
                "see what is wrong with: musicflamingo doctor; or go on all the same with --keep-going",
            )


def _merged(before: Outcome, now: Outcome) -> Outcome:
    """Two rounds of one track as one outcome; what failed for now counts only if it failed again."""
    track: Track = now.track
    again = {caption.preset for caption in now.captions}  # where what was answered could not be saved
    was_done_elsewhere = now.skipped == COMPLETE and not before.captions
    return Outcome(
        track,
        tuple(caption for caption in before.captions if caption.preset not in again) + now.captions,
        now.failures,
        now.skipped if was_done_elsewhere else "",
        tuple(dict.fromkeys(before.notes + now.notes)),
        max(before.audio_seconds, now.audio_seconds),
        before.seconds + now.seconds,
        before.saved or now.saved,
    )
