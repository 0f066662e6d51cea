"""A track's sound for the page: the file itself, or as WAV where browsers cannot play it; any range of either."""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicflamingo_cli.audio.clip import measure
from musicflamingo_cli.audio.decoding import NOISY_IN_SNDFILE, ffmpeg_stream, open_source
from musicflamingo_cli.errors import AudioError
from musicflamingo_cli.types import Track

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

# What browsers play, with the type that they expect; a page that cannot play one asks for WAV.
PLAYED = {
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".m4a": "audio/mp4",
    ".mp4": "audio/mp4",
    ".aac": "audio/aac",
    ".webm": "audio/webm",
}
_BLOCK = 1 << 16  # bytes
_HEADER = 44  # bytes of a WAV file before its samples
_FRAME = 4  # bytes: two channels of 16 bits
_LARGEST_WAV = (1 << 32) - 1 - _HEADER
_LEAD_IN = 0.3  # seconds decoded before a position: decoders need them, and seeking is not exact
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True, slots=True)
class Sound:
    """Bytes that can be read from any position: of a file (``frames`` is None), or of a WAV made while it is read."""

    path: Path
    size: int
    kind: str
    rate: int = 0
    frames: int | None = None

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from ``start`` up to ``end``, in blocks. Raises AudioError, OSError."""
        return _of_file(self.path, start, end) if self.frames is None else self._of_wav(start, end)

    def _of_wav(self, start: int, end: int) -> Iterator[bytes]:
        assert self.frames is not None
        if start < _HEADER:
            yield _wav_header(self.rate, self.frames)[start : min(end, _HEADER)]
        first = max(start, _HEADER) - _HEADER
        skip, left = first % _FRAME, end - max(start, _HEADER)
        if left <= 0:
            return
        for block in _stereo_from(self.path, first // _FRAME, self.rate):
            data = block[skip : skip + left]
            skip, left = max(0, skip - len(block)), left - len(data)
            yield data
            if not left:
                return
        while left > 0:  # the header promised more: a length that was an estimate
            yield bytes(min(left, _BLOCK))
            left -= min(left, _BLOCK)


def sound_of(track: Track, root: Path, follow_links: bool, as_wav: bool = False) -> Sound:
    """Return a track's sound. Raises AudioError for what is no audio, or leads out of the dataset."""
    path = Path(os.path.realpath(track.audio))
    within = track.within or Path(os.path.realpath(root if root.is_dir() else root.parent))
    if not follow_links and not path.is_relative_to(within):
        raise AudioError(f"{track.audio.name} is a link that leads out of the dataset", "play it with --follow-links")
    kind = PLAYED.get(path.suffix.lower())
    if kind and not as_wav:
        with open_source(path, header_only=True):  # what is no audio is not sent
            return Sound(path, path.stat().st_size, kind)
    measured = measure(path)
    frames = min(round(measured.seconds * measured.rate), _LARGEST_WAV // _FRAME)
    return Sound(path, _HEADER + frames * _FRAME, "audio/wav", measured.rate, frames)


def parsed_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the first and one past the last byte that a Range header asks for; all where there is no usable one.

    None: it asks for what does not exist.
    """
    match = _RANGE.fullmatch((header or "").strip())
    if not match or match[1] == match[2] == "":
        return 0, size
    if not match[1]:
        return max(0, size - int(match[2])), size
    start, end = int(match[1]), int(match[2]) + 1 if match[2] else size
    return (start, min(end, size)) if start < min(end, size) else None


def _of_file(path: Path, start: int, end: int) -> Iterator[bytes]:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as file:
        file.seek(start)
        while start < end and (block := file.read(min(_BLOCK, end - start))):
            start += len(block)
            yield block


def _wav_header(rate: int, frames: int) -> bytes:
    size = frames * _FRAME
    fmt = struct.pack("<HHIIHH", 1, 2, rate, rate * _FRAME, _FRAME, 16)
    return (
        b"RIFF"
        + struct.pack("<I", size + 36)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + fmt
        + b"data"
        + struct.pack("<I", size)
    )


def _stereo_from(path: Path, frame: int, rate: int) -> Iterator[bytes]:
    """Yield two channels of 16 bits from a frame on, in blocks of a second at most."""
    for block in _samples_from(path, frame, rate):
        for start in range(0, len(block), rate):
            yield _as_stereo(block[start : start + rate])


def _samples_from(path: Path, frame: int, rate: int) -> Iterator[Samples]:
    import soundfile

    if path.suffix.lower() not in NOISY_IN_SNDFILE:
        with contextlib.suppress(soundfile.SoundFileError), soundfile.SoundFile(os.fsencode(path)) as file:
            file.seek(min(frame, file.frames))
            while len(block := file.read(rate, dtype="float32", always_2d=True)):
                yield block
            return
    yield from _ffmpeg_from(path, frame, rate)


def _ffmpeg_from(path: Path, frame: int, rate: int) -> Iterator[Samples]:
    """Yield blocks from a frame on: from a position a little before it, or from the beginning where that is unknown."""
    import av

    with ffmpeg_stream(path) as (container, stream):
        if frame:
            container.seek(int(max(0.0, frame / rate - _LEAD_IN) * av.time_base))
        planes = av.AudioResampler(format="fltp", layout="stereo", rate=rate)
        position: int | None = None
        with contextlib.suppress(av.FFmpegError):  # what follows a damage is silence
            for decoded in container.decode(stream):
                if position is None:
                    position = round((decoded.time or 0.0) * rate)
                for piece in planes.resample(decoded):
                    block = piece.to_ndarray().T.astype("float32", copy=False)
                    skip = max(0, frame - position)
                    position += len(block)
                    if skip < len(block):
                        yield block[skip:]


def _as_stereo(block: Samples) -> bytes:
    import numpy as np

    channels = block[:, :2] if block.shape[1] > 1 else np.repeat(block, 2, axis=1)
    data: Any = np.clip(np.round(np.nan_to_num(channels) * 32767), -32768, 32767).astype("<i2")
    return bytes(data.tobytes())
