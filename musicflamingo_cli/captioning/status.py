"""How much of a dataset is captioned, read from its sidecars. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musicflamingo_cli.captioning import run_log
from musicflamingo_cli.captioning.batch import Dataset
from musicflamingo_cli.dataset.tracks import LEADS_OUT, find_tracks
from musicflamingo_cli.errors import SidecarError
from musicflamingo_cli.sidecars.captions import provenance_of
from musicflamingo_cli.sidecars.checks import check_result, has_outdated_check
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.sidecars.segments import segments_of
from musicflamingo_cli.sidecars.staleness import CaptionSettings, CaptionState, state_of
from musicflamingo_cli.types import Skipped


@dataclass(slots=True)
class Status:
    """Counts over datasets. ``heard_seconds``: of audio that captions were made from, as their provenance says."""

    tracks: int = 0
    complete: int = 0
    untouched: int = 0  # tracks without any of the presets
    unreadable: int = 0  # sidecars
    skipped: int = 0
    links_out: int = 0  # of those: links to folders outside of the datasets
    failed: int = 0  # in the last run, and not complete since
    heard_seconds: float = 0.0
    checked: int = 0  # tracks whose check is of the captions and values that are there now
    check_outdated: int = 0
    contradicted: int = 0  # of those checked: tracks with a contradicted claim
    segmented: int = 0  # tracks cut into segments
    segments: int = 0
    segments_complete: int = 0  # those that are silent or have a caption of every preset
    presets: dict[str, dict[str, int]] = field(
        default_factory=dict
    )  # counts by state; no OUTDATED where that is not known


def examine(datasets: Iterable[Dataset], now: CaptionSettings | None, follow_links: bool = False) -> Status:
    """Read every sidecar once and count; memory does not grow with the tree.

    ``now`` is what captions would be made with; without it, outdated captions are not known. ``follow_links``: see
    ``find_tracks``.
    """
    status = Status()
    visited: set[tuple[int, int]] = set()
    datasets = list(datasets)
    log = run_log.latest([dataset.root for dataset in datasets])
    failed = run_log.failed(log) if log else {}
    for dataset in datasets:
        for preset in dataset.presets:
            states = list(CaptionState) if now else [CaptionState.CAPTIONED, CaptionState.MISSING]
            status.presets.setdefault(preset.name, dict.fromkeys(states, 0))
        for item in find_tracks(dataset.root, visited, follow_links=follow_links):
            if isinstance(item, Skipped):
                status.skipped += 1
                status.links_out += item.reason == LEADS_OUT
                continue
            status.tracks += 1
            try:
                info = read_sidecar(item.sidecar)
            except SidecarError:
                status.unreadable += 1
                continue
            _count_check(status, info)
            _count_segments(status, info, dataset)
            is_complete = _count(status, info, dataset, now, item.audio)
            status.failed += not is_complete and item.audio.absolute() in failed
    return status


def _count(status: Status, info: dict[str, Any], dataset: Dataset, now: CaptionSettings | None, audio: Path) -> bool:
    compared = audio if now else None
    states = {each.name: state_of(info, each, now or CaptionSettings(), compared) for each in dataset.presets}
    for name, state in states.items():
        status.presets[name][state] += 1
    is_complete = all(state == CaptionState.CAPTIONED for state in states.values())
    status.complete += is_complete
    status.untouched += all(state == CaptionState.MISSING for state in states.values())
    heard = (provenance_of(info, preset.name).get("audio_seconds", 0.0) for preset in dataset.presets)
    status.heard_seconds += max(map(float, heard), default=0.0)
    return is_complete


def _count_check(status: Status, info: dict[str, Any]) -> None:
    result = check_result(info)
    status.checked += result is not None
    status.check_outdated += has_outdated_check(info)
    status.contradicted += bool(result and result.contradicted)


def _count_segments(status: Status, info: dict[str, Any], dataset: Dataset) -> None:
    segments = segments_of(info)
    status.segmented += bool(segments)
    status.segments += len(segments)
    wanted = {preset.name for preset in dataset.presets}
    status.segments_complete += sum(segment.is_silent or wanted <= set(segment.captions) for segment in segments)


def as_json(status: Status, roots: Iterable[Path]) -> dict[str, Any]:
    """Return the counts for --json; outdated is null where it is not known."""
    return {
        "datasets": [str(root) for root in roots],
        "tracks": status.tracks,
        "complete": status.complete,
        "untouched": status.untouched,
        "unreadable_sidecars": status.unreadable,
        "skipped": status.skipped,
        "links_not_followed": status.links_out,
        "failed_in_last_run": status.failed,
        "heard_hours": round(status.heard_seconds / 3600, 3),
        "check": {
            "checked": status.checked,
            "outdated": status.check_outdated,
            "contradicted": status.contradicted,
        },
        "segments": {
            "tracks": status.segmented,
            "segments": status.segments,
            "complete": status.segments_complete,
        },
        "presets": {name: {CaptionState.OUTDATED: None, **counts} for name, counts in status.presets.items()},
    }
