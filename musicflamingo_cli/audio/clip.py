"""Convert any audio file into what the model takes: a mono 16 kHz clip. Files are read in blocks, never whole."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from musicflamingo_cli.audio.decoding import BLOCK_FRAMES, open_source
from musicflamingo_cli.audio.mixing import Mixer
from musicflamingo_cli.audio.segments import Span
from musicflamingo_cli.errors import NoRoomError, SilentError, TooShortError
from musicflamingo_cli.system.disk import free_bytes
from musicflamingo_cli.system.identity import file_identity
from musicflamingo_cli.system.temporary import folder_prefix
from musicflamingo_cli.types import LONGEST_SECONDS, MIN_SECONDS, SAMPLE_RATE, WINDOW_SAMPLES, Clip, Excerpt

if TYPE_CHECKING:  # numpy and the decoders are imported when the first file is read
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

_BYTES_PER_SAMPLE = 4  # float32
_RESERVE = 16 << 20  # bytes that stay free on the temporary disk
_SILENCE = 2 / 32768  # peak to peak, full scale is 2: dither in the lowest of 16 bits counts as silence
# llama.cpp without our patch pads to whole windows, and a length within 20 ms below a multiple of 30 s, or on it, costs
# one more, silent window (upstream issue 27697). 400 samples (25 ms) less avoid it. A clip is cut so for every engine:
# which one will get it is not known here, and all of them should hear the same.
_WINDOW_MARGIN = 400


@contextlib.contextmanager
def prepared(audio: Path, excerpt: Excerpt | None = None, exact: bool = False) -> Iterator[Clip]:
    """Decode ``audio`` into a mono 16 kHz float WAV in a temporary folder, which is removed afterwards.

    Channels are averaged; where they cancel out, the loudest one is used alone. NaN and infinite samples become zeros,
    peaks beyond full scale are clipped, and only ``excerpt`` is kept (default: the first MAX_SECONDS). ``exact``: not
    shortened for llama.cpp's windows. Raises AudioError, SilentError, TooShortError, NoRoomError.
    """
    with tempfile.TemporaryDirectory(prefix=folder_prefix(), ignore_cleanup_errors=True) as folder:
        yield write_clip(audio, Path(folder) / "clip.wav", excerpt, exact=exact)


@dataclass(frozen=True, slots=True)
class Measure:
    """A track's length in seconds and its sample rate in Hz, from its header."""

    seconds: float
    rate: int


def measure(audio: Path, header_only: bool = True) -> Measure:
    """Return length and sample rate of an audio file; it is decoded only where its header holds no length.

    ``header_only``: see ``open_source``. Raises AudioError where it cannot be read.
    """
    with open_source(audio, header_only) as source:
        seconds = source.seconds
        if seconds is None:
            seconds = sum(len(block) for block in source.blocks) / source.rate
        return Measure(seconds, source.rate)


def write_clip(
    audio: Path, target: Path, excerpt: Excerpt | None = None, channel: int | None = None, exact: bool = False
) -> Clip:
    """Write the clip of ``prepared`` to the file ``target`` and return it. Raises the same errors.

    ``channel``: use only this one, counted from 1. ``exact``: see ``prepared``.
    """
    excerpt = excerpt or Excerpt()
    identity = file_identity(audio)  # before it is read: a file that is replaced meanwhile must not pass for it
    with open_source(audio) as source:
        seconds = source.seconds
        if seconds is None and excerpt.needs_length:
            seconds = measure(audio, header_only=False).seconds
        if seconds is not None:
            _require_length(seconds, excerpt.min_seconds, audio)
        mixer = Mixer(channel, skip=int(excerpt.start * source.rate))
        skip, limit = excerpt.samples(seconds)
        _require_space(
            target.parent, min(limit, int((seconds or min(excerpt.max_seconds, LONGEST_SECONDS)) * SAMPLE_RATE))
        )
        written = _write_samples(target, resampled(mixer.mono(source.blocks), source.rate), skip, limit)
    if mixer.louder_channel is not None:  # known only now; rare enough to decode such a file twice
        return write_clip(audio, target, excerpt, mixer.louder_channel, exact)
    samples, was_cut = written.samples, written.was_cut
    _require_rest(samples / SAMPLE_RATE, excerpt.start, audio)
    source_seconds = seconds if was_cut else excerpt.start + samples / SAMPLE_RATE
    _require_sound(written, audio)
    if source_seconds is not None:
        _require_length(source_seconds, excerpt.min_seconds, audio)
    return Clip(
        path=target,
        samples=samples if exact else _without_silent_window(target, samples),
        source_seconds=source_seconds,
        was_cut=was_cut or excerpt.start > 0,
        start=excerpt.start,
        channel=channel,
        source=identity,
    )


def cut_clip(whole: Clip, span: Span, target: Path) -> Clip:
    """Write a segment of a track to the file ``target`` and return it. ``whole``: the track's clip, decoded before.

    Raises SilentError, NoRoomError.
    """
    import soundfile

    first, end = span.frames(SAMPLE_RATE)
    offset = round(whole.start * SAMPLE_RATE)
    _require_space(target.parent, end - first)
    with soundfile.SoundFile(whole.path) as file:
        file.seek(first - offset)
        blocks = file.blocks(BLOCK_FRAMES, frames=min(end - offset, whole.samples) - (first - offset), dtype="float32")
        written = _write_samples(target, blocks, 0, end - first)
    if written.high - written.low <= _SILENCE:
        raise SilentError(f"no sound at {span}", "nothing is to be done about a silent segment")
    samples = _without_silent_window(target, written.samples)
    return replace(whole, path=target, samples=samples, source_seconds=None, was_cut=False, start=span.start)


@dataclass(slots=True)
class _Written:
    """What was written to a clip: ``low`` and ``high`` are its extreme samples."""

    samples: int = 0
    low: float = math.inf
    high: float = -math.inf
    was_cut: bool = False


def _write_samples(target: Path, blocks: Iterator[Samples], skip: int, limit: int) -> _Written:
    """Write a WAV file of the blocks, without the first ``skip`` samples and with at most ``limit``."""
    import soundfile

    written = _Written()
    with soundfile.SoundFile(target, "w", SAMPLE_RATE, 1, subtype="FLOAT") as clip:
        for block in blocks:
            skipped = min(skip, len(block))
            skip, block = skip - skipped, block[skipped:]
            left = limit - written.samples
            written.was_cut = len(block) > left
            block = block[:left]
            if len(block):
                written.low = min(written.low, float(block.min()))
                written.high = max(written.high, float(block.max()))
                clip.write(block)
                written.samples += len(block)
            if written.was_cut:
                break
    return written


def _require_length(seconds: float, least: float, audio: Path) -> None:
    """Raise TooShortError for less than ``least`` seconds."""
    if seconds < least:
        raise TooShortError(
            f"too short: {seconds:.2f} s of audio in {audio.name}",
            f"use a file of at least {least:g} s, or exclude it",
        )


def _require_rest(seconds: float, start: float, audio: Path) -> None:
    """Raise TooShortError where too little is left of a file that is taken from ``start`` on."""
    if start and seconds < MIN_SECONDS:
        raise TooShortError(
            f"too short: {seconds:.2f} s of {audio.name} are left behind --start {start:g}", "begin earlier"
        )


def _require_sound(written: _Written, audio: Path) -> None:
    """Raise TooShortError or SilentError where a clip cannot be captioned."""
    _require_length(written.samples / SAMPLE_RATE, MIN_SECONDS, audio)
    if written.high - written.low <= _SILENCE:
        raise SilentError(f"no sound in {audio.name}", "exclude the file: it is silent")


def _require_space(folder: Path, samples: int) -> None:
    """Raise NoRoomError where the disk cannot hold the clip and a reserve for other programs."""
    needed, free = samples * _BYTES_PER_SAMPLE + _RESERVE, free_bytes(folder)
    if needed > free:
        raise NoRoomError(
            f"a clip needs {needed >> 20} MiB in {folder.parent}, and {free >> 20} MiB are free",
            "free some space there, or use another folder: TMPDIR=/path musicflamingo ...",
        )


def _without_silent_window(clip: Path, samples: int) -> int:
    """Shorten the clip by at most 50 ms where its length would cost a silent window; return its length in samples."""
    excess = (samples + _WINDOW_MARGIN) % WINDOW_SAMPLES
    if samples < WINDOW_SAMPLES - _WINDOW_MARGIN or excess > 2 * _WINDOW_MARGIN or excess == 0:
        return samples
    return _shorten(clip, samples - excess)


def _shorten(clip: Path, samples: int) -> int:
    """Cut a WAV file to ``samples`` samples and return that number."""
    import soundfile

    with soundfile.SoundFile(clip, "r+") as file:
        file.truncate(samples)
    return samples


def resampled(blocks: Iterable[Samples], rate: int, target: int = SAMPLE_RATE) -> Iterator[Samples]:
    """Yield mono blocks of ``rate`` Hz at ``target`` Hz."""
    import numpy as np
    import soxr

    resampler = soxr.ResampleStream(rate, target, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
