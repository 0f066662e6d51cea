"""The contents of a report, read from sidecars, audio files and the last run's log, one track after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from musicflamingo_cli.audio.clip import measure
from musicflamingo_cli.audio.thumbnail import thumbnail
from musicflamingo_cli.captioning import run_log
from musicflamingo_cli.dataset.tracks import find_tracks
from musicflamingo_cli.errors import AudioError, SidecarError, TrackError
from musicflamingo_cli.report.survey import Survey, read_in_batches
from musicflamingo_cli.sidecars.captions import TINY_MODEL_ONLY, has_tiny_captions, real_captions
from musicflamingo_cli.sidecars.checks import CheckResult, check_result
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.sidecars.segments import Segment, segments_of
from musicflamingo_cli.text.facts import Facts, facts_in
from musicflamingo_cli.text.t5_tokens import TokenCounter
from musicflamingo_cli.types import Track

TINY_MODEL_KIND = "tiny model"  # the kind of problem of a track with captions of the tiny model
CONTRADICTED, IN_DOUBT = "contradicted", "in doubt"  # flags of the check; page.js filters by them


@dataclass(frozen=True, slots=True)
class Source:
    """What a report is about. ``pictures``: with a thumbnail of each track. ``follow_links``: see ``find_tracks``."""

    root: Path
    presets: Sequence[str]
    counter: TokenCounter
    pictures: bool = True
    follow_links: bool = False


@dataclass(slots=True)
class Entry:
    """A track in the report.

    ``tokens``: preset to T5 tokens of its caption. ``facts``: what its captions name. ``problem``: why audio or
    captions are missing, or what failed in the last run; ``kinds``: how problems are counted. ``thumbnail``: see
    ``audio.thumbnail``. ``flags``: see ``Survey.flags``, and those of the check. ``check``: the result of
    `musicflamingo check`, None where there is no current one. ``segments``: with the captions that are shown.
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
    check: CheckResult | None = None
    segments: list[Segment] = field(default_factory=list)


def read_entries(
    source: Source, survey: Survey, progress: Callable[[Sequence[Entry]], None] = lambda entries: None
) -> Iterator[Entry]:
    """Yield the tracks of the dataset. ``progress`` is called with those that were read, several at a time."""
    log = run_log.latest([source.root])
    failed = run_log.failed(log) if log else {}

    def read(track: Track) -> Entry:
        entry = _entry(track, source, failed)
        entry.flags += survey.flags(entry.captions)
        return entry

    found = find_tracks(source.root, follow_links=source.follow_links)
    for batch in read_in_batches(read, (item for item in found if isinstance(item, Track))):
        progress(batch)
        yield from batch


def _entry(track: Track, source: Source, failed: dict[Path, list[str]]) -> Entry:
    """Read one track. ``failed``: absolute path to kinds of failure in the last run."""
    captions: dict[str, str] = {}
    check, segments = None, list[Segment]()
    problem: TrackError | None = None
    is_tiny = False
    try:
        info = read_sidecar(track.sidecar)
        captions, is_tiny = real_captions(info, source.presets), has_tiny_captions(info, source.presets)
        check, segments = check_result(info), _segments(info, source.presets)
    except SidecarError as error:
        problem = error
    entry = Entry(
        track=track,
        captions=captions,
        tokens={preset: source.counter.count(text) for preset, text in captions.items()},
        facts=facts_in(" ".join(captions.values())),
        check=check,
        segments=segments,
    )
    if check and (check.contradicted or check.reasons):
        entry.flags.append(CONTRADICTED if check.contradicted else IN_DOUBT)
    try:
        entry.seconds = measure(track.audio).seconds
    except AudioError as error:
        problem = problem or error
    if problem is not None:
        entry.kinds, entry.problem = (str(problem.kind),), f"{problem.kind}: {problem}"
    elif is_tiny:
        entry.kinds = (TINY_MODEL_KIND,)
        entry.problem = "some captions are of the tiny model" if captions else TINY_MODEL_ONLY
    elif len(captions) < len(source.presets):
        entry.kinds = tuple(dict.fromkeys(failed.get(track.audio.absolute(), [])))
        entry.problem = ", ".join(entry.kinds)
    if source.pictures and entry.seconds:
        entry.thumbnail = thumbnail(track.audio)
    return entry


def _segments(info: Mapping[str, Any], presets: Sequence[str]) -> list[Segment]:
    """Return the segments that are silent or have captions of the presets, with these captions."""
    found = [replace(each, captions=real_captions(each.as_info(), presets)) for each in segments_of(info)]
    return [each for each in found if each.captions or each.is_silent]
