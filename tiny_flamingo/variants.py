"""Labelled music that is harder to measure than ``music``'s: other metres, swing, rubato, modulation, weak tonics.

No model is trained on it: the estimators of tempo and key are tested with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from tiny_flamingo.music import KEYS, Band, Recording, Samples, Song, capture, random_song

_TWELVE_STEPS = tuple(range(0, 12, 2))  # the eighths of a bar of twelve sixteenths
# Sixteenths at which kick, snare and hat sound, and the bass.
_GROOVES = {"3/4": ((0,), (4, 8), _TWELVE_STEPS), "6/8": ((0,), (6,), _TWELVE_STEPS)}
_BASSLINES = {"3/4": (0, 4, 8), "6/8": (0, 6)}
_ARPEGGIOS = {"3/4": (0, 2, 1, 2, 3, 2), "6/8": (0, 1, 2, 3, 2, 1)}
# Progressions with one bar of the tonic, often not the first. Those of a major key and its relative minor share most
# chords: some of these songs could be heard in either.
_WEAK = {
    "major": ((0, 4, 5, 3), (5, 3, 0, 4), (3, 4, 0, 5), (1, 4, 0, 5)),
    "minor": ((0, 5, 2, 6), (0, 6, 5, 6), (5, 6, 0, 4), (3, 6, 0, 4)),
}
_SHIFTS = (1, 2, 3, 5, 7)  # semitones up that a song modulates by
_SWING = 2 / 3  # where in the beat the second eighth comes
_RUBATO, _RUBATO_SECONDS = 0.06, 9.0  # how far the tempo strays, and for how long until it is back


class Kind(StrEnum):
    """What is unusual about a song."""

    THREE_FOUR = "3/4"
    SIX_EIGHT = "6/8"
    SWING = "swing"
    RUBATO = "rubato"
    MODULATION = "modulation"
    WEAK_TONIC = "weak tonic"
    DRUMS_ALONE = "drums alone"


@dataclass(frozen=True, slots=True)
class Variant:
    """An unusual song. ``keys``: as `A minor`, one, or two where it modulates halfway; none for drums alone.

    Its tempo, ``song.bpm``, counts quarter notes, in 6/8 dotted ones.
    """

    song: Song
    kind: Kind
    keys: tuple[str, ...]


def random_variant(kind: Kind, seed: int) -> Variant:
    """Return the song of this kind and seed."""
    seconds = (30.0, 60.0) if kind in (Kind.MODULATION, Kind.WEAK_TONIC) else (12.0, 29.9)
    song = random_song(seed, seconds=seconds, steady=True)
    random = np.random.default_rng((seed, 3))
    if kind == Kind.SIX_EIGHT:
        song = replace(song, bpm=float(random.uniform(50, 100)))
    if kind == Kind.DRUMS_ALONE and song.drums == "none":
        song = replace(song, drums="backbeat")
    keys = [song.key]
    if kind == Kind.MODULATION:
        keys.append(KEYS[(KEYS.index(song.key) + int(random.choice(_SHIFTS))) % 12])
    named = () if kind == Kind.DRUMS_ALONE else tuple(f"{key} {song.mode}" for key in keys)
    return Variant(song, kind, named)


def render_variant(variant: Variant, recording: Recording | None = None, rate: int = 16000) -> Samples:
    """Return a song's mono samples within -1..1 at ``rate``."""
    recording = recording or Recording()
    band = VariedBand(variant, recording, rate)
    band.play()
    return capture(band.mix, variant.song, recording, rate)


class VariedBand(Band):
    """Plays a song with what is unusual about it."""

    def __init__(self, variant: Variant, recording: Recording, rate: int) -> None:
        super().__init__(variant.song, recording, rate)
        self.kind, self.keys = variant.kind, variant.keys
        self.steps = 12 if variant.kind in _GROOVES else 16
        if variant.kind == Kind.SIX_EIGHT:
            self.sixteenth = 10.0 / variant.song.bpm  # six in a beat
        self.first = 0.0

    def _play_bars(self, progression: Sequence[int], phase: float) -> None:
        if self.kind == Kind.WEAK_TONIC:
            choices = _WEAK[self.song.mode]
            progression = choices[int(self.random.integers(len(choices)))]
        if self.kind == Kind.DRUMS_ALONE:
            self.levels |= {"lead": 0.0, "bass": 0.0, "pad": 0.0}
        if self.kind in _GROOVES:
            self.groove, self.bassline = _GROOVES[self.kind], _BASSLINES[self.kind]
            self.arpeggios = [_ARPEGGIOS[self.kind]] * 2
        bar = self.steps * self.sixteenth
        self.first = -phase * 4 * bar
        for index in range(int((self.song.seconds - self.first) / bar) + 1):
            at = self.first + index * bar
            if len(self.keys) > 1 and at > self.song.seconds / 2:
                self.root = KEYS.index(self.keys[1].split()[0])
            self._play_bar(at, progression[index % 4], index)

    def heard_at(self, at: float) -> float:
        if self.kind == Kind.SWING:
            beat = 4 * self.sixteenth
            whole, part = divmod((at - self.first) / beat, 1.0)
            moved = part * 2 * _SWING if part < 0.5 else _SWING + (part - 0.5) * 2 * (1 - _SWING)
            return self.first + (whole + moved) * beat
        if self.kind == Kind.RUBATO:
            turn = 2 * np.pi / _RUBATO_SECONDS
            return float(at + _RUBATO / turn * np.sin(turn * at))
        return at
