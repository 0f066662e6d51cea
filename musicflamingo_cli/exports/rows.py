"""What is exported of a dataset: a stream of rows, one a track, each with the caption that was chosen for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from musicflamingo_cli.audio import tags
from musicflamingo_cli.audio.clip import measure
from musicflamingo_cli.dataset.selection import number_of
from musicflamingo_cli.dataset.tracks import find_tracks
from musicflamingo_cli.errors import AudioError, SidecarError, TrackError
from musicflamingo_cli.sidecars import merge as sidecar
from musicflamingo_cli.sidecars import staleness as freshness
from musicflamingo_cli.text.facts import FASTEST, SLOWEST, key_of, tempo_of, words_of
from musicflamingo_cli.types import Failure, Skipped, Track

TRAIN, VALIDATION = "train", "validation"
TOYS = "the tiny model's words only"  # which are no captions: it knows no real music


@dataclass(frozen=True, slots=True)
class Choice:
    """Which tracks are exported, and which words of each.

    ``weights``: the presets that a track's text is drawn from, by these odds. ``columns``: the presets whose captions
    go along where a format has room for more than one. ``min_words`` and ``max_words`` leave captions out, they do
    not cut them. ``validation``: the share of tracks, by a hash of their path, that is kept apart.
    """

    weights: Mapping[str, float]
    columns: Sequence[str]
    prefix: str = ""  # a trigger word, say; a space comes between
    postfix: str = ""
    min_words: int = 1
    max_words: int | None = None
    only_complete: bool = False
    only_approved: bool = False
    validation: float = 0.0
    seed: int = 42

    @property
    def presets(self) -> list[str]:
        """All presets that are read, each once."""
        return list(dict.fromkeys([*self.columns, *self.weights]))

    def dress(self, caption: str) -> str:
        """A caption with what goes before and after it."""
        return " ".join(filter(None, (self.prefix, caption, self.postfix)))


@dataclass(frozen=True, slots=True)
class Row:
    """A track and its words. ``path``: of the audio, below the dataset. ``preset``: whose caption ``text`` is."""

    track: Track
    path: PurePosixPath
    text: str
    preset: str
    captions: Mapping[str, str]  # preset to caption, only of those that there are; with prefix and suffix
    undressed: Mapping[str, str]  # the same without
    split: str  # TRAIN, VALIDATION, or empty where nothing is kept apart
    info: Mapping[str, Any]  # the sidecar

    def facts(self) -> Facts:
        """What is known of the track besides its captions. Reads the audio's header; raises AudioError."""
        size = measure(self.track.audio)
        described = tags.describe(self.track.audio, self.info, size.seconds)
        known = {name: value for name, value in described.items() if is_text(value)}
        said = " ".join(self.undressed.values())
        words = words_of(said)
        bpm = float(known.get("bpm", 0))
        return Facts(
            size.seconds,
            size.rate,
            known,
            bpm if SLOWEST <= bpm <= FASTEST else tempo_of(said),
            known.get("key", "") or key_of(said),
            words.genres,
            words.instruments,
            words.moods,
        )


@dataclass(frozen=True, slots=True)
class Facts:
    """``known``: title, artist, album, year, genre, bpm, key, from sidecar and tags, those that there are.

    ``bpm`` and ``key`` are what the captions say where nothing better is known; None and empty where they do not.
    """

    seconds: float
    rate: int  # Hz
    known: Mapping[str, str]
    bpm: float | None
    key: str
    genres: tuple[str, ...]
    instruments: tuple[str, ...]
    moods: tuple[str, ...]


@dataclass(slots=True)
class Tally:
    """What became of a dataset's tracks. ``failed`` is called with each that could not be read, as it comes."""

    failed: Callable[[Path, Failure], None]
    exported: int = 0
    failures: int = 0
    left_out: dict[str, int] = field(default_factory=dict)  # reason to number of tracks
    parts: dict[str, int] = field(default_factory=dict)  # split to number of tracks
    remarks: dict[str, int] = field(default_factory=dict)  # what to know of some that are exported, and their number

    def leave_out(self, reason: str) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + 1

    def remark(self, text: str) -> None:
        self.remarks[text] = self.remarks.get(text, 0) + 1

    def fail(self, audio: Path, error: TrackError) -> None:
        self.failures += 1
        self.failed(audio, Failure("", error.kind, str(error), error.hint))


def rows_of(root: Path, choice: Choice, tally: Tally) -> Iterator[Row]:
    """The rows of the dataset at ``root`` in a stable order; memory does not grow with it."""
    for item in find_tracks(root):
        if isinstance(item, Skipped):
            if item.failed:
                tally.failures += 1
                tally.failed(item.path, Failure("", item.kind, item.reason))
            else:
                tally.leave_out("another file has the same sidecar")
            continue
        try:
            info = sidecar.read_sidecar(item.sidecar)
        except SidecarError as error:
            tally.fail(item.audio, error)
            continue
        if not is_text(str(item.audio)):
            tally.fail(item.audio, AudioError("its name is not UTF-8, which no dataset format can hold", "rename it"))
            continue
        row = _row(item, root, info, choice)
        if isinstance(row, str):
            tally.leave_out(row)
        else:
            yield row


def captions_of(info: Mapping[str, Any], presets: Sequence[str]) -> dict[str, str]:
    """A sidecar's captions by preset; the tiny model's words are none."""
    found = {}
    for preset in presets:
        caption = info.get(sidecar.caption_key(preset))
        if isinstance(caption, str) and caption.strip() and is_text(caption) and not _is_toys(info, preset):
            found[preset] = caption
    return found


def holds_toys(info: Mapping[str, Any], presets: Sequence[str]) -> bool:
    """Whether the test model has answered one of these presets: what looks like a caption is none."""
    return any(_is_toys(info, preset) for preset in presets)


def _is_toys(info: Mapping[str, Any], preset: str) -> bool:
    return freshness.is_toys(freshness.provenance_of(info, preset))


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def share(text: str) -> float:
    """A number in [0, 1) that depends on the text alone: files that are added later change no other's."""
    return number_of(text) / 2**64


def _row(track: Track, root: Path, info: Mapping[str, Any], choice: Choice) -> Row | str:
    """The track's row, or why it has none."""
    there = captions_of(info, choice.presets)
    if not there:
        return TOYS if holds_toys(info, choice.presets) else "no caption"
    if choice.only_complete and len(there) < len(choice.presets):
        return "not complete"
    if choice.only_approved and info.get(sidecar.APPROVED_KEY) is not True:
        return "not approved"
    fit = {preset: text for preset, text in there.items() if _fits(text, choice)}
    path = PurePosixPath(track.audio.relative_to(root).as_posix())
    preset = _drawn({name: choice.weights[name] for name in fit if name in choice.weights}, path, choice.seed)
    if not preset:
        return "no caption of the right length" if set(there) & set(choice.weights) else "no caption"
    dressed = {name: choice.dress(text) for name, text in fit.items()}
    split = (VALIDATION if share(str(path)) < choice.validation else TRAIN) if choice.validation else ""
    return Row(track, path, dressed[preset], preset, dressed, fit, split, info)


def _fits(caption: str, choice: Choice) -> bool:
    words = len(caption.split())
    return choice.min_words <= words and (choice.max_words is None or words <= choice.max_words)


def _drawn(weights: Mapping[str, float], path: PurePosixPath, seed: int) -> str:
    """One of the presets, by their odds and the track's path; empty where there is none."""
    left = share(f"{seed}\0{path}") * sum(weights.values())
    for preset, weight in weights.items():
        left -= weight
        if left < 0:
            return preset
    return list(weights)[-1] if weights else ""
