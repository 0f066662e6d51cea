"""A batch as a person watches it: the plan, the bar, each outcome, the summary."""

import contextlib
import re
import time
from collections.abc import Sequence

from musicflamingo_cli.batch import Dataset, Plan, Selection, Task, count, make_plan, run_batch, scan
from musicflamingo_cli.captioner import Captioner, open_captioner, resolve_model
from musicflamingo_cli.cli.asking import announce
from musicflamingo_cli.config import Settings
from musicflamingo_cli.console import Console, failure_line, outcome_json, summary_lines
from musicflamingo_cli.errors import ConfigError, ModelError
from musicflamingo_cli.models import ModelPair
from musicflamingo_cli.types import Load, Outcome, Summary


def parse_shard(text: str) -> tuple[int, int]:
    """`2/4` as (2, 4). Raises ConfigError."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"--shard {text} is not I/N with 1 <= I <= N", "for the first of four: --shard 1/4")
    return int(match[1]), int(match[2])


class BatchRun:
    """One run over datasets. ``save``: into the sidecars; else (a free question) answers are printed only."""

    def __init__(self, console: Console, settings: Settings, datasets: Sequence[Dataset], save: bool) -> None:
        self._console = console
        self._settings = settings
        self._datasets = datasets
        self._save = save
        self._model: ModelPair | None = None
        with contextlib.suppress(ModelError):  # told when the model is opened; a dry run needs none
            self._model = resolve_model(settings)
        self._summary = Summary()
        self._started = time.monotonic()

    def start(self, overwrite: bool, limit: int | None, shard: tuple[int, int], dry_run: bool) -> Summary:
        """Do what is missing (or, with ``dry_run``, say it) and return the counts."""
        # An unsaved question leaves no trace in a sidecar, so it is always still to be asked.
        is_noise = self._model is not None and self._model.is_noise
        selection = Selection(overwrite or not self._save, limit, shard, is_noise, self._save)
        plan = make_plan(self._datasets, selection)
        self._tell_plan(plan)
        if not (plan.tasks or plan.problems or plan.skipped):
            self._summary.complete = plan.complete
        elif dry_run or not plan.tasks:
            for item in scan(self._datasets, selection):
                self._tell_only(item)
        else:
            most = max(len(dataset.presets) for dataset in self._datasets)
            load = Load(plan.tasks, most, at_once=plan.tasks)
            with open_captioner(self._settings, self._save, self._console.warn, load, self._model) as captioner:
                announce(self._console, captioner)
                self._work(captioner, selection, plan)
        if not dry_run:
            self._tell_summary()
        return self._summary

    def _work(self, captioner: Captioner, selection: Selection, plan: Plan) -> None:
        def caption(task: Task) -> Outcome:
            bar.starting(task.track.audio)
            return captioner.caption(task.track, task.presets, task.info)

        def done(outcome: Outcome) -> None:
            if outcome.skipped != "complete":
                if not outcome.skipped:
                    bar.finished(outcome)
                self._tell_outcome(outcome, captioner.engine.name, captioner.model.language_model.name)

        with self._console.batch_bar(plan.tasks + plan.problems) as bar:
            try:
                items = scan(self._datasets, selection)
                run_batch(items, caption, captioner.engine.lanes, captioner.engine.close, done, self._summary)
            except KeyboardInterrupt:
                self._tell_summary()
                raise

    def _tell_plan(self, plan: Plan) -> None:
        wanted = ", ".join(f"{name} {number}" for name, number in plan.per_preset.items())
        more = f" ({wanted})" if wanted else ""
        self._console.say(f"{plan.tasks} tracks to caption{more}, {plan.complete} complete")

    def _tell_only(self, item: Task | Outcome) -> None:
        """One item of a scan that is not acted on."""
        if isinstance(item, Task):
            names = [preset.name for preset in item.presets]
            self._console.data(f"{item.track.audio}: {', '.join(names)}")
            self._console.json({"track": str(item.track.audio), "sidecar": str(item.track.sidecar), "would_ask": names})
            return
        count(self._summary, item)
        if item.skipped != "complete":
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
        if not self._save:
            for item in outcome.captions:
                self._console.data(f"{audio}: {item.text}")
        self._console.json(outcome_json(outcome, engine, model))

    def _tell_summary(self) -> None:
        for line in summary_lines(self._summary, time.monotonic() - self._started):
            self._console.say(line)
