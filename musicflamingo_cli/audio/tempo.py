"""The tempo of a recording: where rises of level in many bands repeat, and which repetition is the beat.

Rises of the logarithmic level in bands, one every 10 ms, are autocorrelated in windows of 12 s. A tempo's score adds
the autocorrelation at its beat and at multiples and fractions of it, and prefers tempi near 120.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from musicflamingo_cli.audio.framing import Framer
from musicflamingo_cli.types import SAMPLE_RATE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]
    Numbers = NDArray[np.floating]

SLOWEST, FASTEST = 40.0, 240.0  # beats per minute that are measured
_LEAST_BPM, _MOST_BPM = 30.0, 300.0  # that anybody would call a tempo
UNKNOWN_BELOW = 0.06  # the confidence that white noise stays below
HOP, SIZE = 160, 512  # samples: 100 frames a second, of 32 ms
FRAME_RATE = SAMPLE_RATE / HOP
_BANDS, _LOWEST, _HIGHEST = 36, 60.0, 7800.0  # Hz
_FLOOR = 1e-5  # of the strongest band in a window: 50 dB below it nothing counts
_SILENT = 1e-8  # power of a band below which a window is silent
_LEAST_RISE = 0.5  # variance of a window's rises, all bands added: held tones stay far below it, songs are above 4
_WINDOW, _STEP = 1200, 600  # frames
_SHORTEST = 400  # frames of the shortest window
_FEWEST_WINDOWS = 4  # of a track whose halves are measured: 26 s
_LONGEST_LAG = 640  # frames: four beats of the slowest tempo, and what is read beside it
_LEAST_OVERLAP = 60  # frames that an autocorrelation is averaged over at least
_SMOOTHING = 3.0  # frames by which a beat may be early or late (standard deviation)
# How much the autocorrelation at each multiple of the beat counts. Found on songs of the synthesiser, then rounded:
# beats and pairs of beats repeat, a quarter or two thirds of a beat do not.
_COMB = {0.25: -0.35, 1 / 3: 0.15, 0.5: 0.15, 2 / 3: -0.15, 1.0: 0.5, 2.0: 0.8, 4.0: 0.2}
_USUAL, _PREFERENCE = 120.0, 0.3  # the tempo that is preferred, and how much less one an octave away is
_TEMPI = 250  # candidates
_SPREAD = (-0.01, -0.005, 0.0, 0.005, 0.01)  # a beat is looked for this far from its place
_RELATED = (1.0, 2.0, 3.0, 4.0, 1 / 2, 1 / 3, 1 / 4, 3 / 2, 2 / 3)  # ratios of tempi that music may be counted in
_TOLERANCE = 1.05  # within which two tempi are the same


@dataclass(frozen=True, slots=True)
class Tempo:
    """A measured tempo in beats per minute.

    ``confidence``: from 0 to 1, how far it stands out from unrelated tempi; it does not tell half from double.
    ``alternatives``: half and double of it, the likelier first, without absurd ones.
    """

    bpm: float
    confidence: float
    alternatives: tuple[float, ...] = ()


class Rhythm:
    """Collects what tells the tempo from a stream of mono samples at SAMPLE_RATE, in 26 kB for every minute."""

    def __init__(self) -> None:
        self._framer = Framer(SIZE, HOP)
        self._bands: list[Samples] = []  # levels of the frames of the present window, in blocks
        self._waiting = 0  # frames in them
        self._seen = 0  # of these frames, those that were in the window before
        self._windows: list[Numbers | None] = []  # their autocorrelations; None where nothing rises

    def add(self, samples: Samples) -> None:
        """Take the next samples."""
        frames = self._framer.frames(samples)
        for start in range(0, len(frames), _STEP):  # a block may be long
            self._bands.append(levels_of(frames[start : start + _STEP]))
            self._waiting += len(self._bands[-1])
            while self._waiting >= _WINDOW:
                self._finish_window()

    def tempo(self) -> Tempo | None:
        """Return the tempo of all samples so far; None where none stands out (noise, silence, no beat)."""
        self._finish()
        return _tempo_of(self._windows)

    def halves(self) -> tuple[float | None, ...]:
        """Return the tempo of each half, None where unknown; nothing for less than 26 s."""
        self._finish()
        if len(self._windows) < _FEWEST_WINDOWS:
            return ()
        middle = len(self._windows) // 2
        found = (_tempo_of(self._windows[:middle]), _tempo_of(self._windows[middle:]))
        return tuple(each.bpm if each else None for each in found)

    def _finish(self) -> None:
        """Take what is left of the last window, if that is enough."""
        if self._waiting - self._seen >= (_STEP // 4 if self._windows else _SHORTEST):
            self._finish_window()

    def _finish_window(self) -> None:
        import numpy as np

        levels = np.concatenate(self._bands)
        window, rest = levels[:_WINDOW], levels[_STEP:]
        self._bands, self._waiting, self._seen = [rest], len(rest), min(len(rest), _WINDOW - _STEP)
        found = _autocorrelation(window)
        self._windows.append(None if found is None else found.astype(np.float32))


def _tempo_of(windows: Sequence[Numbers | None]) -> Tempo | None:
    """Return the tempo of windows, by the mean of their autocorrelations; the last one may be shorter."""
    import numpy as np

    total, counts = np.zeros(_LONGEST_LAG), np.zeros(_LONGEST_LAG)
    for window in windows:
        if window is not None:
            total[: len(window)] += window
            counts[: len(window)] += 1
    if not counts.any():
        return None
    found = _best(total / np.maximum(counts, 1))
    return found if found.confidence >= UNKNOWN_BELOW else None


def levels_of(frames: Samples) -> Samples:
    """Return the power of frames in bands, of the shape (frames, bands)."""
    import numpy as np

    window, edges = _analysis()
    spectrum = np.fft.rfft(frames * window, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    return np.add.reduceat(power[:, : edges[-1]], edges[:-1], axis=1).astype(np.float32)


@functools.cache
def _analysis() -> tuple[Samples, NDArray[np.intp]]:
    """Return the frames' window and the edges of the bands in bins of the spectrum."""
    import numpy as np

    edges = np.geomspace(_LOWEST, _HIGHEST, _BANDS + 1) * SIZE / SAMPLE_RATE
    return np.hanning(SIZE).astype(np.float32), np.unique(np.round(edges).astype(np.intp))


def _autocorrelation(levels: Samples) -> Numbers | None:
    """Return the autocorrelation of a window's rises of level, 1 at lag 0; None where nothing rises."""
    import numpy as np

    strongest = float(levels.max())
    if strongest < _SILENT:
        return None
    logarithmic = np.log(levels + strongest * _FLOOR)
    rises = np.maximum(logarithmic[2:] - logarithmic[:-2], 0)
    rises -= rises.mean(axis=0)
    if (rises**2).sum(axis=1).mean() < _LEAST_RISE:
        return None
    length = len(rises)
    size = (
        -(-(length + _LONGEST_LAG) // 128) * 128
    )  # of a fast transform; zeros, so that the end does not meet the start
    spectrum = np.fft.rfft(rises, size, axis=0)
    power = (spectrum.real**2 + spectrum.imag**2).sum(axis=1)
    frequencies = np.arange(len(power)) / size
    power *= np.exp(-0.5 * (2 * np.pi * frequencies * _SMOOTHING) ** 2)
    lags = min(_LONGEST_LAG, length - _LEAST_OVERLAP)
    found = np.fft.irfft(power)[:lags] * (length / (length - np.arange(lags)))
    return np.asarray(found / found[0])


def _best(autocorrelation: Numbers) -> Tempo:
    import numpy as np

    tempi = np.geomspace(SLOWEST, FASTEST, _TEMPI)
    scores = _scores(autocorrelation, tempi)
    best = tempi[scores.argmax()]
    ratios = np.abs(np.log(tempi[:, None] / best / np.array(_RELATED)[None])).min(axis=1)
    margin = float(scores.max() - scores[ratios > np.log(_TOLERANCE)].max())
    near = best * np.linspace(0.985, 1.015, 121)
    bpm = float(near[_repetition(autocorrelation, near).argmax()])
    octaves = np.array([each for each in (bpm / 2, bpm * 2) if _LEAST_BPM <= each <= _MOST_BPM])
    likelier_first = octaves[np.argsort(-_scores(autocorrelation, octaves))]
    return Tempo(
        bpm=round(bpm, 2),
        confidence=round(min(1.0, max(0.0, margin)), 3),
        alternatives=tuple(round(float(each), 2) for each in likelier_first),
    )


def _scores(autocorrelation: Numbers, tempi: Numbers) -> Numbers:
    """Return how well each tempo explains an autocorrelation."""
    import numpy as np

    lags = 60 * FRAME_RATE / tempi
    scores = -_PREFERENCE * np.log2(tempi / _USUAL) ** 2
    for multiple, weight in _COMB.items():
        around = [_at(autocorrelation, lags * (multiple * (1 + shift))) for shift in _SPREAD]
        scores = scores + weight * np.max(around, axis=0)
    return np.asarray(scores)


def _repetition(autocorrelation: Numbers, tempi: Numbers) -> Numbers:
    """Return how well the beats of each tempo repeat, precisely: to choose among tempi that are almost the same."""
    import numpy as np

    lags = 60 * FRAME_RATE / tempi
    return np.asarray(sum(_at(autocorrelation, lags * multiple) for multiple in (1, 2, 4)))


def _at(autocorrelation: Numbers, lags: Numbers) -> Numbers:
    """Return an autocorrelation between its lags; 0 beyond them."""
    import numpy as np

    return np.asarray(np.interp(lags, np.arange(len(autocorrelation)), autocorrelation, right=0.0))
