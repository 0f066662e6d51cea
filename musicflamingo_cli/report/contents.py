"""The contents of a report, read from sidecars, audio files and the last run's log."""

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
from musicflamingo_cli.captioning import run_log
from musicflamingo_cli.dataset.tracks import find_tracks
from musicflamingo_cli.errors import AudioError, SidecarError, TrackError
from musicflamingo_cli.sidecars.captions import TINY_MODEL_ONLY, has_tiny_captions, real_captions
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.text.facts import Facts, facts_in
from musicflamingo_cli.text.t5_tokens import TokenCounter
from musicflamingo_cli.types import Skipped, Track

TINY_MODEL_KIND = "tiny model"  # the kind of problem of a track with captions of the tiny model
SHARED_CAPTION, UNUSUAL_LENGTH = "shared caption", "unusual length"  # flags of an entry; page.js filters by them

_THREADS = 4  # decoders release the interpreter lock
_BATCH = 64  # tracks read at a time, so that memory does not grow with those in the queue
_OUTLIER_SCORE = 3.5  # of the modified z-score (Iglewicz and Hoaglin)
_FEWEST_FOR_OUTLIERS = 10  # captions of a preset


@dataclass(slots=True)
class Entry:
    """A track in the report.

    ``tokens``: preset to T5 tokens of its caption. ``facts``: what its captions name. ``problem``: why audio or
    captions are missing, or what failed in the last run; ``kinds``: how problems are counted. ``thumbnail``: see
    ``audio.thumbnail``.
    """

    track: Track
    captions: dict[str, str]
    tokens: dict[str, int]
    facts: Facts
    seconds: float = 0.0
    problem: str = ""
    kinds: tuple[str, ...] = ()
    thumbnail: bytes | None = None
    flags: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """Everything that the page shows.

    ``skipped``: files that are not tracks of their own. ``failures``: kind to number of tracks. ``shared``: captions
    that several tracks have, as (preset, caption, number of tracks), the most frequent first.
    """

    root: Path
    presets: Sequence[str]
    counter: TokenCounter
    entries: list[Entry] = field(default_factory=list)
    skipped: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    shared: list[tuple[str, str, int]] = field(default_factory=list)

    @property
    def hours(self) -> float:
        """The length of all tracks in hours."""
        return sum(entry.seconds for entry in self.entries) / 3600

    @property
    def complete(self) -> int:
        """How many tracks have a caption for each preset."""
        return sum(len(entry.captions) == len(self.presets) for entry in self.entries)

    def coverage(self) -> dict[str, int]:
        """Return for each preset the number of tracks that have its caption."""
        return {preset: sum(preset in entry.captions for entry in self.entries) for preset in self.presets}

    def as_json(self) -> dict[str, Any]:
        """Return the figures for --json."""
        return {
            "dataset": str(self.root),
            "tracks": len(self.entries),
            "complete": self.complete,
            "skipped": self.skipped,
            "hours": round(self.hours, 3),
            "presets": self.coverage(),
            "failures": dict(self.failures),
            "shared_captions": len(self.shared),
            "outliers": sum(UNUSUAL_LENGTH in entry.flags for entry in self.entries),
        }


def gather(
    root: Path,
    presets: Sequence[str],
    counter: TokenCounter,
    pictures: bool = True,
    progress: Callable[[int], None] = lambda done: None,
    follow_links: bool = False,
) -> Report:
    """Read the dataset at ``root`` and return its report.

    ``pictures``: make thumbnails, too. ``progress`` is called with the number of tracks read so far.
    ``follow_links``: see ``find_tracks``.
    """
    report = Report(root=root, presets=presets, counter=counter)
    log = run_log.latest([root])
    failed = run_log.failed(log) if log else {}

    def read(track: Track) -> Entry:
        return _entry(track, presets, counter, pictures, failed)

    with ThreadPoolExecutor(_THREADS) as pool:
        tracks = _tracks(report, follow_links)
        while batch := list(islice(tracks, _BATCH)):
            report.entries += pool.map(read, batch)
            progress(len(report.entries))
    report.failures.update(kind for entry in report.entries for kind in entry.kinds)
    _flag_shared(report)
    _flag_lengths(report)
    return report


def _tracks(report: Report, follow_links: bool) -> Iterator[Track]:
    """Yield the dataset's tracks; count other files in the report."""
    for item in find_tracks(report.root, follow_links=follow_links):
        if isinstance(item, Track):
            yield item
        elif isinstance(item, Skipped) and item.failed:
            report.failures[item.kind] += 1
        else:
            report.skipped += 1


def _entry(
    track: Track, presets: Sequence[str], counter: TokenCounter, pictures: bool, failed: dict[Path, list[str]]
) -> Entry:
    """Read one track. ``failed``: absolute path to kinds of failure in the last run; else see ``gather``."""
    captions: dict[str, str] = {}
    problem: TrackError | None = None
    is_tiny = False
    try:
        info = read_sidecar(track.sidecar)
        captions, is_tiny = real_captions(info, presets), has_tiny_captions(info, presets)
    except SidecarError as error:
        problem = error
    entry = Entry(
        track=track,
        captions=captions,
        tokens={preset: counter.count(text) for preset, text in captions.items()},
        facts=facts_in(" ".join(captions.values())),
    )
    try:
        entry.seconds = measure(track.audio).seconds
    except AudioError as error:
        problem = problem or error
    if problem is not None:
        entry.kinds, entry.problem = (str(problem.kind),), f"{problem.kind}: {problem}"
    elif is_tiny:
        entry.kinds = (TINY_MODEL_KIND,)
        entry.problem = "some captions are of the tiny model" if captions else TINY_MODEL_ONLY
    elif len(captions) < len(presets):
        entry.kinds = tuple(dict.fromkeys(failed.get(track.audio.absolute(), [])))
        entry.problem = ", ".join(entry.kinds)
    if pictures and entry.seconds:
        entry.thumbnail = thumbnail(track.audio)
    return entry


def _flag_shared(report: Report) -> None:
    """Find captions that several tracks share: a sign that the model does not get the audio."""
    seen: Counter[tuple[str, bytes]] = Counter()
    for entry in report.entries:
        seen.update((preset, _digest(text)) for preset, text in entry.captions.items())
    listed = set()
    for entry in report.entries:
        for preset, text in entry.captions.items():
            key = (preset, _digest(text))
            if seen[key] > 1:
                _flag(entry, SHARED_CAPTION)
                if key not in listed:
                    listed.add(key)
                    report.shared.append((preset, text, seen[key]))
    report.shared.sort(key=lambda item: -item[2])


def _flag(entry: Entry, flag: str) -> None:
    """Add a flag to an entry, once."""
    if flag not in entry.flags:
        entry.flags.append(flag)


def _digest(text: str) -> bytes:
    """Return a hash of a caption that ignores case and white space."""
    return hashlib.sha256(" ".join(text.lower().split()).encode()).digest()[:12]


def _flag_lengths(report: Report) -> None:
    """Flag captions much longer or shorter than others of their preset, by the median absolute deviation in words."""
    for preset in report.presets:
        lengths = [len(entry.captions[preset].split()) for entry in report.entries if preset in entry.captions]
        if len(lengths) < _FEWEST_FOR_OUTLIERS:
            continue
        middle = statistics.median(lengths)
        spread = max(1.0, statistics.median(abs(length - middle) for length in lengths) / 0.6745)
        for entry in report.entries:
            if preset in entry.captions and abs(len(entry.captions[preset].split()) - middle) > _OUTLIER_SCORE * spread:
                _flag(entry, UNUSUAL_LENGTH)
