"""Waveform and spectrogram of a track, from one pass over its audio in blocks, so that a page decodes nothing."""

from __future__ import annotations

import functools
import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from musicflamingo_cli.audio.decoding import open_source
from musicflamingo_cli.errors import AudioError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

PEAKS = 1000  # columns of the waveform
COLUMNS, ROWS = 500, 64  # of the spectrogram
_BIN = 512  # samples behind one pair of peaks, before they are reduced to PEAKS
_WINDOW, _HOP = 2048, 8192  # samples of a spectrum, and from one to the next
_LOWEST, _HIGHEST = 50.0, 16_000.0  # Hz
_RANGE_DB = 70.0
_KEPT = 128  # pictures in memory, 34 kB each
_AT_ONCE = 2


class Pictures:
    """Pictures of tracks by number; the last ones are kept. For any thread."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(_AT_ONCE)

    def get(self, number: int, audio: Path) -> bytes:
        """Return a track's picture (see ``picture``). Raises AudioError, OSError."""
        key = number, audio.stat().st_mtime_ns
        with self._slots:
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key]
            made = picture(audio)
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return made


def picture(audio: Path) -> bytes:
    """Return PEAKS pairs of bytes (minimum, maximum; 128 is zero), then COLUMNS × ROWS levels of 0 to 255.

    The spectrogram is column by column, the lowest frequency first. Raises AudioError.
    """
    import numpy as np

    lows, highs, spectra, frames = [], [], [], 0
    with open_source(audio) as source:
        for block, length in _blocks(source.blocks, _HOP):
            frames += length
            mono = np.nan_to_num(block.mean(axis=1))
            pieces = mono.reshape(-1, _BIN)
            lows.append(pieces.min(axis=1))
            highs.append(pieces.max(axis=1))
            spectra.append(_bands(mono.reshape(-1, _HOP)[:, :_WINDOW], source.rate))
    if not frames:
        raise AudioError(f"no sound in {audio.name}", "exclude the file")
    bins = -(-frames // _BIN)  # without those that only pad the last block
    low, high = _reduced(np.concatenate(lows)[:bins], np.minimum), _reduced(np.concatenate(highs)[:bins], np.maximum)
    peaks = np.stack([low, high], axis=1)
    waveform = np.clip(np.round(peaks * 127 + 128), 0, 255).astype(np.uint8)
    return waveform.tobytes() + _levels(np.concatenate(spectra)).tobytes()


def _blocks(blocks: Iterator[Samples], multiple: int) -> Iterator[tuple[Samples, int]]:
    """Yield blocks whose length is a multiple, and their length without the silence that pads the last one."""
    import numpy as np

    rest: Samples | None = None
    for block in blocks:
        whole = block if rest is None or rest.shape[1] != block.shape[1] else np.concatenate([rest, block])
        end = len(whole) // multiple * multiple
        if end:
            yield whole[:end], end
        rest = whole[end:]
    if rest is not None and len(rest):
        yield np.concatenate([rest, np.zeros((multiple - len(rest), rest.shape[1]), np.float32)]), len(rest)


def _reduced(values: Samples, by: np.ufunc) -> Samples:
    """Return PEAKS values that each cover their share of ``values``."""
    import numpy as np

    starts = np.arange(PEAKS) * len(values) // PEAKS
    return by.reduceat(values, starts).astype(np.float32)


def _bands(windows: Samples, rate: int) -> Samples:
    """Return the power in ROWS bands of each window, shape (windows, ROWS)."""
    import numpy as np

    spectra = np.abs(np.fft.rfft(windows * np.hanning(_WINDOW).astype(np.float32), axis=1)) ** 2
    return np.stack([spectra[:, low:high].mean(axis=1) for low, high in _edges(rate)], axis=1).astype(np.float32)


@functools.lru_cache(32)
def _edges(rate: int) -> list[tuple[int, int]]:
    """Return the first and one past the last bin of each row, never empty."""
    import numpy as np

    hertz = np.geomspace(_LOWEST, min(_HIGHEST, rate / 2), ROWS + 1)
    bins = np.minimum(np.round(hertz * _WINDOW / rate).astype(int), _WINDOW // 2)
    return [(int(low), int(max(high, low + 1))) for low, high in itertools.pairwise(bins)]


def _levels(power: Samples) -> NDArray[np.uint8]:
    """Return levels of 0 to 255, shape (COLUMNS, ROWS), relative to the track's maximum."""
    import numpy as np

    columns = power[np.arange(COLUMNS) * len(power) // COLUMNS]
    decibels = 10 * np.log10(columns + 1e-12)
    scaled = (decibels - decibels.max() + _RANGE_DB) / _RANGE_DB
    levels: NDArray[np.uint8] = np.clip(np.round(scaled * 255), 0, 255).astype(np.uint8)
    return levels
