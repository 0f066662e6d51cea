"""What clips are made from: the captions of tracks, from their sidecars, or one given text."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from musicflamingo_cli.dataset.selection import number_of
from musicflamingo_cli.dataset.tracks import NO_TRACKS, find_tracks, is_audio, track_for
from musicflamingo_cli.errors import ConfigError, FailureKind, SidecarError
from musicflamingo_cli.sidecars.captions import (
    EXCLUDED_KEY,
    TINY_MODEL_ONLY,
    has_tiny_captions,
    is_approved,
    is_protected,
    real_captions,
)
from musicflamingo_cli.sidecars.checks import SHORT, descriptions, has_outdated_short
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.types import Failure, Track

# MusicGen was trained on short descriptions. Of several captions the first of these is taken, unless a person edited or
# approved another.
SUITABLE = (SHORT, "brief", "genre_mood_inst", "full")
TEXT, NOTHING = "text", "nothing"  # in place of a preset: a given text, no caption at all
_LONGEST_NAME = 160  # bytes, which leaves room for a preset and an extension


@dataclass(frozen=True, slots=True)
class Source:
    """A caption to make a clip from. ``name``: of the clip's files, without an extension.

    ``preset``: whose caption it is; TEXT or NOTHING. ``caption``: None for NOTHING, and where there is a ``failure``.
    """

    track: Track
    name: str
    preset: str
    caption: str | None = None
    is_edited: bool = False
    is_approved: bool = False
    failure: Failure | None = None

    @property
    def name_of_its_own(self) -> str:
        """The name with a hash of the track's path, which no other track has."""
        stem, mark = self.name.removesuffix(f".{self.preset}"), f"-{_hash_of(self.track.audio)}"
        return f"{stem.removesuffix(mark)}{mark}.{self.preset}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which captions. ``presets``: empty for the one that suits best. ``text``: in place of captions.

    ``is_unconditional``: no caption at all.
    """

    presets: Sequence[str] = ()
    text: str | None = None
    is_unconditional: bool = False


def require_outside(out: Path, places: Sequence[Path]) -> None:
    """Raise ConfigError where ``out`` is in a dataset: a folder of ``places``, or the folder of a track there.

    Also where it holds other audio files, which would no longer be tracks once it is marked as a folder of clips.
    """
    real = Path(os.path.realpath(out))
    for place in places:
        folder = Path(os.path.realpath(place if place.is_dir() else place.parent))
        if real.is_relative_to(folder):
            raise ConfigError(
                f"--out {out} is inside the dataset {folder}: clips there would be captioned as its tracks",
                "choose a folder outside, for example: --out ~/listened",
            )
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file", "name a folder")
    if out.is_dir() and not (out / NO_TRACKS).exists() and any(map(is_audio, out.iterdir())):
        raise ConfigError(f"--out {out} holds audio files already", "name a new folder")


def sources_of_tracks(paths: Sequence[Path], wanted: Wanted) -> list[Source]:
    """Return what to make of these audio files; a track without its caption is a source with a failure."""
    sources = [each for path in dict.fromkeys(paths) for each in _sources(track_for(path), path.stem, wanted)]
    return _with_names_of_their_own(sources)


def sample_sources(folder: Path, wanted: Wanted, count: int, seed: int) -> list[Source]:
    """Return what to make of ``count`` tracks of a dataset that have captions; the same ones for the same seed."""
    tracks = [each for each in find_tracks(folder) if isinstance(each, Track)]
    names = {each.audio: each.audio.relative_to(folder).as_posix() for each in tracks}
    tracks.sort(key=lambda each: number_of(f"{seed}\0{names[each.audio]}"))
    sources: list[Source] = []
    taken = 0
    for track in tracks:
        if taken == count:
            break
        name = str(Path(names[track.audio]).with_suffix("")).replace("/", " - ")
        found = [each for each in _sources(track, name, wanted, is_sample=True) if each.failure is None]
        sources += found
        taken += bool(found)
    return _with_names_of_their_own(sources)


def _sources(track: Track, name: str, wanted: Wanted, is_sample: bool = False) -> Iterator[Source]:
    """Yield the sources of one track; ``is_sample``: none of a track that a person excluded."""
    if wanted.is_unconditional:
        yield Source(track, name, NOTHING)
        return
    if wanted.text is not None:
        yield Source(track, name, TEXT, wanted.text)
        return
    try:
        info = read_sidecar(track.sidecar)
    except SidecarError as error:
        yield Source(track, name, "", failure=Failure.for_track(error))
        return
    if is_sample and info.get(EXCLUDED_KEY) is True:
        return
    for preset in wanted.presets or [_best_preset(info)]:
        caption = real_captions(info, [preset]).get(preset)
        if caption is None:
            yield Source(track, name, preset, failure=_no_caption(track, info, preset))
            continue
        yield Source(
            track=track,
            name=name,
            preset=preset,
            caption=caption,
            is_edited=is_protected(info, preset),
            is_approved=is_approved(info, preset),
        )


def _best_preset(info: Mapping[str, Any]) -> str:
    """Return the preset whose caption suits MusicGen: one that a person edited, else approved, else by SUITABLE."""
    order = [*([] if has_outdated_short(info) else [SHORT]), *SUITABLE[1:], *sorted(descriptions(info))]
    usable = real_captions(info, list(dict.fromkeys(order)))
    for is_preferred in (is_protected, is_approved):
        if chosen := next((preset for preset in usable if is_preferred(info, preset)), None):
            return chosen
    return next(iter(usable), SUITABLE[-1])


def _no_caption(track: Track, info: Mapping[str, Any], preset: str) -> Failure:
    hint = f"caption it first: musicflamingo caption --save -p {preset} '{track.audio}', or give a text with --text"
    if preset == SHORT:
        hint = f"make one first: musicflamingo caption --save --short 64 '{track.audio}'"
    reason = TINY_MODEL_ONLY if has_tiny_captions(info, [preset]) else "no caption of this preset"
    return Failure(preset=preset, kind=FailureKind.SKIPPED, reason=reason, hint=hint)


def _with_names_of_their_own(sources: Sequence[Source]) -> list[Source]:
    """Return the sources with the preset in each name; tracks of one name get a hash of their path, too."""
    owners: dict[str, Path] = {}
    named = []
    for each in sources:
        stem = os.fsencode(each.name)[:_LONGEST_NAME].decode("utf-8", "ignore")
        audio = each.track.audio.absolute()
        if owners.setdefault(stem.casefold(), audio) != audio:
            stem += f"-{_hash_of(audio)}"
        named.append(replace(each, name=f"{stem}.{each.preset}"))
    return named


def _hash_of(audio: Path) -> str:
    return hashlib.sha256(os.fsencode(audio.absolute())).hexdigest()[:8]
