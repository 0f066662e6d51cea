"""The examples of a training: captions that a person approved or edited, each with the question of its preset."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musicflamingo_cli.audio import tags
from musicflamingo_cli.audio.clip import measure
from musicflamingo_cli.dataset.tracks import find_tracks
from musicflamingo_cli.errors import AudioError, ConfigError, PromptError, TrackError
from musicflamingo_cli.exports.rows import share
from musicflamingo_cli.finetuning.plan import Example, Split, TrackPlan
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.captions import (
    EXCLUDED_KEY,
    caption_key,
    has_caption,
    is_approved,
    is_edited,
    is_of_tiny_model,
    is_text,
    provenance_of,
)
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.system.identity import digest
from musicflamingo_cli.trust.measured import prompt_values
from musicflamingo_cli.types import Failure, Skipped, Track

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which captions are examples.

    ``takes_all``: also those that no person has approved. ``takes_tiny``: also the tiny model's own, for training that.
    ``validation``: the share of tracks that are not trained on, chosen as in exports.
    """

    presets: Sequence[Preset]
    validation: float
    takes_all: bool = False
    takes_tiny: bool = False
    follow_links: bool = False

    def takes(self, info: Mapping[str, Any], preset: str) -> bool:
        """Return whether a preset's caption is an example."""
        caption, made = info.get(caption_key(preset)), provenance_of(info, preset)
        if not has_caption(info, preset) or not isinstance(caption, str) or not is_text(caption):
            return False
        if is_of_tiny_model(made) and not self.takes_tiny:
            return False
        return self.takes_all or is_approved(info, preset) or is_edited(made)


@dataclass(slots=True)
class Collected:
    """What was found. ``left_out``: reasons, to the number of tracks."""

    tracks: list[TrackPlan] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def count(self, split: Split) -> int:
        """Return how many tracks a split has."""
        return sum(track.split == split for track in self.tracks)


def collect(datasets: Sequence[Path], choice: Choice) -> Collected:
    """Return the examples of several datasets, in a stable order. Raises ConfigError where there are too few."""
    found = Collected()
    visited: set[tuple[int, int]] = set()
    for root in datasets:
        for item in find_tracks(root, visited, follow_links=choice.follow_links):
            if isinstance(item, Skipped):
                found.left_out[item.reason] += 1
                continue
            try:
                if not _add(found, root, item, choice):
                    found.left_out["no approved caption"] += 1
            except TrackError as error:
                found.left_out["unreadable"] += 1
                logger.warning("%s", Failure.for_track(error).line(item.audio))
    _require_enough(found, choice)
    return found


def _add(found: Collected, root: Path, track: Track, choice: Choice) -> bool:
    """Add a track's examples; return whether there are any. Raises AudioError, SidecarError."""
    info = read_sidecar(track.sidecar)
    chosen = [preset for preset in choice.presets if choice.takes(info, preset.name)]
    if not chosen or info.get(EXCLUDED_KEY) is True:
        return False
    questions = list(_questions(track, info, chosen))
    if not questions:  # all of its prompts need what the track lacks
        return False
    audio = digest([track.audio])
    if audio is None:
        raise AudioError("the audio cannot be read", "check the file's permissions")
    base = root if root.is_dir() else root.parent
    name = track.audio.relative_to(base).as_posix() if track.audio.is_relative_to(base) else track.audio.name
    split = Split.VALIDATION if share(name) < choice.validation else Split.TRAIN
    number = len(found.tracks)
    found.tracks.append(TrackPlan(str(track.audio.absolute()), name, str(base.absolute()), audio, split))
    for preset, text in questions:
        answer = " ".join(str(info[caption_key(preset.name)]).split()) if not preset.lines else None
        found.examples.append(
            Example(
                track=number,
                preset=preset.name,
                question=text,
                system=preset.system,
                answer=answer or str(info[caption_key(preset.name)]).strip(),
            )
        )
    return True


def _questions(track: Track, info: Mapping[str, Any], presets: Sequence[Preset]) -> Iterator[tuple[Preset, str]]:
    """Yield presets with their questions about this track, as a batch would ask them now."""
    values = tags.describe(track.audio, info, measure(track.audio).seconds) | prompt_values(info, track.audio)
    for preset in presets:
        try:
            yield preset, preset.render(values).text
        except PromptError as error:
            logger.info("%s", Failure.for_preset(preset.name, error).line(track.audio))


def _require_enough(found: Collected, choice: Choice) -> None:
    if not found.examples:
        if choice.takes_all:
            raise ConfigError("there are no captions of a real model", "make some with: musicflamingo batch DIR")
        hint = "approve or correct some with: musicflamingo review DIR; or train on every caption: --all"
        raise ConfigError("there are no captions that a person approved or edited", hint)
    if len(found.tracks) == 1:
        raise ConfigError(
            "only one track has such captions: it cannot be both trained and validated on",
            "approve captions of more tracks: musicflamingo review DIR",
        )
    _fill_splits(found)


def _fill_splits(found: Collected) -> None:
    """Move one track where a split is empty: the one whose share is the nearest."""
    for split in Split:
        if not found.count(split):
            ranked = sorted(found.tracks, key=lambda track: share(track.name), reverse=split is Split.TRAIN)
            index = found.tracks.index(ranked[0])
            old = found.tracks[index]
            found.tracks[index] = TrackPlan(old.path, old.name, old.dataset, old.audio, split)
            logger.info("with so few tracks, %s is moved into the split %s", old.name, split)
