"""Which tracks a run selects. Every choice depends only on a track's own path, so it is the same next time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from musicflamingo_cli.audio.segments import Cutting
from musicflamingo_cli.choices import Wanted
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars import staleness
from musicflamingo_cli.sidecars.captions import APPROVED_KEY, has_real_caption, is_protected, provenance_of
from musicflamingo_cli.sidecars.checks import check_result
from musicflamingo_cli.sidecars.segments import (
    Segment,
    cut_audio,
    has_edited_segments,
    has_real_segments,
    is_cut_so,
    segments_of,
)
from musicflamingo_cli.sidecars.staleness import CaptionSettings, EarlierRuns
from musicflamingo_cli.system.identity import is_replaced
from musicflamingo_cli.types import COMPLETE, CUT_OTHERWISE, OTHER_AUDIO, OTHER_SEGMENTS, WOULD_BE_LOST, Track


@dataclass(frozen=True, slots=True)
class Selection:
    """``shard`` is (I, N), the I-th of N disjoint parts, from 1; ``sample`` the share of tracks that is taken.

    ``include`` and ``exclude`` are globs: for the path below the dataset where they hold a slash, else for the name.
    ``only``: no other audio files than these (absolute paths). ``earlier``: with Wanted.ALL, skip captions that were
    made since those runs were noted. ``edited``: captions that a person edited, too. ``save``: whether captions go into
    sidecars. ``follow_links``: see ``find_tracks``. ``cutting``: captions of segments, cut so, instead of the whole's.
    """

    wanted: Wanted = Wanted.MISSING
    settings: CaptionSettings = field(default_factory=CaptionSettings)
    earlier: EarlierRuns | None = None
    edited: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    shard: tuple[int, int] = (1, 1)
    sample: float = 1.0
    seed: int = 0
    only: frozenset[Path] | None = None
    limit: int | None = None
    save: bool = True
    follow_links: bool = False
    cutting: Cutting | None = None

    def takes(self, track: Track, root: Path) -> bool:
        """Return whether a track of the dataset at ``root`` is selected."""
        name = track.audio.relative_to(root).as_posix() if track.audio != root else track.audio.name
        if self.only is not None and track.audio.absolute() not in self.only:
            return False
        if self.extensions and track.audio.suffix.lower().lstrip(".") not in self.extensions:
            return False
        if self.include and not any(_matches(name, glob) for glob in self.include):
            return False
        if any(_matches(name, glob) for glob in self.exclude):
            return False
        index, count = self.shard
        if count > 1 and number_of(name) % count != index - 1:
            return False
        return self.sample >= 1 or number_of(f"{self.seed}\0{name}") < self.sample * 2**64

    def presets_of(self, track: Track, info: Mapping[str, Any], presets: Sequence[Preset]) -> list[Preset]:
        """Return the presets to ask about a track whose sidecar holds ``info``, or about any of its segments."""
        if self.cutting is not None:
            return self._presets_of_segments(track, info, presets, self.cutting)
        if self.wanted == Wanted.ALL:
            earlier = self.earlier
            open_to = presets if self.edited or not self.save else _not_edited(info, presets)
            return [each for each in open_to if earlier is None or not earlier.made_since(info, each)]
        if self.wanted == Wanted.CONTRADICTED:
            return _contradicted(info, _not_edited(info, presets))
        if self.wanted == Wanted.OUTDATED:
            return staleness.outdated(info, presets, self.settings, track.audio)
        return staleness.missing(info, presets, self.settings)

    def presets_of_segment(
        self, track: Track, info: Mapping[str, Any], segment: Segment, presets: Sequence[Preset]
    ) -> list[Preset]:
        """Return the presets to ask about one segment of a track whose sidecar holds ``info``."""
        if segment.is_silent and not is_replaced(track.audio, cut_audio(info)):
            return []
        return replace(self, cutting=None).presets_of(track, segment.as_info(), presets)

    def complete_reason(self, track: Track, info: Mapping[str, Any], presets: Sequence[Preset]) -> str:
        """Return why nothing is to be asked about a track whose sidecar holds ``info``."""
        if self.cutting is None:
            return COMPLETE
        if not is_cut_so(info, self.cutting):
            lost = [] if self.wanted == Wanted.MISSING else self._lost(info, presets)
            return f"{WOULD_BE_LOST}: {', '.join(lost)} (name these presets, too)" if lost else CUT_OTHERWISE
        return OTHER_SEGMENTS if self._keeps_segments_of_other_audio(track, info) else COMPLETE

    def notes_on(self, track: Track, info: Mapping[str, Any], presets: Sequence[Preset]) -> tuple[str, ...]:
        """Return what a person should know about a track that needs nothing."""
        is_kept = self.wanted == Wanted.MISSING and self.cutting is None
        names = [preset.name for preset in presets]
        return (OTHER_AUDIO,) if is_kept and staleness.has_other_audio(info, names, track.audio) else ()

    def _presets_of_segments(
        self, track: Track, info: Mapping[str, Any], presets: Sequence[Preset], cutting: Cutting
    ) -> list[Preset]:
        segments = segments_of(info)
        if self._keeps_segments_of_other_audio(track, info):
            return []
        if segments and not is_cut_so(info, cutting):
            is_kept = has_edited_segments(info) and not self.edited
            is_kept |= bool(self._lost(info, presets))
            is_kept |= self.wanted == Wanted.OUTDATED and self.settings.is_tiny and has_real_segments(info)
            return [] if is_kept or self.wanted == Wanted.MISSING else list(presets)
        wanted = [self.presets_of_segment(track, info, segment, presets) for segment in segments]
        return [preset for preset in presets if not segments or any(preset in each for each in wanted)]

    def _lost(self, info: Mapping[str, Any], presets: Sequence[Preset]) -> list[str]:
        """The presets whose captions would be lost where a track is cut again and only ``presets`` are asked."""
        names: set[str] = set()
        for segment in segments_of(info) if not self.edited else []:
            own = segment.as_info()  # to a real model, captions of the tiny model are no loss
            names |= {name for name in segment.captions if self.settings.is_tiny or has_real_caption(own, name)}
        return sorted(names - {preset.name for preset in presets})

    def _keeps_segments_of_other_audio(self, track: Track, info: Mapping[str, Any]) -> bool:
        """Whether a track's file was replaced after it was cut; captions of both files would be mixed in one list."""
        return self.wanted == Wanted.MISSING and bool(segments_of(info)) and is_replaced(track.audio, cut_audio(info))


def _contradicted(info: Mapping[str, Any], presets: Sequence[Preset]) -> list[Preset]:
    """Return the presets with a contradicted claim, as far as nobody has approved them."""
    result = check_result(info)
    if result is None or info.get(APPROVED_KEY) is True:
        return []
    approved = {each.name for each in presets if provenance_of(info, each.name).get("approved") is True}
    return [each for each in presets if each.name in result.contradicted and each.name not in approved]


def _not_edited(info: Mapping[str, Any], presets: Sequence[Preset]) -> list[Preset]:
    return [preset for preset in presets if not is_protected(info, preset.name)]


def _matches(name: str, glob: str) -> bool:
    return fnmatchcase(name if "/" in glob else PurePosixPath(name).name, glob)


def number_of(name: str) -> int:
    """Return a 64-bit number that depends on the name alone: files that are added later change no other's."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big")
