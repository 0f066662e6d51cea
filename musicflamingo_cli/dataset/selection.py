"""Which tracks a run selects. Every choice depends only on a track's own path, so it is the same next time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from musicflamingo_cli.choices import Wanted
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars import staleness
from musicflamingo_cli.sidecars.captions import APPROVED_KEY, is_protected, provenance_of
from musicflamingo_cli.sidecars.checks import check_result
from musicflamingo_cli.sidecars.staleness import CaptionSettings, EarlierRuns
from musicflamingo_cli.types import Track


@dataclass(frozen=True, slots=True)
class Selection:
    """``shard`` is (I, N), the I-th of N disjoint parts, from 1; ``sample`` the share of tracks that is taken.

    ``include`` and ``exclude`` are globs: for the path below the dataset where they hold a slash, else for the name.
    ``only``: no other audio files than these (absolute paths). ``earlier``: with Wanted.ALL, skip captions that were
    made since those runs were noted. ``edited``: captions that a person edited, too. ``save``: whether captions go into
    sidecars. ``follow_links``: see ``find_tracks``.
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
        """Return the presets to ask about a track whose sidecar holds ``info``."""
        if self.wanted == Wanted.ALL:
            earlier = self.earlier
            open_to = presets if self.edited or not self.save else _not_edited(info, presets)
            return [each for each in open_to if earlier is None or not earlier.made_since(info, each)]
        if self.wanted == Wanted.CONTRADICTED:
            return _contradicted(info, _not_edited(info, presets))
        if self.wanted == Wanted.OUTDATED:
            return staleness.outdated(info, presets, self.settings, track.audio)
        return staleness.missing(info, presets, self.settings)


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
