"""Many tracks: the sidecars say what is missing; each track is done, counted and told, and the next begins."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.dataset.tracks import find_tracks, rival_of, track_for
from musicflamingo_cli.errors import SidecarError
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars import claims
from musicflamingo_cli.sidecars import file as sidecar_file
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.types import COMPLETE, Failure, Outcome, Skipped, Summary, Track

ELSEWHERE = "another process is at work on it"
_LISTED_FAILURES = 1000  # a summary stays small when everything fails


@dataclass(frozen=True, slots=True)
class Dataset:
    """A folder (or one file) and the presets that are asked about its tracks."""

    root: Path
    presets: Sequence[Preset]


@dataclass(frozen=True, slots=True)
class Task:
    """A track and what is to be asked about it; ``info`` is its sidecar's data as read just now.

    ``of`` are all presets of its dataset, ``presets`` those that are wanted.
    """

    track: Track
    presets: Sequence[Preset]
    info: Mapping[str, Any]
    of: Sequence[Preset] = ()


@dataclass(slots=True)
class Plan:
    """What a scan found: counts only, so that a large tree costs no memory."""

    tasks: int = 0
    prompts: int = 0
    complete: int = 0
    problems: int = 0
    skipped: int = 0
    per_preset: dict[str, int] = field(default_factory=dict)


def scan(datasets: Iterable[Dataset], selection: Selection, sweep: bool = False) -> Iterator[Task | Outcome]:
    """Stream what there is to do, and outcomes for what needs nothing or cannot be done, in a stable order.

    ``sweep``: remove what killed runs have left on the way.
    """
    remaining = selection.limit
    visited: set[tuple[int, int]] = set()
    datasets = list(datasets)
    named = _named_one_by_one(datasets)
    for dataset in datasets:
        for item in find_tracks(dataset.root, visited, _sweep if sweep else None, selection.extensions):
            if isinstance(item, Skipped):
                yield _skipped(item)
                continue
            if not selection.takes(item, dataset.root):
                continue
            owner = named.get(os.path.realpath(item.sidecar), item.audio) if named else item.audio
            if owner.name != item.audio.name:
                yield _skipped(rival_of(owner, item))
                continue
            result = _look_at(item, dataset.presets, selection)
            if isinstance(result, Task):
                if remaining == 0:
                    return
                remaining = remaining - 1 if remaining is not None else None
            yield result


def _named_one_by_one(datasets: Iterable[Dataset]) -> dict[str, Path]:
    """The sidecars of files that are given by name, and whose they are: the first's, also among a folder's tracks."""
    named: dict[str, Path] = {}
    for dataset in datasets:
        if dataset.root.is_file():
            named.setdefault(os.path.realpath(track_for(dataset.root).sidecar), dataset.root)
    return named


def _look_at(track: Track, presets: Sequence[Preset], selection: Selection) -> Task | Outcome:
    try:
        info = read_sidecar(track.sidecar)
    except SidecarError as error:
        return Outcome(track, failures=(Failure("", error.kind, str(error), error.hint),))
    wanted = selection.presets_of(info, presets)
    if not wanted:
        return Outcome(track, skipped=COMPLETE)
    if selection.save and (obstacle := sidecar_file.obstacle(track.sidecar)):
        return Outcome(track, failures=(obstacle,))
    return Task(track, wanted, info, presets)


def _skipped(item: Skipped) -> Outcome:
    track = Track(item.path, item.path)
    if item.failed:
        hint = "give yourself permission to read it, or leave it out"
        return Outcome(track, failures=(Failure("", item.kind, item.reason, hint),))
    return Outcome(track, skipped=item.reason)


def _sweep(file: Path) -> None:
    """Remove what a killed run left; what a living one holds stays."""
    if not sidecar_file.sweep(file) and file.name.endswith(claims.SUFFIX):
        claims.sweep(file)


def claim_and(caption: Callable[[Task], Outcome], task: Task, selection: Selection) -> Outcome:
    """Caption a track that no other process is at work on, as its sidecar says now that it is ours."""
    if not selection.save:
        return caption(task)
    with claims.claimed(task.track.sidecar) as mine:
        if not mine:
            return Outcome(task.track, skipped=ELSEWHERE)
        now = _look_at(task.track, task.of, selection)
        return caption(now) if isinstance(now, Task) else now


def make_plan(datasets: Iterable[Dataset], selection: Selection, sweep: bool = False) -> Plan:
    """Count what a run would do; reads every sidecar, and unless it is to ``sweep`` writes nothing."""
    plan = Plan()
    for item in scan(datasets, selection, sweep):
        if isinstance(item, Task):
            plan.tasks += 1
            plan.prompts += len(item.presets)
            for preset in item.presets:
                plan.per_preset[preset.name] = plan.per_preset.get(preset.name, 0) + 1
        elif item.skipped == COMPLETE:
            plan.complete += 1
        elif item.failures:
            plan.problems += 1
        else:
            plan.skipped += 1
    return plan


def run_batch(
    items: Iterable[Task | Outcome],
    caption: Callable[[Task], Outcome],
    lanes: int,
    stop: Callable[[], None],
    done: Callable[[Outcome], None],
) -> None:
    """Work through a scan, ``lanes`` tracks at once, while the clip of one more is prepared.

    ``caption`` runs in threads of its own; ``done`` is called here with every outcome, as it comes. When anything
    ends this early (Ctrl-C), ``stop`` must end what is in work; those outcomes still come.
    """
    working: set[Future[Outcome]] = set()
    with ThreadPoolExecutor(lanes + 1, thread_name_prefix="track") as pool:
        try:
            for item in items:
                if isinstance(item, Outcome):
                    done(item)
                    continue
                if len(working) > lanes:
                    _tell_finished(working, done)
                working.add(pool.submit(caption, item))
            while working:
                _tell_finished(working, done)
        except BaseException:
            stop()
            for future in working:
                with contextlib.suppress(Exception):
                    done(future.result())
            raise


def _tell_finished(working: set[Future[Outcome]], done: Callable[[Outcome], None]) -> None:
    """Wait until a track is finished, and take it out of ``working``. Raises what ended a track's thread."""
    finished, _ = wait(working, return_when=FIRST_COMPLETED)
    for future in finished:
        working.discard(future)  # first: an interrupt must not have it told twice
        done(future.result())


def count(summary: Summary, outcome: Outcome) -> None:
    """Add an outcome: failed where anything of it failed, even if some presets were saved."""
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
    else:
        summary.captioned += 1
