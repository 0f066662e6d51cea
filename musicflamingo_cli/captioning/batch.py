"""Many tracks: the sidecars say what is missing; each track is captioned, counted and reported."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musicflamingo_cli.captioning.worker_pool import WorkerPool
from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.dataset.tracks import SidecarOwners, find_tracks, track_for
from musicflamingo_cli.errors import FailureKind, SidecarError
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars import claims
from musicflamingo_cli.sidecars.file import obstacle
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.sidecars.staleness import EarlierRuns
from musicflamingo_cli.system.disk import file_size
from musicflamingo_cli.types import COMPLETE, OTHER_AUDIO, TOO_SHORT, Failure, Outcome, Skipped, Summary, Track

IN_PROGRESS_ELSEWHERE = "in progress in another process"
_LISTED_FAILURES = 1000  # a summary stays small when everything fails


@dataclass(frozen=True, slots=True)
class Dataset:
    """A folder (or one file) and the presets to ask about its tracks."""

    root: Path
    presets: Sequence[Preset]


@dataclass(frozen=True, slots=True)
class Task:
    """A track and what to ask about it; ``info`` is its sidecar's data as just read.

    ``presets`` are those to ask, ``all_presets`` those of its dataset.
    """

    track: Track
    presets: Sequence[Preset]
    info: Mapping[str, Any]
    all_presets: Sequence[Preset] = ()


@dataclass(slots=True)
class Plan:
    """What a scan found: counts, and the runs that made captions, so that a large tree costs no memory."""

    tasks: int = 0
    prompts: int = 0
    complete: int = 0
    other_audio: int = 0  # of the complete: those with captions of an earlier audio file
    problems: int = 0
    skipped: int = 0
    per_preset: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)  # bytes of the tasks' audio, by file extension
    runs: EarlierRuns = field(default_factory=EarlierRuns)


def scan(datasets: Iterable[Dataset], selection: Selection, sweep: bool = False) -> Iterator[Task | Outcome]:
    """Yield what there is to do, and outcomes for what needs nothing or cannot be done, in a stable order.

    ``sweep``: remove what killed runs left on the way.
    """
    remaining = selection.limit
    visited: set[tuple[int, int]] = set()
    datasets = list(datasets)
    owners = _owners_of_named_files(datasets)
    for dataset in datasets:
        for item in find_tracks(dataset.root, visited, sweep, selection.extensions, selection.follow_links):
            if isinstance(item, Skipped):
                yield _skipped(item)
                continue
            if not selection.takes(item, dataset.root):
                continue
            if owners is not None and (skipped := owners.claim(item)):
                yield _skipped(skipped)
                continue
            result = _look_at(item, dataset.presets, selection)
            if isinstance(result, Task):
                if remaining == 0:
                    return
                remaining = remaining - 1 if remaining is not None else None
            yield result


def _owners_of_named_files(datasets: Iterable[Dataset]) -> SidecarOwners | None:
    """Files that are given by name own their sidecars, also among a folder's tracks; None where there are no such.

    Within a folder ``find_tracks`` has settled it, so a large tree need not be remembered.
    """
    files = [dataset.root for dataset in datasets if dataset.root.is_file()]
    if not files:
        return None
    owners = SidecarOwners()
    for file in files:
        owners.claim(track_for(file))
    return owners


def _look_at(track: Track, presets: Sequence[Preset], selection: Selection) -> Task | Outcome:
    try:
        info = read_sidecar(track.sidecar)
    except SidecarError as error:
        return Outcome(track, failures=(Failure.for_track(error),))
    wanted = selection.presets_of(track, info, presets)
    if not wanted:
        reason = selection.complete_reason(track, info, presets)
        return Outcome(track, skipped=reason, notes=selection.notes_on(track, info, presets))
    if selection.save and (failure := obstacle(track.sidecar, track.within)):
        return Outcome(track, failures=(failure,))
    return Task(track=track, presets=wanted, info=info, all_presets=presets)


def _skipped(item: Skipped) -> Outcome:
    track = Track(item.path, item.path)
    if not item.failed:
        return Outcome(track, skipped=item.reason)
    hint = "give yourself permission to read it, or exclude it"
    return Outcome(track, failures=(Failure(preset="", kind=item.kind, reason=item.reason, hint=hint),))


def claim_and_caption(caption: Callable[[Task], Outcome], task: Task, selection: Selection) -> Outcome:
    """Caption a track that no other process is captioning, with its sidecar read again once it is claimed."""
    if not selection.save:
        return skipped_if_too_short(caption(task))
    with claims.claimed(task.track.sidecar) as is_ours:
        if not is_ours:
            return Outcome(task.track, skipped=IN_PROGRESS_ELSEWHERE)
        now = _look_at(task.track, task.all_presets, selection)
        return skipped_if_too_short(caption(now)) if isinstance(now, Task) else now


def skipped_if_too_short(outcome: Outcome) -> Outcome:
    """In a dataset, a track that is too short (a sound effect) is nothing to look into."""
    if any(failure.kind == FailureKind.TOO_SHORT for failure in outcome.failures):
        return Outcome(outcome.track, skipped=TOO_SHORT)
    return outcome


def make_plan(datasets: Iterable[Dataset], selection: Selection, sweep: bool = False) -> Plan:
    """Count what a run would do; reads every sidecar, and unless ``sweep`` is set writes nothing."""
    plan = Plan()
    for item in scan(datasets, selection, sweep):
        if isinstance(item, Task):
            plan.tasks += 1
            plan.runs.add(item.info)
            audio = item.track.audio
            plan.sizes[audio.suffix] = plan.sizes.get(audio.suffix, 0) + file_size(audio)
            plan.prompts += len(item.presets)
            for preset in item.presets:
                plan.per_preset[preset.name] = plan.per_preset.get(preset.name, 0) + 1
        elif item.skipped == COMPLETE:
            plan.complete += 1
            plan.other_audio += OTHER_AUDIO in item.notes
        elif item.failures:
            plan.problems += 1
        else:
            plan.skipped += 1
    return plan


def run_batch(
    items: Iterable[Task | Outcome],
    caption: Callable[[Task], Outcome],
    slots: Callable[[], int],
    stop: Callable[[], None],
    done: Callable[[Outcome], None],
) -> None:
    """Work through a scan, ``slots()`` tracks at once, while clips of some more are prepared.

    ``caption`` runs in threads of its own; ``done`` is called in this thread with every outcome, as it comes. When
    anything ends this early (Ctrl-C), ``stop`` must end what is in progress; those outcomes still come.
    """

    def tasks() -> Iterator[Task]:
        for item in items:
            if isinstance(item, Outcome):
                done(item)
            else:
                yield item

    with WorkerPool(caption, slots) as pool:
        try:
            for outcome in pool.results(tasks()):
                done(outcome)
        except BaseException:
            stop()
            for outcome in pool.remaining():
                with contextlib.suppress(Exception):  # the error that ended the run is the one to raise
                    done(outcome)
            raise


def count(summary: Summary, outcome: Outcome) -> None:
    """Add an outcome to the counts: failed where anything of it failed, even if some presets were saved."""
    summary.audio_seconds += outcome.audio_seconds
    if outcome.was_interrupted:
        summary.interrupted += 1
    elif outcome.failures:
        summary.failed += 1
        for failure in outcome.failures:
            if len(summary.failures) < _LISTED_FAILURES:
                summary.failures.append((outcome.track.audio, failure))
            else:
                summary.failures_unlisted += 1
    elif outcome.skipped == COMPLETE:
        summary.complete += 1
    elif outcome.skipped:
        summary.skipped += 1
        summary.too_short += outcome.skipped == TOO_SHORT
    else:
        summary.captioned += 1
