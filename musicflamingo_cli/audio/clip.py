"""Any audio file to the one thing that the model hears: a mono 16 kHz clip. Read in blocks, never whole."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from musicflamingo_cli.audio.decoding import open_source
from musicflamingo_cli.errors import NoRoomError, SilentError, TooShortError
from musicflamingo_cli.system.disk import free_bytes
from musicflamingo_cli.system.temporary import folder_prefix
from musicflamingo_cli.types import SAMPLE_RATE, WINDOW_SAMPLES, Clip

if TYPE_CHECKING:  # numpy and the decoders are imported when the first file is read
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

MAX_SECONDS = 1200.0  # 20 minutes: what Music Flamingo was trained to hear
MIN_SECONDS = 0.5
_BYTES_PER_SAMPLE = 4  # float32
_SPARE = 16 << 20  # bytes
_SILENCE = 2 / 32768  # peak to peak: dither in the lowest bit of 16 is no sound
# llama.cpp pads to whole windows, and a length within 20 ms below a multiple of 30 s, or on it, costs one
# more, silent window (upstream issue 27697). 400 samples (25 ms) less avoid it.
_WINDOW_MARGIN = 400


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of a track is heard: from ``start`` s on, ``fraction`` of what follows, at most ``max_seconds``."""

    start: float = 0.0
    fraction: float = 1.0
    max_seconds: float = MAX_SECONDS

    def samples(self, source_seconds: float | None) -> tuple[int, int]:
        """16 kHz samples to leave out first, and to keep at most. A length that is not known counts as very long."""
        left = max(0.0, source_seconds - self.start) if source_seconds else self.max_seconds / self.fraction
        seconds = min(self.max_seconds, left * self.fraction if self.fraction < 1 else self.max_seconds)
        return int(self.start * SAMPLE_RATE), int(seconds * SAMPLE_RATE)


@contextlib.contextmanager
def prepared(audio: Path, part: Part | None = None) -> Iterator[Clip]:
    """Decode ``audio`` into a mono 16 kHz float WAV in a temporary folder that is gone afterwards.

    Channels are averaged, NaN and infinite samples are zeros, peaks beyond full scale are clipped, and at
    most what ``part`` says is kept. Raises AudioError (SilentError, TooShortError) with a sentence.
    """
    with tempfile.TemporaryDirectory(prefix=folder_prefix(), ignore_cleanup_errors=True) as folder:
        yield write_clip(audio, Path(folder) / "clip.wav", part)


@dataclass(frozen=True, slots=True)
class Measure:
    """A track's length and sample rate, as its header says."""

    seconds: float
    rate: int  # Hz


def measure(audio: Path) -> Measure:
    """Length and sample rate of an audio file; it is decoded only where its header names no length.

    Raises AudioError where nothing reads it.
    """
    with open_source(audio) as source:
        seconds = source.seconds
        if seconds is None:
            seconds = sum(len(block) for block in source.blocks) / source.rate
        return Measure(seconds, source.rate)


def write_clip(audio: Path, target: Path, part: Part | None = None) -> Clip:
    """Write the clip that ``prepared`` yields to ``target``. The same errors."""
    import numpy as np
    import soundfile
    import soxr

    part = part or Part()
    low, high, written, cut = np.inf, -np.inf, 0, False
    with open_source(audio) as source:
        skip, limit = part.samples(source.seconds)
        _require_room(target.parent, min(limit, int((source.seconds or part.max_seconds) * SAMPLE_RATE)))
        resampler = soxr.ResampleStream(source.rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        with soundfile.SoundFile(target, "w", SAMPLE_RATE, 1, subtype="FLOAT") as clip:
            for block in _resampled(source.blocks, resampler):
                skipped = min(skip, len(block))
                skip, block = skip - skipped, block[skipped:]
                room = limit - written
                cut = len(block) > room
                block = block[:room]
                if len(block):
                    low, high = min(low, float(block.min())), max(high, float(block.max()))
                    clip.write(block)
                    written += len(block)
                if cut:
                    break
    if written < MIN_SECONDS * SAMPLE_RATE:
        raise TooShortError(
            f"too short: {written / SAMPLE_RATE:.2f} s of audio in {audio.name}",
            f"give at least {MIN_SECONDS} s of audio, or exclude the file",
        )
    if high - low <= _SILENCE:
        raise SilentError(f"no sound in {audio.name}", "exclude it: it is silent, or its channels cancel out in mono")
    whole = source.seconds if cut else part.start + written / SAMPLE_RATE
    if source.seconds is None and part.fraction < 1 and not cut:  # only now is the length known
        written, cut = _shorten(target, max(1, int(written * part.fraction))), True
    samples = _without_silent_window(target, written)
    return Clip(target, samples, whole, cut or part.start > 0, part.start)


def _require_room(folder: Path, samples: int) -> None:
    """Raises NoRoomError before a clip is written that the disk cannot hold: others need its last megabytes, too."""
    needed, free = samples * _BYTES_PER_SAMPLE + _SPARE, free_bytes(folder)
    if needed > free:
        raise NoRoomError(
            f"{needed >> 20} MiB are needed for a clip in {folder.parent}, {free >> 20} MiB are free",
            "make room there, or name another folder: TMPDIR=/path musicflamingo ...",
        )


def _without_silent_window(clip: Path, samples: int) -> int:
    """Shorten the clip by at most 45 ms where its length would cost a window of silence; return its samples."""
    excess = (samples + _WINDOW_MARGIN) % WINDOW_SAMPLES
    if samples < WINDOW_SAMPLES - _WINDOW_MARGIN or excess > 2 * _WINDOW_MARGIN or excess == 0:
        return samples
    return _shorten(clip, samples - excess)


def _shorten(clip: Path, samples: int) -> int:
    import soundfile

    with soundfile.SoundFile(clip, "r+") as file:
        file.truncate(samples)
    return samples


def _resampled(blocks: Iterator[Samples], resampler: object) -> Iterator[Samples]:
    """Blocks at 16 kHz, made fit: no NaN or infinity, within full scale."""
    import numpy as np

    for block in blocks:
        fit = np.clip(np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0), -1.0, 1.0)
        yield resampler.resample_chunk(fit)  # type: ignore[attr-defined]
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)  # type: ignore[attr-defined]
