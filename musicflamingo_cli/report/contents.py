"""What a report says: read from sidecars, audio headers and the last run's log, and nothing else."""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from musicflamingo_cli.audio.clip import measure
from musicflamingo_cli.audio.thumbnail import thumbnail
from musicflamingo_cli.captioning import run_log as runlog
from musicflamingo_cli.dataset.tracks import find_tracks
from musicflamingo_cli.errors import AudioError, SidecarError, TrackError
from musicflamingo_cli.exports.rows import TOYS, captions_of, holds_toys
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.text.facts import Words, words_of
from musicflamingo_cli.text.t5_tokens import TokenCounter
from musicflamingo_cli.types import Skipped, Track

_THREADS = 4  # decoders leave the interpreter to each other
_AT_A_TIME = 64  # tracks in work, so that memory does not grow with those that wait
_FAR = 3.5  # robust deviations from the middle that make an outlier (Iglewicz and Hoaglin)
_FEWEST_FOR_OUTLIERS = 10


@dataclass(slots=True)
class Entry:
    """A track in the report. ``problem``: why there is nothing to hear or read, or what failed in the last run."""

    track: Track
    captions: dict[str, str]
    tokens: dict[str, int]
    words: Words
    seconds: float = 0.0
    problem: str = ""
    kinds: tuple[str, ...] = ()  # of the problem, as failures are counted
    thumbnail: bytes | None = None
    flags: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """Everything that the page shows. ``failures``: kind to number of tracks; ``shared``: captions on many tracks."""

    root: Path
    presets: Sequence[str]
    counter: TokenCounter
    entries: list[Entry] = field(default_factory=list)
    skipped: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    shared: list[tuple[str, str, int]] = field(default_factory=list)  # preset, caption, on how many tracks

    @property
    def hours(self) -> float:
        return sum(entry.seconds for entry in self.entries) / 3600

    @property
    def complete(self) -> int:
        return sum(len(entry.captions) == len(self.presets) for entry in self.entries)

    def coverage(self) -> dict[str, int]:
        """For each preset, how many tracks have its caption."""
        return {preset: sum(preset in entry.captions for entry in self.entries) for preset in self.presets}

    def as_json(self) -> dict[str, Any]:
        """The figures, for --json."""
        return {
            "dataset": str(self.root),
            "tracks": len(self.entries),
            "complete": self.complete,
            "skipped": self.skipped,
            "hours": round(self.hours, 3),
            "presets": self.coverage(),
            "failures": dict(self.failures),
            "shared_captions": len(self.shared),
            "outliers": sum("unusual length" in entry.flags for entry in self.entries),
        }


def gather(
    root: Path,
    presets: Sequence[str],
    counter: TokenCounter,
    pictures: bool = True,
    progress: Callable[[int], None] = lambda done: None,
) -> Report:
    """Read the dataset at ``root``. ``pictures``: make spectrograms, too. ``progress`` gets the tracks done so far."""
    report = Report(root, presets, counter)
    log = runlog.latest([root])
    failed = runlog.failed(log) if log else {}

    def look(track: Track) -> Entry:
        return _entry(track, presets, counter, pictures, failed)

    with ThreadPoolExecutor(_THREADS) as pool:
        tracks = _tracks(report)
        while batch := list(islice(tracks, _AT_A_TIME)):
            report.entries += pool.map(look, batch)
            progress(len(report.entries))
    report.failures.update(kind for entry in report.entries for kind in entry.kinds)
    _flag_shared(report)
    _flag_lengths(report)
    return report


def _tracks(report: Report) -> Iterator[Track]:
    for item in find_tracks(report.root):
        if isinstance(item, Track):
            yield item
        elif isinstance(item, Skipped) and item.failed:
            report.failures[item.kind] += 1
        else:
            report.skipped += 1


def _entry(
    track: Track, presets: Sequence[str], counter: TokenCounter, pictures: bool, failed: dict[Path, list[str]]
) -> Entry:
    captions: dict[str, str] = {}
    problem: TrackError | None = None
    is_toy = False
    try:
        info = read_sidecar(track.sidecar)
        captions, is_toy = captions_of(info, presets), holds_toys(info, presets)
    except SidecarError as error:
        problem = error
    entry = Entry(
        track,
        captions,
        {preset: counter.count(text) for preset, text in captions.items()},
        words_of(" ".join(captions.values())),
    )
    try:
        entry.seconds = measure(track.audio).seconds
    except AudioError as error:
        problem = problem or error
    if problem is not None:
        entry.kinds, entry.problem = (problem.kind,), f"{problem.kind}: {problem}"
    elif is_toy:
        entry.kinds, entry.problem = ("toy",), TOYS if not captions else "the tiny model's words among its captions"
    elif len(captions) < len(presets):
        entry.kinds = tuple(dict.fromkeys(failed.get(track.audio.absolute(), [])))
        entry.problem = ", ".join(entry.kinds)
    if pictures and entry.seconds:
        entry.thumbnail = thumbnail(track.audio)
    return entry


def _flag_shared(report: Report) -> None:
    """The same words on several tracks: a sign of a model that does not hear."""
    seen: Counter[tuple[str, bytes]] = Counter()
    for entry in report.entries:
        seen.update((preset, _digest(text)) for preset, text in entry.captions.items())
    told = set()
    for entry in report.entries:
        for preset, text in entry.captions.items():
            key = (preset, _digest(text))
            if seen[key] > 1:
                entry.flags += ["shared caption"] * ("shared caption" not in entry.flags)
                if key not in told:
                    told.add(key)
                    report.shared.append((preset, text, seen[key]))
    report.shared.sort(key=lambda item: -item[2])


def _digest(text: str) -> bytes:
    return hashlib.sha256(" ".join(text.lower().split()).encode()).digest()[:12]


def _flag_lengths(report: Report) -> None:
    """Captions much longer or shorter than the preset's others, by the median deviation, which outliers do not move."""
    for preset in report.presets:
        lengths = [len(entry.captions[preset].split()) for entry in report.entries if preset in entry.captions]
        if len(lengths) < _FEWEST_FOR_OUTLIERS:
            continue
        middle = statistics.median(lengths)
        spread = max(1.0, statistics.median(abs(length - middle) for length in lengths) / 0.6745)
        for entry in report.entries:
            if preset in entry.captions and abs(len(entry.captions[preset].split()) - middle) > _FAR * spread:
                entry.flags += ["unusual length"] * ("unusual length" not in entry.flags)
