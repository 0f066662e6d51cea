"""Where the beats of a recording are: the phase of the tempo that is measured around a moment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from musicflamingo_cli.audio.framing import Framer
from musicflamingo_cli.audio.tempo import FRAME_RATE, HOP, SIZE, Rhythm, levels_of
from musicflamingo_cli.types import SAMPLE_RATE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.floating]

_AROUND = 8.0  # seconds before and after a moment in which tempo and beats are looked for
_FLOOR = 1e-5  # of the strongest band: 50 dB below it nothing counts
_PHASES = 200  # places of the first beat that are tried
_SMOOTHING = (0.25, 0.5, 0.25)  # of the rises: an onset lies between two frames
# A rise is between two frames 20 ms apart; it is largest where an onset enters the later one's middle.
_FRAMES_LATE = SIZE / 2 / HOP + 2


class Beats:
    """Finds the beats of a mono WAV file at SAMPLE_RATE, whose first sample is at ``start`` seconds of the track."""

    def __init__(self, clip: Path, start: float = 0.0) -> None:
        self._clip = clip
        self._start = start

    def nearest(self, moment: float) -> float:
        """Return the beat that is nearest to a moment, both in seconds of the track; the moment where there is none."""
        import numpy as np
        import soundfile

        with soundfile.SoundFile(self._clip) as file:
            middle = round((moment - self._start) * SAMPLE_RATE)
            first = max(0, middle - round(_AROUND * SAMPLE_RATE))
            file.seek(min(first, file.frames))
            samples = file.read(middle + round(_AROUND * SAMPLE_RATE) - first, dtype="float32")
        rhythm = Rhythm()
        rhythm.add(samples)
        if (tempo := rhythm.tempo()) is None:
            return moment
        rises = _rises(levels_of(Framer(SIZE, HOP).frames(samples)))
        period = 60 * FRAME_RATE / tempo.bpm  # frames
        numbers = np.arange(int(len(rises) / period) - 1)
        phases = np.arange(_PHASES) * period / _PHASES
        places = phases[:, None] + numbers * period
        phase = phases[np.interp(places, np.arange(len(rises)), rises).sum(axis=1).argmax()] + _FRAMES_LATE
        sought = (middle - first) / HOP
        beat = phase + round((sought - phase) / period) * period
        return float(self._start + (first + beat * HOP) / SAMPLE_RATE)


def _rises(levels: Numbers) -> Numbers:
    """Return how much the level of all bands together rises, for each frame."""
    import numpy as np

    logarithmic = np.log(levels + max(float(levels.max()), 1e-12) * _FLOOR)
    rises = np.maximum(logarithmic[2:] - logarithmic[:-2], 0).sum(axis=1)
    return np.convolve(rises, _SMOOTHING, mode="same")
