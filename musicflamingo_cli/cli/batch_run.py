"""A batch as a person watches it: the plan, the bar, each outcome, the rounds of retries, the summary."""

import contextlib
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from musicflamingo_cli import selection as choice
from musicflamingo_cli.batch import (
    COMPLETE,
    ELSEWHERE,
    Dataset,
    Plan,
    Task,
    claim_and,
    count,
    make_plan,
    run_batch,
    scan,
)
from musicflamingo_cli.captioner import Captioner, open_captioner, resolve_model
from musicflamingo_cli.cli.asking import announce
from musicflamingo_cli.config import Settings
from musicflamingo_cli.console import BatchBar, Console, duration, failure_line, outcome_json, summary_lines
from musicflamingo_cli.errors import BatchStoppedError, ConfigError, ModelError
from musicflamingo_cli.freshness import Maker
from musicflamingo_cli.models import ModelPair
from musicflamingo_cli.runlog import RunLog, last_pace
from musicflamingo_cli.selection import Selection
from musicflamingo_cli.types import Load, Outcome, Summary

# What may go away by itself: asked again when everything else is done, after these pauses in seconds.
_TRANSIENT = frozenset(["engine", "timeout", "system", "sidecar busy", "no space"])
_PAUSES = (1.0, 5.0)
# What says more about the engine or the model than about a track: so many in a row, and the run stops.
_ENGINE_KINDS = frozenset(["engine", "timeout", "not heard", "refused answer", "fault"])
_TOO_MANY_IN_A_ROW = 10


def parse_shard(text: str) -> tuple[int, int]:
    """`2/4` as (2, 4). Raises ConfigError."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"--shard {text} is not I/N with 1 <= I <= N", "for the first of four: --shard 1/4")
    return int(match[1]), int(match[2])


class BatchRun:
    """One run over datasets. ``selection.save``: into the sidecars; else (a free question) answers are printed only."""

    def __init__(
        self, console: Console, settings: Settings, datasets: Sequence[Dataset], selection: Selection, keep_going: bool
    ) -> None:
        self._console = console
        self._settings = settings
        self._datasets = datasets
        self._keep_going = keep_going
        self._model: ModelPair | None = None
        with contextlib.suppress(ModelError):  # told when the model is opened; a dry run needs none
            self._model = resolve_model(settings)
        self._selection = replace(selection, maker=self._maker(selection))
        self._summary = Summary()
        self._started = time.monotonic()
        self._later: dict[Path, Outcome] = {}  # failed for now
        self._failed: set[Path] = set()
        self._elsewhere: set[Path] = set()
        self._in_a_row = 0

    def _maker(self, selection: Selection) -> Maker:
        from musicflamingo_cli.captioner import maker

        if self._model is None or selection.wanted != choice.STALE:
            return Maker(is_noise=self._model is not None and self._model.is_noise)
        return maker(self._settings, self._model)

    def start(self, dry_run: bool, run_log: Path | None) -> Summary:
        """Do what is to be done (or, with ``dry_run``, say it) and return the counts."""
        plan = make_plan(self._datasets, self._selection)
        self._tell_plan(plan)
        if dry_run and plan.tasks:
            self._tell_time(plan)
        if not (plan.tasks or plan.problems or plan.skipped):
            self._summary.complete = plan.complete
        elif dry_run or not plan.tasks:
            for item in scan(self._datasets, self._selection):
                self._tell_only(item)
        else:
            self._caption(plan, run_log)
        if not dry_run:
            self._tell_summary()
        return self._summary

    def _caption(self, plan: Plan, run_log: Path | None) -> None:
        most = max(len(dataset.presets) for dataset in self._datasets)
        load = Load(plan.tasks, most, at_once=plan.tasks)
        save = self._selection.save
        with open_captioner(self._settings, save, self._console.warn, load, self._model) as captioner:
            self._log = RunLog(run_log, [dataset.root for dataset in self._datasets], self._console.warn)
            announce(self._console, captioner)
            try:
                with self._console.batch_bar(plan.tasks + plan.problems, captioner.engine.lanes) as bar:
                    self._rounds(captioner, bar)
            except BaseException:
                self._tell_summary()
                raise
            finally:
                self._log.end(self._summary)
                self._console.say(f"run log: {self._log.path}")

    def _rounds(self, captioner: Captioner, bar: BatchBar) -> None:
        """Everything once; then, after a pause, what failed and may not fail again, and what others left undone."""
        try:
            self._round(captioner, bar, self._selection, is_first=True)
            for pause in _PAUSES:
                if not self._later and not self._elsewhere:
                    return
                if self._later:
                    self._console.say(f"{len(self._later)} tracks failed for now; trying them again in {pause:g} s")
                    time.sleep(pause)
                self._later, self._elsewhere = {}, set()
                self._round(captioner, bar, replace(self._selection, never=frozenset(self._failed)), is_first=False)
        finally:
            for outcome in self._later.values():
                self._count(outcome, captioner, bar)
            if self._elsewhere:
                self._console.say(f"{len(self._elsewhere)} tracks are left to other processes that are at work on them")

    def _round(self, captioner: Captioner, bar: BatchBar, selection: Selection, is_first: bool) -> None:
        def ask(task: Task) -> Outcome:
            bar.starting(task.track.audio)
            return captioner.caption(task.track, task.presets, task.info)

        def done(outcome: Outcome) -> None:
            if outcome.skipped and not is_first and outcome.skipped != ELSEWHERE:
                return  # counted in the first round
            self._take(outcome, captioner, bar)

        items = scan(self._datasets, selection)
        run_batch(items, lambda t: claim_and(ask, t, selection), captioner.engine.lanes, captioner.engine.close, done)

    def _take(self, outcome: Outcome, captioner: Captioner, bar: BatchBar) -> None:
        """Count an outcome, or keep it for another round."""
        bar.ended(outcome.track.audio)
        if outcome.skipped == ELSEWHERE:
            self._elsewhere.add(outcome.track.audio)
            return
        kinds = {failure.kind for failure in outcome.failures}
        if kinds and not outcome.was_interrupted and kinds <= _TRANSIENT:
            self._later[outcome.track.audio] = outcome
            self._log.track(outcome)
        else:
            self._count(outcome, captioner, bar)
        self._watch(outcome, kinds)

    def _count(self, outcome: Outcome, captioner: Captioner, bar: BatchBar) -> None:
        count(self._summary, outcome)
        if outcome.failures:
            self._failed.add(outcome.track.audio)
        if outcome.skipped == COMPLETE:
            return
        if not outcome.skipped:
            bar.finished(outcome)
            self._log.track(outcome)
        self._tell_outcome(outcome, captioner.engine.name, captioner.model.language_model.name)

    def _watch(self, outcome: Outcome, kinds: set[str]) -> None:
        """Raises BatchStoppedError where track after track gets no caption through no fault of its own."""
        if outcome.skipped:
            return
        is_ours = bool(kinds) and kinds <= _ENGINE_KINDS and not outcome.captions
        self._in_a_row = self._in_a_row + 1 if is_ours else 0
        if self._in_a_row >= _TOO_MANY_IN_A_ROW and not self._keep_going:
            last = outcome.failures[-1]
            raise BatchStoppedError(
                f"{self._in_a_row} tracks in a row got no caption; the last: {last.kind}: {last.reason}",
                "see what is wrong with: musicflamingo doctor; or go on all the same with --keep-going",
            )

    def _tell_plan(self, plan: Plan) -> None:
        wanted = ", ".join(f"{name} {number}" for name, number in plan.per_preset.items())
        more = f" ({wanted})" if wanted else ""
        self._console.say(f"{plan.tasks} tracks to caption{more}, {plan.complete} complete")

    def _tell_time(self, plan: Plan) -> None:
        pace = last_pace()
        if pace is None:
            self._console.say("no run is on record to reckon the time from; try one: --limit 10")
        else:
            self._console.say(f"about {duration(pace * plan.tasks)} at the last run's pace ({pace:.1f} s a track)")

    def _tell_only(self, item: Task | Outcome) -> None:
        """One item of a scan that is not acted on."""
        if isinstance(item, Task):
            names = [preset.name for preset in item.presets]
            self._console.data(f"{item.track.audio}: {', '.join(names)}")
            self._console.json({"track": str(item.track.audio), "sidecar": str(item.track.sidecar), "would_ask": names})
            return
        count(self._summary, item)
        if item.skipped != COMPLETE:
            self._tell_outcome(item, "", "")

    def _tell_outcome(self, outcome: Outcome, engine: str, model: str) -> None:
        audio = outcome.track.audio
        if outcome.skipped:
            self._console.say(f"skipped {audio}: {outcome.skipped}")
        for note in outcome.notes:
            self._console.say(f"{audio}: {note}")
        if outcome.was_interrupted:
            kept = f"{len(outcome.captions)} captions were there and are saved" if outcome.saved else "nothing is saved"
            self._console.say(f"interrupted {audio}: {kept}")
        for failure in () if outcome.was_interrupted else outcome.failures:
            self._console.warn(failure_line(audio, failure))
        if not self._selection.save:
            for item in outcome.captions:
                self._console.data(f"{audio}: {item.text}")
        self._console.json(outcome_json(outcome, engine, model))

    def _tell_summary(self) -> None:
        for line in summary_lines(self._summary, time.monotonic() - self._started):
            self._console.say(line)
