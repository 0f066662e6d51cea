"""Segments as audio files: cut without loss from WAV, FLAC and AIFF; from other formats as FLAC."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from musicflamingo_cli.audio.blocks import even
from musicflamingo_cli.audio.chained import streams_in
from musicflamingo_cli.audio.clip import Measure
from musicflamingo_cli.audio.decoding import BLOCK_FRAMES, open_source
from musicflamingo_cli.audio.segments import Span
from musicflamingo_cli.errors import AudioError
from musicflamingo_cli.system.temporary import folder_prefix

if TYPE_CHECKING:
    import soundfile

WAV, FLAC = ".wav", ".flac"
# libsndfile's names of encodings that hold samples as they are, and the type that holds them in memory without loss.
_EXACT = {"PCM_U8": "int32", "PCM_S8": "int32", "PCM_16": "int32", "PCM_24": "int32", "PCM_32": "int32"}
_EXACT |= {"FLOAT": "float32", "DOUBLE": "float64"}
_SEEKABLE = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "AIFF", "AU", "CAF")
_IN_FLAC = {"PCM_U8": "PCM_S8", "PCM_S8": "PCM_S8", "PCM_16": "PCM_16"}  # others: 24 bits, the most that it has
_LOSSY = (".mp3", ".mp2", ".mp1", ".mpga", ".ogg", ".oga", ".opus", ".aac", ".wma")  # 16 bits hold all that they have
_TOLERANCE = 0.05  # seconds by which a file may be shorter than its segments say


def suffix_of(audio: Path) -> str:
    """Return the ending of a segment's file: that of a WAV file stays, all others become FLAC."""
    return WAV if audio.suffix.lower() == WAV else FLAC


@dataclass(frozen=True, slots=True)
class _Source:
    """A file that can be read from any place: a track, or what it was decoded to."""

    audio: Path
    file: soundfile.SoundFile
    subtype: str  # of its samples

    def frames(self, span: Span) -> tuple[int, int]:
        """Return the first frame of a segment and the one after its last. Raises AudioError."""
        rate = self.file.samplerate
        first, end = span.frames(rate)
        if end > self.file.frames + _TOLERANCE * rate or first >= self.file.frames:
            seconds = self.file.frames / rate
            raise AudioError(
                f"{self.audio.name} is shorter than its segments: {seconds:.1f} s, not {span.end:.1f} s",
                "it was replaced: cut it again with batch --segments --stale",
            )
        return first, min(end, self.file.frames)


class Cutter:
    """Cuts segments out of tracks. A context manager; it keeps the last track open, decoded once where need be."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix=folder_prefix(), ignore_cleanup_errors=True)
        self._source: _Source | None = None

    def __enter__(self) -> Cutter:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._folder.cleanup()

    def measure(self, audio: Path, span: Span) -> Measure:
        """Return the exact length and the sample rate that a segment's file has. Raises AudioError."""
        source = self._opened(audio)
        first, end = source.frames(span)
        return Measure((end - first) / source.file.samplerate, source.file.samplerate)

    def cut(self, audio: Path, span: Span, target: Path) -> None:
        """Write a segment of ``audio`` to ``target``, in the format of its ending.

        Raises AudioError and OSError; then there is no such file.
        """
        try:
            self._cut(audio, span, target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    def _cut(self, audio: Path, span: Span, target: Path) -> None:
        import soundfile

        source = self._opened(audio)
        first, end = source.frames(span)
        is_wav = target.suffix == WAV
        subtype = source.subtype if is_wav else _IN_FLAC.get(source.subtype, "PCM_24")
        subtype = "PCM_U8" if is_wav and subtype == "PCM_S8" else subtype
        kind = _EXACT[source.file.subtype]
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with soundfile.SoundFile(
                target, "w", source.file.samplerate, source.file.channels, subtype, format=target.suffix[1:].upper()
            ) as file:
                source.file.seek(first)
                for block in source.file.blocks(BLOCK_FRAMES, frames=end - first, dtype=kind, always_2d=True):
                    file.write(block)
        except soundfile.SoundFileError as error:
            raise AudioError(f"cannot cut {audio.name}: {error}", "convert it to FLAC or WAV") from error
        if soundfile.info(target).frames != end - first:
            raise AudioError(f"{audio.name} ends before {span.end:.1f} s", "copy it again from its source")

    @contextlib.contextmanager
    def temporary(self, audio: Path, span: Span, suffix: str) -> Iterator[Path]:
        """Yield a segment as a file that is removed afterwards. Raises what ``cut`` does."""
        target = Path(self._folder.name) / f"segment{suffix}"
        try:
            self.cut(audio, span, target)
            yield target
        finally:
            target.unlink(missing_ok=True)

    def _opened(self, audio: Path) -> _Source:
        if self._source is None or self._source.audio != audio:
            self._close()
            self._source = _direct(audio) or self._decoded(audio)
        return self._source

    def _decoded(self, audio: Path) -> _Source:
        """Decode a whole track to a file of floats, from which any segment can be read exactly."""
        import soundfile

        target = Path(self._folder.name) / "track.w64"
        with open_source(audio) as source:
            writer: soundfile.SoundFile | None = None
            for block in even(source.blocks):
                if writer is None:
                    writer = soundfile.SoundFile(target, "w", source.rate, block.shape[1], "FLOAT", format="W64")
                writer.write(block)
        if writer is None:
            raise AudioError(f"{audio.name} holds no audio", "exclude the file")
        writer.close()
        subtype = "PCM_16" if audio.suffix.lower() in (*_LOSSY, WAV) else "PCM_24"
        return _Source(audio, soundfile.SoundFile(target), subtype)

    def _close(self) -> None:
        if self._source is not None:
            self._source.file.close()
            self._source = None


def _direct(audio: Path) -> _Source | None:
    """Open a track whose segments can be read without decoding all of it and without loss; else return None."""
    import soundfile

    with open_source(audio, header_only=True):  # for its checks: a truncated file is an error
        pass
    try:
        file = soundfile.SoundFile(os.fsencode(audio))  # as bytes, since the name may not be UTF-8
    except soundfile.SoundFileError:
        return None
    if file.format in _SEEKABLE and file.subtype in _EXACT and not streams_in(audio).is_chained:
        return _Source(audio, file, file.subtype)
    file.close()
    return None
