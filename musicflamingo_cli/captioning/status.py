"""Where a dataset stands, as its sidecars say; nothing else is asked, and nothing is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musicflamingo_cli.captioning import run_log as runlog
from musicflamingo_cli.captioning.batch import Dataset
from musicflamingo_cli.dataset.tracks import find_tracks
from musicflamingo_cli.errors import SidecarError
from musicflamingo_cli.sidecars import staleness as freshness
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.sidecars.staleness import CAPTIONED, MISSING, STALE, Maker
from musicflamingo_cli.types import Skipped


@dataclass(slots=True)
class Status:
    """Counts over datasets. ``heard_seconds``: of audio, of the tracks that have a caption and say so."""

    tracks: int = 0
    complete: int = 0
    untouched: int = 0  # tracks without any of the presets
    unreadable: int = 0  # sidecars
    skipped: int = 0
    failed: int = 0  # in the last run, and still not complete
    heard_seconds: float = 0.0
    presets: dict[str, dict[str, int]] = field(default_factory=dict)  # without STALE where that is not known


def examine(datasets: Iterable[Dataset], maker: Maker | None) -> Status:
    """Read every sidecar once; memory does not grow with the tree. Without a ``maker`` nobody knows what is stale."""
    status = Status()
    visited: set[tuple[int, int]] = set()
    datasets = list(datasets)
    log = runlog.latest([dataset.root for dataset in datasets])
    failed = runlog.failed(log) if log else {}
    for dataset in datasets:
        for preset in dataset.presets:
            states = (CAPTIONED, MISSING, STALE) if maker else (CAPTIONED, MISSING)
            status.presets.setdefault(preset.name, dict.fromkeys(states, 0))
        for item in find_tracks(dataset.root, visited):
            if isinstance(item, Skipped):
                status.skipped += 1
                continue
            status.tracks += 1
            try:
                info = read_sidecar(item.sidecar)
            except SidecarError:
                status.unreadable += 1
                continue
            is_complete = _count(status, info, dataset, maker or Maker())
            status.failed += not is_complete and item.audio.absolute() in failed
    return status


def _count(status: Status, info: dict[str, Any], dataset: Dataset, maker: Maker) -> bool:
    states = {preset.name: freshness.state_of(info, preset, maker) for preset in dataset.presets}
    for name, state in states.items():
        status.presets[name][state] += 1
    is_complete = all(state == CAPTIONED for state in states.values())
    status.complete += is_complete
    status.untouched += all(state == MISSING for state in states.values())
    heard = (freshness.provenance_of(info, preset.name).get("audio_seconds") for preset in dataset.presets)
    status.heard_seconds += max((float(s) for s in heard if isinstance(s, (int, float))), default=0.0)
    return is_complete


def as_json(status: Status, roots: Iterable[Path]) -> dict[str, Any]:
    return {
        "datasets": [str(root) for root in roots],
        "tracks": status.tracks,
        "complete": status.complete,
        "untouched": status.untouched,
        "unreadable_sidecars": status.unreadable,
        "skipped": status.skipped,
        "failed_in_last_run": status.failed,
        "heard_hours": round(status.heard_seconds / 3600, 3),
        "presets": {name: {STALE: None, **counts} for name, counts in status.presets.items()},
    }
