"""Decode audio files in blocks, by libsndfile or FFmpeg. A truncated file is an error, not a short track."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from musicflamingo_cli.audio.chained import streams_in
from musicflamingo_cli.errors import AudioError

if TYPE_CHECKING:  # numpy and the decoders are imported when the first file is read
    import av
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

BLOCK_FRAMES = 1 << 18  # 2 MB of stereo float32; fewer with more channels
LOWEST_RATE, HIGHEST_RATE = 1000, 1_000_000  # Hz; beyond them a header is damaged or hostile
_TOLERATED_PACKETS = 3
_INEXACT_SECONDS = 0.5  # a length that is this much too long is an inexact header, not damage
_UNKNOWN_FRAMES = 1 << 48  # libsndfile reports 2^63 - 1 for a FLAC without a length
_DECLARED_BYTES = re.compile(r"(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)")  # in libsndfile's log
# Sizes from here on (this one, 2^31 - 1, 2^32 - 1, or slightly less) mean "until the end", in files written to a pipe.
_UNKNOWN_BYTES = 0x7F000000
_XING = re.compile(
    rb"(?:Xing|Info)\0\0\0([\x00-\x0f])(.{4})", re.DOTALL
)  # flags, and the number of frames if the lowest flag is set
_EBML_DURATION = re.compile(rb"\x44\x89[\x84\x88]")  # the element, and the size of a float
_MATROSKA_HEAD = 1 << 16  # bytes: its Info element comes before the audio
_BLOCK = 8192  # frames that FFmpeg's packets are joined to: those of MP3 hold 1,152, and each costs Python as much
_MP3_FRAME = 2881  # bytes at most: 320 kbit/s at 32 kHz, with padding
# FFmpeg's formats whose length is in a header or, for Ogg, in the last page; of others it is an estimate, or unknown.
_WITH_LENGTH = frozenset(["mp4", "asf", "ogg", "ape", "tta", "wv", "caf"])
# libsndfile's MPEG decoder prints warnings directly to the terminal; FFmpeg's can be silenced.
NOISY_IN_SNDFILE = (".mp3", ".mp2", ".mp1", ".mpga")


@dataclass(frozen=True, slots=True)
class Source:
    """A decoded stream at ``rate`` Hz, in blocks of float32 of the shape (frames, channels).

    ``seconds`` is its length by the header; None where that holds none, never an estimate.
    """

    rate: int
    blocks: Iterator[Samples]
    seconds: float | None


@contextlib.contextmanager
def open_source(audio: Path, header_only: bool = False) -> Iterator[Source]:
    """Open an audio file with libsndfile, else with FFmpeg's libraries. Raises AudioError, also while decoding.

    ``header_only``: for its length; a FLAC file is then not read to find out whether it holds a second stream.
    """
    _require_readable(audio)
    import soundfile

    streams = streams_in(audio, header_only)
    if streams.is_chained:
        with _open_with_ffmpeg(audio) as source:
            _require_pages(streams.lost, None, audio)
            yield replace(source, seconds=None)  # it would be that of one stream
        return
    file = None
    if audio.suffix.lower() not in NOISY_IN_SNDFILE:
        with contextlib.suppress(soundfile.SoundFileError):
            file = soundfile.SoundFile(os.fsencode(audio))  # as bytes, since the name may not be UTF-8
    if file is not None and not 0 < file.frames < _UNKNOWN_FRAMES:  # written to a pipe, so its header has no length
        file.close()
        file = None
    if file is None:
        with _open_with_ffmpeg(audio) as source:
            _require_pages(streams.lost, source.seconds, audio)
            yield source
        return
    with file:
        _require_real_rate(file.samplerate, audio)
        _require_declared(file, audio)
        _require_pages(streams.lost, file.frames / file.samplerate, audio)
        yield Source(file.samplerate, _sndfile_blocks(file, audio), file.frames / file.samplerate)


def _require_readable(audio: Path) -> None:
    """Raise AudioError for what is not a regular, readable file with content."""
    if audio.exists() and not audio.is_file():  # reading a pipe would block forever
        raise AudioError(f"{audio.name} is not a regular file", "choose a file, or exclude it")
    try:
        with audio.open("rb") as probe:
            is_empty = not probe.read(1)
    except FileNotFoundError as error:
        raise AudioError(f"no such file: {audio}", "check the path") from error
    except OSError as error:
        raise AudioError(f"cannot read {audio.name}: {error.strerror}", "check the file's permissions") from error
    if is_empty:
        raise AudioError(f"{audio.name} is an empty file", "export or copy it again")


def _require_real_rate(rate: int, audio: Path) -> None:
    """Raise AudioError for a rate that no recording has: few bytes would become hours at 16 kHz."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(
            f"{audio.name} has a sample rate of {rate} Hz", "its header is damaged: export or copy it again"
        )


def _require_declared(file: object, audio: Path) -> None:
    """Raise AudioError for a WAV, AIFF or AU file shorter than its header says, which libsndfile only logs."""
    import soundfile

    assert isinstance(file, soundfile.SoundFile)
    note = _DECLARED_BYTES.search(file.extra_info)
    declared, actual = map(int, note.groups()) if note else (0, 0)
    if not actual < declared < _UNKNOWN_BYTES:
        return
    seconds = file.frames / file.samplerate
    if _is_truncated(seconds, seconds * declared / max(actual, 1)):
        raise _damaged(audio, seconds)


def _require_pages(lost: float, seconds: float | None, audio: Path) -> None:
    """Raise AudioError where much of an Ogg file is lost; ``lost`` is a share of ``seconds``, where they are known."""
    if _is_truncated((1 - lost) * (seconds or 1e6), seconds or 1e6):
        raise AudioError(
            f"{audio.name} is damaged: about {100 * lost:.0f} % of it is lost, somewhere before its end",
            "copy it again from its source, or exclude it",
        )


def _is_truncated(seconds: float, declared: float) -> bool:
    """Return whether a file is truncated; smaller differences (1 s or 2 %) count as an inexact header."""
    return seconds < declared - max(1.0, 0.02 * declared)


def _sndfile_blocks(file: object, audio: Path) -> Iterator[Samples]:
    """Yield a file's blocks; where libsndfile stops early, FFmpeg's decoder continues. Raises AudioError."""
    import soundfile

    assert isinstance(file, soundfile.SoundFile)
    frames = 0
    try:
        size = min(BLOCK_FRAMES, 2 * BLOCK_FRAMES // file.channels)
        while len(block := file.read(size, dtype="float32", always_2d=True)):
            frames += len(block)
            yield block
    except soundfile.SoundFileError:
        pass  # the check below decides
    least = file.frames - int(_INEXACT_SECONDS * file.samplerate)
    if frames < least:
        yield from _rest_by_ffmpeg(audio, file.samplerate, frames, least)


def _rest_by_ffmpeg(audio: Path, rate: int, frames: int, least: int) -> Iterator[Samples]:
    """Yield what FFmpeg decodes after the first ``frames``. Raises AudioError where all are fewer than ``least``."""
    skip = frames
    with contextlib.suppress(AudioError), ffmpeg_stream(audio) as (container, stream):
        for block in _ffmpeg_blocks(container, stream, audio, rate):
            skipped = min(skip, len(block))
            skip -= skipped
            frames += len(block) - skipped
            yield block[skipped:]
    if frames < least:
        raise _damaged(audio, frames / rate)


@contextlib.contextmanager
def ffmpeg_stream(audio: Path) -> Iterator[tuple[av.container.InputContainer, av.AudioStream]]:
    """Open a file with FFmpeg's libraries; yield its container and first audio stream. Raises AudioError."""
    import av

    av.logging.set_level(av.logging.PANIC)  # its warnings would go to the terminal; the error says enough
    with audio.open("rb") as file:  # not by name, since the name may not be UTF-8
        try:
            container = av.open(file, "r", metadata_errors="replace")
        except (av.FFmpegError, OSError, ValueError) as error:
            raise _not_audio(audio) from error
        with container:
            stream = next(iter(container.streams.audio), None)
            # A codec that FFmpeg does not know has no context, and PyAV then has no sample rate.
            if stream is None or stream.codec_context is None or not stream.rate:
                raise _not_audio(audio)
            yield container, stream


@contextlib.contextmanager
def _open_with_ffmpeg(audio: Path) -> Iterator[Source]:
    with ffmpeg_stream(audio) as (container, stream):
        _require_real_rate(stream.rate, audio)
        length = _known_seconds(container, stream, audio)
        yield Source(stream.rate, _ffmpeg_blocks(container, stream, audio, stream.rate), length)


def _known_seconds(container: av.container.InputContainer, stream: av.AudioStream, audio: Path) -> float | None:
    """Return the length by the file's header or its last page; None where FFmpeg can only estimate it."""
    import av

    length = container.duration / av.time_base if container.duration else None
    kind = container.format.name
    if length is None or _WITH_LENGTH & set(kind.split(",")):
        return length
    if kind == "mp3" or "matroska" in kind:
        declared = _declared_seconds(container, stream, audio, _first_packet(audio) if kind == "mp3" else None)
        # An MP3's tag does not count what was joined to the file; FFmpeg then estimates the length instead.
        return length if declared and abs(declared - length) < _INEXACT_SECONDS else None
    return None


def _first_packet(audio: Path) -> int | None:
    """Return the position of the first audio packet in bytes."""
    import av

    with ffmpeg_stream(audio) as (container, stream):
        try:
            return next(packet.pos for packet in container.demux(stream))
        except (av.FFmpegError, StopIteration):
            return None


def _ffmpeg_blocks(
    container: av.container.InputContainer, stream: av.AudioStream, audio: Path, rate: int
) -> Iterator[Samples]:
    """Yield a stream's blocks at ``rate`` Hz. Raises AudioError."""
    import av

    planes = _Planes(rate)
    frames = packets = broken = 0
    ended, declared = 0.0, None
    try:
        for packet in container.demux(stream):
            packets += 1
            if packets == 1:
                declared = _declared_seconds(container, stream, audio, packet.pos)
            try:
                decoded = packet.decode()
            except av.InvalidDataError:  # one or two broken packets are skipped, as players do
                broken += 1
                if broken > _TOLERATED_PACKETS + packets // 50:
                    raise
                continue
            ended = max([ended, *((frame.time or 0.0) + frame.samples / frame.sample_rate for frame in decoded)])
            for block in planes.blocks(decoded, is_last=packet.size == 0):
                frames += len(block)
                yield block
    except av.PatchWelcomeError as error:
        raise AudioError(
            f"{audio.name} holds streams of different formats: only the first {ended:.1f} s can be decoded",
            "split it, or convert it to one stream",
        ) from error
    except (av.FFmpegError, ValueError) as error:
        if not ended:
            raise _not_audio(audio) from error
        raise _damaged(audio, max(ended, frames / rate)) from error
    if not frames:
        raise _not_audio(audio)
    if declared and _is_truncated(max(ended, frames / rate), declared):
        raise _damaged(audio, frames / rate)


class _Planes:
    """Converts frames to blocks of float32 at one rate, also where rate, layout or format change (joined files)."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._resampler: av.AudioResampler | None = None
        self._setup: tuple[object, ...] = ()

    def blocks(self, frames: Sequence[av.AudioFrame], is_last: bool) -> Iterator[Samples]:
        """Yield blocks of the shape (frames, channels); ``is_last``: and what is still in the resampler."""
        import av

        for frame in frames:
            setup = (frame.sample_rate, frame.layout.name, frame.format.name)
            if setup != self._setup:
                if not LOWEST_RATE <= frame.sample_rate <= HIGHEST_RATE:
                    raise ValueError("not a sample rate")
                yield from self._rest()
                self._setup = setup
                self._resampler = av.AudioResampler(format="flt", rate=self._rate, frame_size=_BLOCK)
            yield from self._converted(frame)
        if is_last:
            yield from self._rest()

    def _rest(self) -> Iterator[Samples]:
        if self._resampler is not None:
            yield from self._converted(None)
            self._resampler, self._setup = None, ()

    def _converted(self, frame: av.AudioFrame | None) -> Iterator[Samples]:
        assert self._resampler is not None
        for block in self._resampler.resample(frame):
            yield block.to_ndarray().reshape(-1, block.layout.nb_channels).astype("float32", copy=False)


def _declared_seconds(
    container: av.container.InputContainer, stream: av.AudioStream, audio: Path, first_packet: int | None
) -> float | None:
    """Return the length that the file's header declares; None where FFmpeg could only estimate it from a bit rate.

    ``first_packet`` is the position of the first audio packet in bytes.
    """
    import av

    kind = container.format.name
    if "mp4" in kind:
        return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
    if kind == "mp3":
        return _frames_declared(audio, first_packet) * (1152 if stream.rate >= 32_000 else 576) / stream.rate
    # Matroska declares the length of the longest stream only.
    if "matroska" in kind and len(container.streams) == 1 and _EBML_DURATION.search(_read(audio, 0, _MATROSKA_HEAD)):
        return container.duration / av.time_base if container.duration else None
    return None


def _frames_declared(mp3: Path, first_packet: int | None) -> int:
    """Return the number of frames in LAME's tag, which is in the frame before the first audio frame; 0 without a tag.

    FFmpeg does not return that frame, and drops its count where the file is larger than the tag says (a cover at the
    end, or two files in one).
    """
    if not first_packet:
        return 0
    start = max(0, first_packet - _MP3_FRAME)
    found = _XING.findall(_read(mp3, start, first_packet - start))
    return int.from_bytes(found[-1][1], "big") if found and found[-1][0][0] & 1 else 0


def _read(path: Path, start: int, length: int) -> bytes:
    """Return ``length`` bytes from ``start`` on."""
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)


def _not_audio(audio: Path) -> AudioError:
    return AudioError(
        f"{audio.name} is not audio that libsndfile or FFmpeg's libraries can read",
        "convert it to FLAC or WAV, or exclude the file",
    )


def _damaged(audio: Path, seconds: float) -> AudioError:
    return AudioError(
        f"{audio.name} is damaged: the audio ends after {seconds:.1f} s", "copy it again from its source, or exclude it"
    )
