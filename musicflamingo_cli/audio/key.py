"""The key of a recording: which pitch classes its tones have, and whose profile they fit.

Tones are sharp peaks of the spectrum. They are counted in steps of 10 cents, corrected by the recording's tuning, and
compared with the profiles of the 24 keys.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from musicflamingo_cli.audio.framing import Framer
from musicflamingo_cli.types import SAMPLE_RATE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]
    Numbers = NDArray[np.float64]

TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
MODES = ("major", "minor")
# What is less is no tonal music: noise and drums stay below at least one of these.
_LEAST_IN_TUNE = 1.1  # tones in a frame, times their agreement on one tuning
_LEAST_MATCH = 0.6  # of the pitch classes with the key's profile (correlation)
_LEAST_TONES = 1.2  # in a frame, counted in its strongest one; a single note held has 1
_SIZE, _HOP = 4096, 2048  # samples: frames of 0.26 s
_LOWEST, _HIGHEST = 60.0, 2000.0  # Hz
_LEAST_LEVEL = 0.01  # of the strongest bin in a frame
_SILENT = 1e-3  # magnitude of the strongest bin in a silent frame
_SHARP, _BESIDE = 3.0, 3  # a tone is this much stronger than what is this many bins beside it; noise is not
_CENTS = 10  # width of the bins in which tones are counted
_BINS = 1200 // _CENTS
_SEGMENT_FRAMES = 40  # about 5 s: what the halves of a track are made of
_LEAST_SEGMENTS = 4  # of a track whose halves are measured
# Shares of the pitch classes from the tonic on, in major and minor (Albrecht and Shanahan, 2013).
_PROFILES = (
    (0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081),
    (0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052),
)


@dataclass(frozen=True, slots=True)
class Key:
    """A measured key, as `A minor`; the tonic is one of TONICS.

    ``confidence``: from 0 to 1, the margin over the next key. ``relatives``: the relative key, the parallel one and
    those a fifth above and below, in this order.
    """

    name: str
    confidence: float
    relatives: tuple[str, ...] = ()


def relatives_of(name: str) -> tuple[str, ...]:
    """Return the relative key of `A minor`, the parallel one, and those a fifth above and below."""
    tonic, _, mode = name.partition(" ")
    root, is_major = TONICS.index(tonic), mode == MODES[0]
    other = MODES[is_major]
    return (
        f"{TONICS[(root + (9 if is_major else 3)) % 12]} {other}",
        f"{tonic} {other}",
        f"{TONICS[(root + 7) % 12]} {mode}",
        f"{TONICS[(root + 5) % 12]} {mode}",
    )


class Tonality:
    """Collects what tells the key from a stream of mono samples at SAMPLE_RATE, in 1 kB for every 5 s."""

    def __init__(self) -> None:
        self._framer = Framer(_SIZE, _HOP)
        self._segments: list[_Tones] = []
        self._frames_left = 0  # of the present segment

    def add(self, samples: Samples) -> None:
        """Take the next samples."""
        import numpy as np

        frames = self._framer.frames(samples)
        while len(frames):
            if not self._frames_left:
                self._segments.append(_Tones(np.zeros(_BINS), 0.0))
                self._frames_left = _SEGMENT_FRAMES
            part, frames = frames[: self._frames_left], frames[self._frames_left :]
            self._frames_left -= len(part)
            self._segments[-1] += _tones(part)

    def key(self) -> Key | None:
        """Return the key of all samples so far; None where there is none (noise, silence, drums).

        Where both halves are clearer than the whole, the music modulates: the key is then that of the clearer half,
        with the whole's confidence.
        """
        whole, halves = _key_of(self._segments), self._keys_of_halves()
        clearer = [half for half in halves if half and whole and half.confidence > whole.confidence]
        if not whole or len(clearer) < 2 or clearer[0].name == clearer[1].name:
            return whole
        return replace(max(clearer, key=lambda half: half.confidence), confidence=whole.confidence)

    def halves(self) -> tuple[str | None, ...]:
        """Return the names of the keys of both halves, None where unknown; nothing for less than about 16 s."""
        return tuple(half.name if half else None for half in self._keys_of_halves())

    def _keys_of_halves(self) -> list[Key | None]:
        if len(self._segments) < _LEAST_SEGMENTS:
            return []
        middle = len(self._segments) // 2
        return [_key_of(self._segments[:middle]), _key_of(self._segments[middle:])]


@dataclass(frozen=True, slots=True)
class _Tones:
    """``weights`` of tones, in bins of _CENTS within the octave from C on; ``strongest``: sum of a tone a frame."""

    weights: Numbers
    strongest: float

    def __add__(self, other: _Tones) -> _Tones:
        return _Tones(self.weights + other.weights, self.strongest + other.strongest)


def _tones(frames: Samples) -> _Tones:
    """Return the tones in frames."""
    import numpy as np

    first, last = int(_LOWEST * _SIZE / SAMPLE_RATE), int(_HIGHEST * _SIZE / SAMPLE_RATE)
    magnitude = np.abs(np.fft.rfft(frames * _window(), axis=1)[:, : last + _BESIDE])

    def beside(bins: int) -> Samples:
        return magnitude[:, first + bins : last + bins]

    centre, below, above = beside(0), beside(-1), beside(1)
    strongest = np.maximum(centre.max(axis=1, keepdims=True), _SILENT)
    is_tone = (centre > below) & (centre >= above)
    is_tone &= centre > _LEAST_LEVEL * strongest
    is_tone &= centre > _SHARP * np.maximum(beside(-_BESIDE), beside(_BESIDE))
    column = np.nonzero(is_tone)[1]
    left, peak, right = (np.log(each[is_tone] + 1e-12) for each in (below, centre, above))
    offset = 0.5 * (left - right) / (left - 2 * peak + right - 1e-12)  # of a parabola through the three
    hertz = (first + column + offset) * SAMPLE_RATE / _SIZE
    cents = 1200 * np.log2(hertz / 440) + 900  # above C
    bins = np.round(cents / _CENTS).astype(np.intp) % _BINS
    heard = strongest[strongest > _SILENT]
    weights = np.bincount(bins, np.sqrt(centre[is_tone]), _BINS).astype(np.float64)
    return _Tones(weights, float(np.sqrt(heard).sum()))


@functools.cache
def _window() -> Samples:
    import numpy as np

    return np.hanning(_SIZE).astype(np.float32)


def _key_of(segments: Sequence[_Tones]) -> Key | None:
    import numpy as np

    weights = np.sum([segment.weights for segment in segments], axis=0)
    strongest = sum(segment.strongest for segment in segments)
    tones = float(weights.sum()) / strongest if strongest else 0.0
    if tones < _LEAST_TONES:
        return None
    agreement, classes = _tuned(weights)
    matches = _matches(classes)
    order = np.argsort(-matches)
    match, margin = float(matches[order[0]]), float(matches[order[0]] - matches[order[1]])
    if agreement * tones < _LEAST_IN_TUNE or match < _LEAST_MATCH:
        return None
    mode, tonic = divmod(int(order[0]), 12)
    name = f"{TONICS[tonic]} {MODES[mode]}"
    return Key(name=name, confidence=round(min(1.0, margin), 3), relatives=relatives_of(name))


def _tuned(tones: Numbers) -> tuple[float, Numbers]:
    """Return how well tones agree on a tuning, from 0 to 1, and the weights of the 12 pitch classes in that tuning."""
    import numpy as np

    semitones = np.arange(_BINS) * _CENTS / 100
    mean = (tones * np.exp(2j * np.pi * semitones)).sum() / tones.sum()
    tuned = semitones - np.angle(mean) / (2 * np.pi)
    nearest = np.round(tuned)
    in_tune = 1 - 2 * np.abs(tuned - nearest)
    return float(np.abs(mean)), np.bincount(nearest.astype(np.intp) % 12, tones * in_tune, 12).astype(np.float64)


def _matches(classes: Numbers) -> Numbers:
    """Return the correlation of pitch classes with the 24 keys: major from C on, then minor."""
    import numpy as np

    profiles = np.array([np.roll(profile, tonic) for profile in _PROFILES for tonic in range(12)])
    profiles -= profiles.mean(axis=1, keepdims=True)
    centred = classes - classes.mean()
    norms = np.linalg.norm(profiles, axis=1) * np.linalg.norm(centred)
    return np.asarray(profiles @ centred / np.maximum(norms, 1e-12))
