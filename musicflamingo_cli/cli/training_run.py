"""A run of `finetune`: what is trained on, how far it is, what came of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicflamingo_cli.cli.console import Console, duration, rich_stderr, write_message
from musicflamingo_cli.config import Settings
from musicflamingo_cli.errors import MusicFlamingoError
from musicflamingo_cli.finetuning.examples import Choice, Collected, collect
from musicflamingo_cli.finetuning.job import Training, require_packages
from musicflamingo_cli.finetuning.memory import require_memory
from musicflamingo_cli.finetuning.plan import Plan, Split, TrainingSettings
from musicflamingo_cli.models.adapter_gguf import gguf_of
from musicflamingo_cli.models.adapters import check_adapter
from musicflamingo_cli.models.checkpoints import read_config
from musicflamingo_cli.models.model import Checkpoint
from musicflamingo_cli.models.resolve import resolve_checkpoint
from musicflamingo_cli.paths import features_cache_dir
from musicflamingo_cli.prompts import choose, load_presets, prompts_files
from musicflamingo_cli.system.identity import digest

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from musicflamingo_cli.finetuning.folder import Result

_LINE_SECONDS = 30.0  # between two lines of progress where there is no terminal


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """The command's options, checked. See ``start``."""

    console: Console
    settings: Settings
    training: TrainingSettings
    folders: Sequence[Path]
    out: Path
    preset_names: Sequence[str]
    takes_all: bool
    follow_links: bool
    checks_memory: bool

    def start(self, *, restart: bool, overwrite: bool, dry_run: bool) -> None:
        """Train, write the adapter, and say what to do with it. Raises ConfigError, ModelError and the like."""
        versions = require_packages()
        checkpoint = resolve_checkpoint(self.settings.model, self.settings.models_folder)
        found = self._collect(checkpoint)
        plan = self._plan(checkpoint, found)
        self._describe(plan, checkpoint)
        if self.checks_memory:
            self._require_memory(plan, checkpoint)
        if dry_run:
            return
        training = Training(
            plan=plan,
            checkpoint=checkpoint,
            out=self.out.resolve(),
            gpus=self.settings.gpus,
            processes=self._processes(),
        )
        if training.prepare(restart, overwrite):
            self.console.info("continuing an unfinished training")
        with training_bar(self.console) as bar:
            try:
                result = training.run(bar.on_event, versions)
            except KeyboardInterrupt:
                self.console.warn(f"interrupted; the training continues from {training.folder} with the same command")
                raise
        self._finish(result)

    def _collect(self, checkpoint: Checkpoint) -> Collected:
        presets = choose(load_presets(prompts_files(self.folders[0], self.settings.prompts)), list(self.preset_names))
        choice = Choice(
            presets=presets,
            validation=self.training.validation,
            takes_all=self.takes_all,
            takes_tiny=checkpoint.is_tiny,
            follow_links=self.follow_links,
        )
        return collect(self.folders, choice)

    def _plan(self, checkpoint: Checkpoint, found: Collected) -> Plan:
        identity = digest(checkpoint.files) or ""
        return Plan(
            model=str(checkpoint.folder.absolute()),
            identity=identity,
            tracks=found.tracks,
            examples=found.examples,
            settings=self.training,
            excerpt=self.settings.excerpt(checkpoint.max_seconds),
            features=str(features_cache_dir() / identity),
            device=self.settings.device,
            quantize=self.settings.quantize,
            threads=self.settings.threads,
        )

    def _describe(self, plan: Plan, checkpoint: Checkpoint) -> None:
        counts = {split: sum(track.split == split for track in plan.tracks) for split in Split}
        train, validation = (len(plan.of(split)) for split in Split)
        self.console.info(
            f"training {checkpoint.name} on {train} captions of {counts[Split.TRAIN]} tracks,"
            f" validating on {validation} of {counts[Split.VALIDATION]}"
        )

    def _require_memory(self, plan: Plan, checkpoint: Checkpoint) -> None:
        from musicflamingo_cli.audio.clip import measure
        from musicflamingo_cli.llamacpp import memory

        # Each process has one GPU: the first one, or that of the named ones which has the least.
        available = memory.ram() if plan.device == "cpu" else memory.of_drivers(self.settings.gpus or "0")
        longest = max(measure(Path(track.path)).seconds for track in plan.tracks)
        seconds = min(plan.excerpt.max_seconds, longest * plan.excerpt.fraction)
        config = read_config(checkpoint.folder, checkpoint.name)["text_config"]
        estimate = require_memory(plan, checkpoint, config, seconds, available)
        self.console.info(f"memory: about {estimate.total / 1e9:.1f} GB ({estimate.parts})")

    def _processes(self) -> int:
        """One for each GPU that --gpus names."""
        if self.settings.gpus is None:
            return 1
        from musicflamingo_cli.engines.pool.gpus import gpus_to_use

        return len(gpus_to_use(self.settings))

    def _finish(self, result: Result) -> None:
        console, adapter = self.console, check_adapter(self.out)
        change = f"validation loss {result.first:.4f} before, {result.best:.4f} after (epoch {result.best_epoch + 1})"
        console.data(f"{self.out}: {change}")
        if result.best >= result.first:
            console.warn("the validation loss did not fall: do not use this adapter; approve more captions")
        if not adapter.has_projector:
            try:
                gguf_of(adapter)
            except MusicFlamingoError as error:
                console.warn(f"not converted for llama.cpp yet: {error}; {error.hint}")
        console.json({"adapter": str(self.out), **{key: adapter.record[key] for key in ("base", "loss", "examples")}})
        folder = self.folders[0]
        console.info(f"is it better? musicflamingo compare '{folder}' --lora '{self.out}' --html better.html")


@contextmanager
def training_bar(console: Console) -> Iterator[TrainingBar]:
    """Show progress: a live bar on a terminal, a line now and then elsewhere, nothing with -q."""
    bar = TrainingBar(console)
    with bar:
        yield bar


class TrainingBar:
    """Progress of a training: audio to encode, then epochs with loss and time left."""

    def __init__(self, console: Console) -> None:
        self._quiet, self._colour = console.quiet, console.colour
        self._live = sys.stderr.isatty() and not console.quiet
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._last = 0.0
        self._first_done: float | None = None  # of this run, which may continue another one

    def __enter__(self) -> TrainingBar:
        if self._live:
            from rich.progress import BarColumn, Progress, TextColumn

            self._progress = Progress(
                BarColumn(20), TextColumn("{task.description}"), console=rich_stderr(self._colour)
            )
            self._task = self._progress.add_task("loading", total=None)
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Show what the worker reports."""
        match event["kind"]:
            case "loaded":
                self._line(f"loaded on {event['device']} in {event['dtype']}")
            case "features" if event["total"]:
                share = event["made"] / event["total"]
                is_end = event["made"] in (0, event["total"])
                self._show(f"encoding audio: {event['made']} of {event['total']} tracks", share, is_end)
            case "step":
                self._step(event)

    def _step(self, event: Mapping[str, Any]) -> None:
        done = float(event["done"])
        if self._first_done is None:
            self._first_done = done
        worked = done - self._first_done
        left = f", at most {duration(event['seconds'] * (1 - done) / worked)} left" if worked > 0 else ""
        text = f"epoch {event['epoch'] + 1}, step {event['step']} of {event['steps']}: loss {event['loss']:.4f}"
        if event["validation"] is not None:
            self._line(
                f"epoch {event['epoch'] + 1}: loss {event['loss']:.4f}, validation {event['validation']:.4f}{left}"
            )
        else:
            self._show(text + left, done)

    def _line(self, text: str) -> None:
        if not self._quiet:
            write_message(text)  # a live bar takes stderr, and prints it above

    def _show(self, text: str, share: float, always: bool = False) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=text, total=1.0, completed=share)
        elif always or time.monotonic() - self._last > _LINE_SECONDS:
            self._last = time.monotonic()
            self._line(text)
