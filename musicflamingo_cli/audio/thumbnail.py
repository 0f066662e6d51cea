"""A small spectrogram of a whole track, made from short excerpts of it, so that it takes milliseconds."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicflamingo_cli.audio.decoding import NOISY_IN_SNDFILE, ffmpeg_stream

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

COLUMNS, ROWS = 48, 24
LEVELS = 16  # of loudness, half a byte each
_SAMPLES = 2048  # per excerpt: 46 ms at 44.1 kHz
_LEAD_IN = 4096  # samples dropped after a seek: an MP3 decoder lacks data of earlier frames and outputs silence first
_LOWEST, _HIGHEST = 50.0, 12_000.0  # Hz
_RANGE_DB = 60.0  # from the loudest level down to 0


def thumbnail(audio: Path) -> bytes | None:
    """Return COLUMNS × ROWS levels of 0 to 15, two per byte, column by column, the lowest frequency first.

    Returns None where the audio cannot be read, or the file does not support seeking.
    """
    try:
        return _packed(_levels(list(_excerpts(audio))))
    except Exception:  # decoders raise many error types, and a report works without a picture
        return None


def _excerpts(audio: Path) -> Iterator[tuple[Samples, int]]:
    """Yield mono samples at COLUMNS positions from beginning to end, each with the sample rate in Hz."""
    import soundfile

    if audio.suffix.lower() not in NOISY_IN_SNDFILE:
        try:
            with soundfile.SoundFile(os.fsencode(audio)) as file:
                yield from _from_sndfile(file)
                return
        except soundfile.SoundFileError:
            pass
    yield from _from_ffmpeg(audio)


def _from_sndfile(file: Any) -> Iterator[tuple[Samples, int]]:
    """Yield the excerpts of an open soundfile.SoundFile."""
    for column in range(COLUMNS):
        file.seek(int(max(0, file.frames - _SAMPLES) * column / (COLUMNS - 1)))
        yield file.read(_SAMPLES, dtype="float32", always_2d=True).mean(axis=1), file.samplerate


def _from_ffmpeg(audio: Path) -> Iterator[tuple[Samples, int]]:
    """Yield the excerpts of a file that FFmpeg's libraries read."""
    import av
    import numpy as np

    with ffmpeg_stream(audio) as (container, stream):
        planes = av.AudioResampler(format="fltp", layout="mono", rate=stream.rate)
        for column in range(COLUMNS):
            container.seek(int(0.98 * (container.duration or 0) * column / (COLUMNS - 1)))
            pieces: list[Samples] = []
            for frame in container.decode(stream):
                pieces += [piece.to_ndarray()[0] for piece in planes.resample(frame)]
                if sum(map(len, pieces)) >= _LEAD_IN + _SAMPLES:
                    break
            yield np.concatenate(pieces)[-_SAMPLES:], stream.rate


def _levels(excerpts: list[tuple[Samples, int]]) -> NDArray[np.uint8]:
    """Return levels of 0 to 15, shape (COLUMNS, ROWS): power in log-spaced bands, relative to the track's maximum."""
    import numpy as np

    whole = np.zeros((COLUMNS, _SAMPLES), np.float32)
    for column, (samples, _) in enumerate(excerpts):
        whole[column, : len(samples)] = samples
    spectra = np.abs(np.fft.rfft(np.nan_to_num(whole) * np.hanning(_SAMPLES), axis=1)) ** 2
    edges = _band_edges(excerpts[0][1])
    power = np.stack([spectra[:, low:high].mean(axis=1) for low, high in edges], axis=1)
    decibels = 10 * np.log10(power + 1e-12)
    scaled = (decibels - decibels.max() + _RANGE_DB) / _RANGE_DB
    levels: NDArray[np.uint8] = np.clip(np.round(scaled * (LEVELS - 1)), 0, LEVELS - 1).astype(np.uint8)
    return levels


@functools.cache
def _band_edges(rate: int) -> list[tuple[int, int]]:
    """Return the first and one past the last FFT bin of each row; the nearest bin where bins are wider than bands."""
    import numpy as np

    hertz = np.geomspace(_LOWEST, min(_HIGHEST, rate / 2), ROWS + 1)
    bins = np.minimum(np.round(hertz * _SAMPLES / rate).astype(int), _SAMPLES // 2)
    return [(int(low), int(max(high, low + 1))) for low, high in itertools.pairwise(bins)]


def _packed(levels: NDArray[np.uint8]) -> bytes:
    """Return two levels per byte, the first in the upper half."""
    flat = levels.reshape(-1)
    return bytes((flat[0::2] << 4) | flat[1::2])
