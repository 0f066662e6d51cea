"""The work that the rows of throughput.py measure: the default presets about every track, as `batch` runs them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from musicflamingo_cli.captioning.batch import Task, count, run_batch
from musicflamingo_cli.captioning.captioner import Captioner, Policy
from musicflamingo_cli.config import Settings
from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.engines import open_engine
from musicflamingo_cli.errors import FailureKind
from musicflamingo_cli.models.model import Model
from musicflamingo_cli.paths import built_in_prompts
from musicflamingo_cli.prompts import Preset, choose, load_presets
from musicflamingo_cli.types import Outcome, Sampling, Summary, Workload


def presets_of(tokens: int) -> list[Preset]:
    """The default presets, with answers of so many tokens."""
    chosen = choose(load_presets([built_in_prompts()]), [])
    return [replace(preset, max_tokens=tokens, min_words=1) for preset in chosen]


def batch(pair: Model, settings: Settings, presets: list[Preset], tracks: list[Path]) -> None:
    engine, _ = open_engine(settings, pair, Workload(len(tracks), len(presets), len(tracks)))
    captioner = Captioner(engine, pair, Policy(Sampling(0.0), retries=0))
    summary = Summary()

    def caption(task: Task) -> Outcome:
        return captioner.caption(task.track, task.presets, {}, save=False)

    run_batch(
        [Task(track_for(track), presets, {}) for track in tracks],
        caption,
        lambda: engine.slots,
        engine.close,
        lambda outcome: count(summary, outcome),
    )
    engine.close()
    # Random weights answer with noise, which may be refused.
    failures = [failure for _, failure in summary.failures if failure.kind != FailureKind.REFUSED_ANSWER]
    assert not failures, failures
