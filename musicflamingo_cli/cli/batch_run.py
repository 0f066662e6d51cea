"""A batch as a person watches it: the plan, the bar, each outcome, the summary."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from musicflamingo_cli.captioning.batch import Dataset, Plan, Task, count, make_plan, scan
from musicflamingo_cli.captioning.captioner import Captioner, open_captioner
from musicflamingo_cli.captioning.retries import RetryingBatch, TrackCaptioner
from musicflamingo_cli.captioning.run_log import RunLog, last_seconds_per_track
from musicflamingo_cli.captioning.second_pass import Wanted as SecondPassWanted
from musicflamingo_cli.captioning.segments import SegmentCaptioner
from musicflamingo_cli.choices import Wanted
from musicflamingo_cli.cli.batch_view import BatchView
from musicflamingo_cli.cli.console import Console, duration
from musicflamingo_cli.cli.heading import heading_of
from musicflamingo_cli.cli.measurements import MeasureJob
from musicflamingo_cli.cli.outcomes import TINY_MODEL_WARNING, announce, next_commands, outcome_json, summary_lines
from musicflamingo_cli.cli.progress import BatchBar, batch_bar
from musicflamingo_cli.cli.second_pass import derive_all
from musicflamingo_cli.config import Settings
from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.errors import ConfigError, ModelError
from musicflamingo_cli.models.model import Model
from musicflamingo_cli.models.resolve import resolve_model
from musicflamingo_cli.sidecars.staleness import CaptionSettings, caption_settings
from musicflamingo_cli.types import COMPLETE, TOO_SHORT, Outcome, Skipped, Summary, Track, Workload

if TYPE_CHECKING:  # Ray is an extra
    from musicflamingo_cli.cluster.captioner import ClusterCaptioner
    from musicflamingo_cli.cluster.plan import ClusterPlan


def parse_shard(text: str) -> tuple[int, int]:
    """Return `2/4` as (2, 4), `auto` as this task's part of a Slurm job array. Raises ConfigError."""
    if text == "auto":
        return _shard_of_array(os.environ)
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"--shard {text} is not I/N with 1 <= I <= N", "for the first of four: --shard 1/4")
    return int(match[1]), int(match[2])


def _shard_of_array(environment: Mapping[str, str]) -> tuple[int, int]:
    """Return this task's part, as Slurm numbers it. Raises ConfigError."""
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN")
    values = [environment.get(name, "") for name in names] + [environment.get("SLURM_ARRAY_TASK_STEP", "1")]
    if not all(value.isdigit() for value in values):
        raise ConfigError(
            f"--shard auto needs {names[0]} and {names[1]}, as Slurm sets them in a job array",
            "submit it with: sbatch --array=1-8, or name the part: --shard 1/8",
        )
    task, count, first, step = map(int, values)
    number, remainder = divmod(task - first, max(1, step))
    if remainder or not 0 <= number < count:
        raise ConfigError(
            f"the job array is not regular: task {task} is not one of {count} from {first} in steps of {step}",
            "submit it as one range (--array=1-8), or name the part: --shard 1/8",
        )
    return number + 1, count


_SEGMENTS_A_TRACK = 8  # of 30 s in a song; only the engine's size depends on it


class BatchRun:
    """One run over datasets; with ``selection.save`` into the sidecars, else (a free question) answers are printed."""

    def __init__(
        self,
        console: Console,
        settings: Settings,
        datasets: Sequence[Dataset],
        selection: Selection,
        keep_going: bool,
        cluster: ClusterPlan | None = None,
        derived: SecondPassWanted | None = None,
    ) -> None:
        self.failed_in_second_pass = 0  # tracks
        self._derived = derived
        self._cluster = cluster
        self._console = console
        self._settings = settings
        self._datasets = datasets
        self._keep_going = keep_going
        self._model = self._resolved(selection)
        self._selection = replace(selection, settings=self._caption_settings(selection))
        self._summary = Summary()
        self._started = time.monotonic()
        self._log: RunLog | None = None

    def _resolved(self, selection: Selection) -> Model | None:
        """The model; None where there is none yet: opening it reports that, and a dry run needs none.

        Raises ModelError where outdated captions are wanted: without a model none could be recognised.
        """
        try:
            return resolve_model(self._settings)
        except ModelError:
            if selection.wanted == Wanted.OUTDATED:
                raise
            return None

    def _caption_settings(self, selection: Selection) -> CaptionSettings:
        if self._model is None or selection.wanted != Wanted.OUTDATED:
            return CaptionSettings(is_tiny=self._model is not None and self._model.is_tiny)
        return caption_settings(self._settings, self._model)

    def start(self, dry_run: bool, run_log: Path | None, measure: bool = False) -> Summary:
        """Caption what is selected (or, with ``dry_run``, show it) and return the counts.

        ``measure``: measure the tracks first, so that prompts can use the values.
        """
        if measure and not dry_run:
            MeasureJob(self._console, self._tracks, is_data=False).run()
        plan = make_plan(self._datasets, self._selection, sweep=self._selection.save and not dry_run)
        self._show_plan(plan)
        if dry_run:
            self._show_estimate(plan)
            if plan.tasks or plan.problems or plan.skipped or self._console.as_json:
                self._show_items()
            return self._summary
        if self._selection.save and self._selection.wanted == Wanted.ALL:
            # Two processes that overwrite one tree share it: neither repeats what the other has made since.
            self._selection = replace(self._selection, earlier=plan.runs)
        if plan.tasks:
            self._caption(plan, run_log)
            return self._summary
        self._without_captioning(plan, run_log)
        if self._derived and plan.complete:
            with self._opened(plan.complete, 1) as captioner:
                self._second_pass(captioner)
        return self._summary

    def _without_captioning(self, plan: Plan, run_log: Path | None) -> None:
        """Show and count the tracks of a run that has no caption to make."""
        if plan.problems or plan.skipped:
            with self._recorded(run_log):
                self._show_items()
        else:
            if self._console.as_json:
                self._show_items()
            self._summary.complete = plan.complete
            self._show_summary()

    def _second_pass(self, captioner: Captioner | ClusterCaptioner) -> None:
        """Make fields and short versions of the captions that are in the sidecars now."""
        if self._derived and isinstance(captioner, Captioner):
            tracks = (item for item in self._tracks() if isinstance(item, Track))
            overwrite = self._selection.wanted == Wanted.ALL
            self.failed_in_second_pass = derive_all(self._console, captioner, self._derived, tracks, overwrite)

    def _tracks(self) -> Iterator[Track | Skipped]:
        """The tracks of the run, those with all their captions, too."""
        for item in scan(self._datasets, self._selection):
            if isinstance(item, Task) or item.skipped == COMPLETE:
                yield item.track

    def _caption(self, plan: Plan, run_log: Path | None) -> None:
        prompts = max(len(dataset.presets) for dataset in self._datasets)
        with self._opened(plan.tasks, prompts) as captioner:
            heading = heading_of(captioner, self._settings)
            roots = [dataset.root for dataset in self._datasets]
            total = plan.tasks + plan.problems
            view = BatchView(total, plan.sizes, heading, members=lambda: captioner.members, roots=roots)
            bars = batch_bar(self._console, view, heading)
            with self._recorded(run_log), bars as bar:
                engine, model = captioner.engine_name, captioner.model.name
                watcher = _Watcher(self, bar, engine, model)
                batch = RetryingBatch(self._datasets, self._of_tracks(captioner), watcher, self._keep_going)
                if elsewhere := batch.run(self._selection):
                    self._console.info(f"{elsewhere} tracks are in progress in other processes, which will finish them")
                if self._cluster is not None:
                    self._console.json({"nodes": [asdict(each) for each in captioner.members]})
                for each in captioner.members:
                    self._console.info(f"{each.name}: {each.clips} tracks, {each.per_hour:.0f} an hour ({each.state})")
            self._second_pass(captioner)

    def _of_tracks(self, captioner: Captioner | ClusterCaptioner) -> TrackCaptioner:
        """What captions the tracks: whole, or their segments."""
        if self._selection.cutting is None or not isinstance(captioner, Captioner):
            return captioner
        return SegmentCaptioner(captioner, self._selection)

    @contextlib.contextmanager
    def _opened(self, tracks: int, prompts: int) -> Iterator[Captioner | ClusterCaptioner]:
        """What captions the tracks, on this machine or on a cluster."""
        overwrite = self._selection.wanted == Wanted.ALL
        improve = self._selection.wanted == Wanted.CONTRADICTED
        if self._cluster is None:
            prompts += len(self._derived.presets) if self._derived else 0
            if self._selection.cutting is not None:
                tracks *= _SEGMENTS_A_TRACK
            workload = Workload(tracks, prompts, at_once=tracks)
            with open_captioner(
                self._settings, workload, self._model, overwrite, improve, self._selection.edited
            ) as captioner:
                announce(self._console, captioner)
                yield captioner
            return
        from musicflamingo_cli.cluster.captioner import open_cluster

        model = self._model or resolve_model(self._settings)
        if model.is_tiny:
            self._console.warn(TINY_MODEL_WARNING)
        with open_cluster(
            self._cluster,
            self._settings,
            model,
            prompts=prompts,
            tracks=tracks,
            roots=[dataset.root for dataset in self._datasets],
            overwrite=overwrite,
            improve=improve,
            replace_edited=self._selection.edited,
            verbose=self._console.verbose,
        ) as opened:
            yield opened

    def settle(self, outcome: Outcome, engine: str = "", model: str = "", bar: BatchBar | None = None) -> None:
        """Count, log and show a track's final outcome. Counted first: an interrupt may come at any moment."""
        count(self._summary, outcome)
        if outcome.skipped == COMPLETE:
            self._console.json(outcome_json(outcome, "", ""))  # who made its captions is in its sidecar
            return
        if self._log and not outcome.skipped:
            self._log.track(outcome)
        if bar and not outcome.skipped:
            bar.finished(outcome)
        elif bar and outcome.skipped == TOO_SHORT:
            bar.left_out(outcome.track.audio)
        self._show_outcome(outcome, engine, model)

    @contextlib.contextmanager
    def _recorded(self, run_log: Path | None) -> Iterator[None]:
        """A run log, and the summary at the end, however the run ends."""
        self._log = RunLog(run_log, [dataset.root for dataset in self._datasets])
        try:
            yield
        finally:
            self._show_summary()
            self._log.end(self._summary)
            if self._log.is_kept:
                self._console.info(f"run log: {self._log.path}")
            self._show_next(run_log)

    def _show_summary(self) -> None:
        for line in summary_lines(self._summary, time.monotonic() - self._started):
            self._console.info(line)

    def _show_next(self, run_log: Path | None) -> None:
        if self._console.as_json or not self._selection.save:
            return
        roots = [dataset.root for dataset in self._datasets]
        if commands := next_commands(self._summary, roots, run_log, self._selection.cutting is not None):
            self._console.info("\n".join(["next:", *commands]))

    def _show_plan(self, plan: Plan) -> None:
        wanted = ", ".join(f"{name} {number}" for name, number in plan.per_preset.items())
        more = f" ({wanted})" if wanted else ""
        self._console.info(f"{plan.tasks} tracks to caption{more}, {plan.complete} complete")
        if plan.other_audio:
            hint = "caption them again: --stale, which also redoes what another prompt or model made"
            self._console.warn(
                f"{plan.other_audio} of the complete tracks have captions of an earlier audio file ({hint})"
            )

    def _show_estimate(self, plan: Plan) -> None:
        seconds = last_seconds_per_track() if plan.tasks else 0.0
        if seconds is None:
            self._console.info("no previous run to estimate the time from; try one: --limit 10")
        elif plan.tasks:
            total = duration(seconds * plan.tasks)
            self._console.info(f"estimate: {total}, at the last run's {seconds:.1f} s a track")

    def _show_items(self) -> None:
        """Show what a scan finds, where nothing is captioned."""
        for item in scan(self._datasets, self._selection):
            if isinstance(item, Outcome):
                self.settle(item)
                continue
            names = [preset.name for preset in item.presets]
            self._console.data(f"{item.track.audio}: {', '.join(names)}")
            self._console.json({"track": str(item.track.audio), "sidecar": str(item.track.sidecar), "would_ask": names})

    def _show_outcome(self, outcome: Outcome, engine: str, model: str) -> None:
        audio = outcome.track.audio
        if outcome.skipped:
            show = self._console.detail if outcome.skipped == TOO_SHORT else self._console.info
            show(f"skipped {audio}: {outcome.skipped}")
        for note in outcome.notes:
            self._console.info(f"{audio}: {note}")
        if outcome.was_interrupted:
            finished = f"{len(outcome.captions)} finished captions"
            if outcome.segments:
                finished = f"{len(outcome.segments)} finished segments"
            kept = f"{finished} are saved" if outcome.saved else "nothing to save yet"
            self._console.info(f"interrupted {audio}: {kept}")
        for failure in () if outcome.was_interrupted else outcome.failures:
            self._console.track_failed(failure, audio)
        if not self._selection.save:
            for caption in outcome.captions:
                self._console.data(f"{audio}: {caption.text}")
        self._console.json(outcome_json(outcome, engine, model))


class _Watcher:
    """Passes what happens in a batch to the bar and the run."""

    def __init__(self, run: BatchRun, bar: BatchBar, engine: str, model: str) -> None:
        self._run = run
        self._bar = bar
        self._engine = engine
        self._model = model
        self.starting = bar.starting
        self.ended = bar.ended

    def settled(self, outcome: Outcome) -> None:
        """Count, log and show a final outcome."""
        self._run.settle(outcome, self._engine, self._model, self._bar)
