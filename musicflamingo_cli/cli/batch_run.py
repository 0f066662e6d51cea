"""A batch as a person watches it: the plan, the bar, each outcome, the summary."""

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from musicflamingo_cli.captioning.batch import Dataset, Plan, count, make_plan, scan
from musicflamingo_cli.captioning.captioner import maker, open_captioner, resolve_model
from musicflamingo_cli.captioning.retries import Rounds
from musicflamingo_cli.captioning.run_log import RunLog, last_pace
from musicflamingo_cli.cli.asking import announce
from musicflamingo_cli.cli.console import BatchBar, Console, duration, failure_line, outcome_json, summary_lines
from musicflamingo_cli.config import Settings
from musicflamingo_cli.dataset import selection as choice
from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.errors import ConfigError, ModelError
from musicflamingo_cli.models.resolve import ModelPair
from musicflamingo_cli.sidecars.staleness import Maker
from musicflamingo_cli.types import COMPLETE, Load, Outcome, Summary


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
        self._model = self._resolved(selection)
        self._selection = replace(selection, maker=self._maker(selection))
        self._summary = Summary()
        self._started = time.monotonic()
        self._log: RunLog | None = None

    def _resolved(self, selection: Selection) -> ModelPair | None:
        """The model; None where there is none yet, which is told when it is opened (a dry run needs none).

        Raises ModelError where staleness is asked for: without a model nothing would be stale, and all be complete.
        """
        try:
            return resolve_model(self._settings)
        except ModelError:
            if selection.wanted == choice.STALE:
                raise
            return None

    def _maker(self, selection: Selection) -> Maker:
        if self._model is None or selection.wanted != choice.STALE:
            return Maker(is_toy=self._model is not None and self._model.is_toy)
        return maker(self._settings, self._model)

    def start(self, dry_run: bool, run_log: Path | None) -> Summary:
        """Do what is to be done (or, with ``dry_run``, say it) and return the counts."""
        plan = make_plan(self._datasets, self._selection, sweep=self._selection.save and not dry_run)
        self._tell_plan(plan)
        if dry_run:
            self._tell_time(plan)
            if plan.tasks or plan.problems or plan.skipped or self._console.as_json:
                self._tell_items()
            return self._summary
        if plan.tasks:
            self._caption(plan, run_log)
        elif plan.problems or plan.skipped:
            with self._recorded(run_log):
                self._tell_items()
        else:
            if self._console.as_json:
                self._tell_items()
            self._summary.complete = plan.complete
            self._tell_summary()
        return self._summary

    def _caption(self, plan: Plan, run_log: Path | None) -> None:
        most = max(len(dataset.presets) for dataset in self._datasets)
        load = Load(plan.tasks, most, at_once=plan.tasks)
        save = self._selection.save
        overwrite = self._selection.wanted == choice.ALL
        opened = open_captioner(self._settings, save, self._console.warn, load, self._model, overwrite)
        with opened as captioner:
            announce(self._console, captioner)
            engine, model = captioner.engine.name, captioner.model.language_model.name
            bars = self._console.batch_bar(plan.tasks + plan.problems, captioner.engine.lanes)
            with self._recorded(run_log), bars as bar:

                def settled(outcome: Outcome) -> None:
                    self._settle(outcome, engine, model, bar)

                say, keep_going = self._console.say, self._keep_going
                rounds = Rounds(self._datasets, captioner, settled, say, bar.starting, bar.ended, keep_going)
                if elsewhere := rounds.run(self._selection):
                    say(f"{elsewhere} tracks are left to other processes that are at work on them")

    def _settle(self, outcome: Outcome, engine: str = "", model: str = "", bar: BatchBar | None = None) -> None:
        """The last word about a track. Counted first: an interrupt may come at any moment."""
        count(self._summary, outcome)
        if outcome.skipped == COMPLETE:
            self._console.json(outcome_json(outcome, "", ""))  # who made its captions, its sidecar says
            return
        if self._log and not outcome.skipped:
            self._log.track(outcome)
        if bar and not outcome.skipped:
            bar.finished(outcome)
        self._tell_outcome(outcome, engine, model)

    @contextlib.contextmanager
    def _recorded(self, run_log: Path | None) -> Iterator[None]:
        """A run log, and the summary at the end, however that comes."""
        self._log = RunLog(run_log, [dataset.root for dataset in self._datasets], self._console.warn)
        try:
            yield
        finally:
            self._tell_summary()
            self._log.end(self._summary)
            self._console.say(f"run log: {self._log.path}")

    def _tell_summary(self) -> None:
        for line in summary_lines(self._summary, time.monotonic() - self._started):
            self._console.say(line)

    def _tell_plan(self, plan: Plan) -> None:
        wanted = ", ".join(f"{name} {number}" for name, number in plan.per_preset.items())
        more = f" ({wanted})" if wanted else ""
        self._console.say(f"{plan.tasks} tracks to caption{more}, {plan.complete} complete")

    def _tell_time(self, plan: Plan) -> None:
        pace = last_pace() if plan.tasks else 0.0
        if pace is None:
            self._console.say("no run is on record to reckon the time from; try one: --limit 10")
        elif plan.tasks:
            self._console.say(f"about {duration(pace * plan.tasks)} at the last run's pace ({pace:.1f} s a track)")

    def _tell_items(self) -> None:
        """What a scan finds, where nothing is captioned."""
        for item in scan(self._datasets, self._selection):
            if isinstance(item, Outcome):
                self._settle(item)
                continue
            names = [preset.name for preset in item.presets]
            self._console.data(f"{item.track.audio}: {', '.join(names)}")
            self._console.json({"track": str(item.track.audio), "sidecar": str(item.track.sidecar), "would_ask": names})

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
