"""The rows of an export: one per track, each with the caption that was drawn for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from musicflamingo_cli.audio import tags
from musicflamingo_cli.audio.clip import Measure
from musicflamingo_cli.audio.segments import Span
from musicflamingo_cli.dataset.selection import number_of
from musicflamingo_cli.dataset.tracks import CLIPS, LEADS_OUT, find_tracks
from musicflamingo_cli.errors import AudioError, SidecarError, TrackError
from musicflamingo_cli.exports.cutting import suffix_of
from musicflamingo_cli.exports.trusted import NOTHING_LEFT, MusicFields, music_fields, revised, why_not_trusted
from musicflamingo_cli.sidecars.captions import (
    APPROVED_KEY,
    EXCLUDED_KEY,
    TINY_MODEL_ONLY,
    has_tiny_captions,
    is_text,
    real_captions,
)
from musicflamingo_cli.sidecars.checks import SHORT, SUMMARY, has_outdated_short, has_outdated_summary
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.sidecars.segments import cut_audio, segments_of
from musicflamingo_cli.sidecars.staleness import has_other_audio
from musicflamingo_cli.system.identity import is_replaced
from musicflamingo_cli.text.facts import facts_in
from musicflamingo_cli.types import KEY_PREFIX, Failure, Skipped, Track

logger = logging.getLogger(__name__)

TRAIN, VALIDATION = "train", "validation"
_EXCLUDED = "excluded in the review"
_OUTDATED = {SHORT: "short version", SUMMARY: "summary"}


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Which tracks are exported, and which captions of each.

    ``weights``: preset to weight; a track's text is drawn from these presets with these weights. ``columns``: the
    presets whose captions are written, too, where a format has room for more than one. ``prefix`` and ``postfix`` are
    added to each caption, with a space between. ``min_words`` and ``max_words``: captions of other lengths are left
    out, not cut. ``validation``: the share of tracks, from 0 to 1, in the validation split; it is chosen by a hash of
    each path. ``follow_links``: export what links lead to outside of the dataset, too. ``min_trust``: leave out tracks
    whose check has a lower score, from 0 to 1, or none. ``strike`` and ``correct``: see ``trust.revision``.
    ``segments``: a row for each segment, instead of one for each track.
    """

    weights: Mapping[str, float]
    columns: Sequence[str]
    prefix: str = ""
    postfix: str = ""
    min_words: int = 1
    max_words: int | None = None
    only_complete: bool = False
    only_approved: bool = False
    validation: float = 0.0
    seed: int = 42
    follow_links: bool = False
    min_trust: float | None = None
    strike: bool = False
    correct: bool = False
    segments: bool = False

    @property
    def revises(self) -> bool:
        """Whether captions may differ from the sidecars'."""
        return self.strike or self.correct

    @property
    def presets(self) -> list[str]:
        """All presets that are read, each once."""
        return list(dict.fromkeys([*self.columns, *self.weights]))

    def decorate(self, caption: str) -> str:
        """Return a caption with prefix and postfix."""
        return " ".join(filter(None, (self.prefix, caption, self.postfix)))

    def accepts_length(self, caption: str) -> bool:
        """Return whether a caption has the right number of words."""
        words = len(caption.split())
        return self.min_words <= words and (self.max_words is None or words <= self.max_words)


@dataclass(frozen=True, slots=True)
class Cut:
    """Which part of its track a row is: its place, and the track's path relative to the dataset."""

    span: Span
    path: PurePosixPath


@dataclass(frozen=True, slots=True)
class Row:
    """A track, or a segment of it (``cut``), and its captions.

    ``path`` is the audio's, relative to the dataset; that of a segment, which no file there has, is made from its
    track's. ``text`` is the caption that was drawn, ``preset`` its preset.
    ``captions`` maps presets to captions with prefix and postfix, ``raw_captions`` without; missing ones are absent.
    ``split`` is TRAIN, VALIDATION, or empty where there is no validation split. ``info`` is the sidecar's data.
    ``changes``: what was changed in which captions, by preset.
    """

    track: Track
    path: PurePosixPath
    text: str
    preset: str
    captions: Mapping[str, str]
    raw_captions: Mapping[str, str]
    split: str
    info: Mapping[str, Any]
    changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cut: Cut | None = None

    @property
    def track_path(self) -> PurePosixPath:
        """The path of the track, relative to the dataset."""
        return self.cut.path if self.cut else self.path

    @property
    def change_list(self) -> str:
        """What was changed, in one line; empty where nothing was."""
        return "; ".join(f"{preset}: {each}" for preset, changes in self.changes.items() for each in changes)

    def facts(self, header: Measure) -> TrackFacts:
        """Return what is known of the track besides its captions. ``header``: its audio's length and rate."""
        described = tags.describe(self.track.audio, self.info, header.seconds)
        known = {name: value for name, value in described.items() if is_text(value)}
        text = " ".join(self.raw_captions.values())
        found = facts_in(text)
        music = music_fields(self.info, self.track.audio)
        return TrackFacts(
            seconds=header.seconds,
            rate=header.rate,
            known=known,
            bpm=music.bpm,
            key=known.get("key", "") or music.key,
            genres=found.genres,
            instruments=found.instruments,
            moods=found.moods,
            music=music,
        )


@dataclass(frozen=True, slots=True)
class TrackFacts:
    """What is known of a track besides its captions.

    ``seconds`` is its length and ``rate`` its sample rate in Hz. ``known`` holds title, artist, album, year, genre,
    bpm and key from sidecar and tags, as far as present. ``bpm`` (beats per minute, or None) and ``key`` (or empty) are
    measured, or else taken from the captions, where sidecar and tags lack them. ``music``: more such fields.
    """

    seconds: float
    rate: int
    known: Mapping[str, str]
    bpm: float | None
    key: str
    genres: tuple[str, ...]
    instruments: tuple[str, ...]
    moods: tuple[str, ...]
    music: MusicFields


@dataclass(slots=True)
class ExportStats:
    """Counts over an export.

    ``revised``: tracks with changed captions. ``left_out``: reason to number of tracks. ``parts``: split to number of
    tracks. ``remarks``: what a user should know of some exported tracks, to their number.
    """

    exported: int = 0
    revised: int = 0
    failures: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    parts: dict[str, int] = field(default_factory=dict)
    remarks: dict[str, int] = field(default_factory=dict)

    def leave_out(self, reason: str) -> None:
        """Count a track that is not exported."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1

    def remark(self, text: str) -> None:
        """Count an exported track that a remark applies to."""
        self.remarks[text] = self.remarks.get(text, 0) + 1

    def fail(self, audio: Path, error: TrackError) -> None:
        """Count and log a track that failed."""
        self.add_failure(audio, Failure.for_track(error))

    def add_failure(self, audio: Path, failure: Failure) -> None:
        """Count and log a failure."""
        self.failures += 1
        logger.warning("%s", failure.line(audio))


def rows_of(root: Path, options: ExportOptions, stats: ExportStats) -> Iterator[Row]:
    """Yield the rows of the dataset at ``root`` in a stable order, one at a time.

    Tracks that are left out or fail are counted in ``stats``.
    """
    for item in find_tracks(root, follow_links=options.follow_links):
        if isinstance(item, Skipped):
            if item.failed:
                stats.add_failure(item.path, Failure(preset="", kind=item.kind, reason=item.reason))
            else:
                is_folder = item.reason in (LEADS_OUT, CLIPS)
                stats.leave_out(item.reason if is_folder else "another file has the same sidecar")
            continue
        try:
            info = read_sidecar(item.sidecar)
        except SidecarError as error:
            stats.fail(item.audio, error)
            continue
        if not is_text(str(item.audio)):
            stats.fail(
                item.audio, AudioError("the name is not UTF-8, which dataset formats require", "rename the file")
            )
            continue
        rows = _segment_rows(item, root, info, options) if options.segments else [_row(item, root, info, options)]
        for row in rows:
            if isinstance(row, str):
                stats.leave_out(row)
                continue
            if not options.segments and has_other_audio(info, row.captions, row.track.audio):
                stats.remark("have captions of an earlier audio file (make them again with batch --stale)")
            yield row


def share(text: str) -> float:
    """Return a number in [0, 1) that depends on the text alone, so that new files do not change that of others."""
    return number_of(text) / 2**64


def _segment_rows(track: Track, root: Path, info: Mapping[str, Any], options: ExportOptions) -> Iterator[Row | str]:
    """Yield a row for each segment of a track, or the reason why it, or the whole track, is left out."""
    segments = segments_of(info)
    if info.get(EXCLUDED_KEY) is True:
        segments = []
        yield _EXCLUDED
    elif not segments:
        yield "no segments (make them with batch --segments)"
    elif is_replaced(track.audio, cut_audio(info)):
        segments = []
        yield "segments of an earlier audio file (cut it again with batch --segments --stale)"
    # What our keys say is about the whole, as are the lyrics.
    known = {key: value for key, value in info.items() if not key.startswith(KEY_PREFIX) and key != "lyrics"}
    path = PurePosixPath(track.audio.relative_to(root).as_posix())
    for number, segment in enumerate(segments):
        if segment.is_silent:
            yield "silent segment"
            continue
        name = path.with_name(f"{path.stem}-{number:03d}{suffix_of(track.audio)}")
        yield _row(track, root, {**known, **segment.as_info()}, options, (name, Cut(segment.span, path)))


def _row(
    track: Track,
    root: Path,
    info: Mapping[str, Any],
    options: ExportOptions,
    segment: tuple[PurePosixPath, Cut] | None = None,
) -> Row | str:
    """Return the row of a track, or of a ``segment`` with a path of its own; or the reason why it is left out."""
    if info.get(EXCLUDED_KEY) is True:
        return _EXCLUDED
    available = _available(info, options)
    if isinstance(available, str):
        return available
    if options.only_complete and len(available) < len(options.presets):
        return "not complete"
    if options.only_approved and info.get(APPROVED_KEY) is not True:
        return "not approved"
    if options.min_trust is not None and (reason := why_not_trusted(info, options.min_trust)):
        return reason
    changes: Mapping[str, tuple[str, ...]] = {}
    if options.revises:
        available, changes = revised(track, info, available, strike=options.strike, correct=options.correct)
        if not available:
            return NOTHING_LEFT
    raw = {preset: text for preset, text in available.items() if options.accepts_length(text)}
    track_path = PurePosixPath(track.audio.relative_to(root).as_posix())
    path, cut = segment or (track_path, None)
    preset = _draw({name: options.weights[name] for name in raw if name in options.weights}, path, options.seed)
    if not preset:
        return "no caption of the right length" if set(available) & set(options.weights) else "no caption"
    captions = {name: options.decorate(text) for name, text in raw.items()}
    split = (VALIDATION if share(str(track_path)) < options.validation else TRAIN) if options.validation else ""
    return Row(
        track=track,
        path=path,
        text=captions[preset],
        preset=preset,
        captions=captions,
        raw_captions=raw,
        split=split,
        info=info,
        changes=changes,
        cut=cut,
    )


def _available(info: Mapping[str, Any], options: ExportOptions) -> dict[str, str] | str:
    """Return the captions that may be exported, by preset, or the reason why there are none."""
    available = real_captions(info, options.presets)
    reason = TINY_MODEL_ONLY if has_tiny_captions(info, options.presets) else "no caption"
    for name, is_outdated in ((SHORT, has_outdated_short), (SUMMARY, has_outdated_summary)):
        if name in available and is_outdated(info):
            del available[name]
            reason = f"outdated {_OUTDATED[name]}"
    return available or reason


def _draw(weights: Mapping[str, float], path: PurePosixPath, seed: int) -> str:
    """Return one of the presets, by their weights and the track's path; an empty string where there are none."""
    left = share(f"{seed}\0{path}") * sum(weights.values())
    for preset, weight in weights.items():
        left -= weight
        if left < 0:
            return preset
    return list(weights)[-1] if weights else ""
