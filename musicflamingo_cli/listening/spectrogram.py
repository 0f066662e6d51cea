"""A spectrogram of the beginning of a track as a picture in a page (a `data:` URL), with nothing but zlib."""

from __future__ import annotations

import base64
import itertools
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from musicflamingo_cli.audio.decoding import open_source
from musicflamingo_cli.errors import AudioError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COLUMNS, ROWS = 480, 96
_WINDOW = 2048  # samples of a spectrum
_LOWEST, _HIGHEST = 50.0, 14_000.0  # Hz; the same for all, so that pictures can be compared
_RANGE_DB = 70.0
_DARK, _MIDDLE, _BRIGHT = (22, 21, 26), (194, 53, 107), (255, 232, 214)  # the pages' colours


def spectrogram_url(audio: Path, seconds: float) -> str:
    """Return a picture of the first ``seconds``, time from left to right; empty where the audio cannot be read."""
    try:
        return f"data:image/png;base64,{base64.b64encode(_png(_levels(audio, seconds))).decode()}"
    except AudioError:
        return ""


def _levels(audio: Path, seconds: float) -> NDArray[np.uint8]:
    """Return levels of 0 to 255, shape (ROWS, COLUMNS), the highest frequency first. Raises AudioError."""
    import numpy as np

    with open_source(audio) as source:
        wanted, blocks = round(seconds * source.rate), []
        for block in source.blocks:
            blocks.append(np.nan_to_num(block.mean(axis=1)))
            if sum(map(len, blocks)) >= wanted:
                break
        rate = source.rate
    mono = np.concatenate(blocks)[:wanted] if blocks else np.zeros(0)
    if not len(mono):
        raise AudioError(f"no audio in {audio.name}")
    length = max(wanted, _WINDOW + 1)
    mono = np.concatenate([mono, np.zeros(length - len(mono))])  # a shorter track ends in silence
    starts = np.arange(COLUMNS) * (length - _WINDOW) // COLUMNS
    spectra = np.stack([np.abs(np.fft.rfft(mono[start : start + _WINDOW] * np.hanning(_WINDOW))) for start in starts])
    power = np.stack([(spectra[:, low:high] ** 2).mean(axis=1) for low, high in _bands(rate)])[::-1]
    decibels = 10 * np.log10(power + 1e-12)
    scaled = (decibels - decibels.max() + _RANGE_DB) / _RANGE_DB
    levels: NDArray[np.uint8] = np.clip(np.round(scaled * 255), 0, 255).astype(np.uint8)
    return levels


def _bands(rate: int) -> list[tuple[int, int]]:
    """Return the first and one past the last bin of each row, never empty; those above the audio's range are alike."""
    import numpy as np

    hertz = np.geomspace(_LOWEST, _HIGHEST, ROWS + 1)
    bins = np.minimum(np.round(hertz * _WINDOW / rate).astype(int), _WINDOW // 2)
    return [(int(low), int(max(high, low + 1))) for low, high in itertools.pairwise(bins)]


def _png(levels: NDArray[np.uint8]) -> bytes:
    """Return a PNG file with a palette, one byte a pixel."""
    height, width = levels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = [(b"IHDR", header), (b"PLTE", _palette()), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def _palette() -> bytes:
    colours = []
    for level in range(256):
        low, high = (_DARK, _MIDDLE) if level < 128 else (_MIDDLE, _BRIGHT)
        share = (level % 128) / 127
        colours += [round(one + (other - one) * share) for one, other in zip(low, high, strict=True)]
    return bytes(colours)
