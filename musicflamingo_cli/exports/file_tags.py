"""Fields of audio files' own tags by one set of names, whatever the format: comment, a field of ours, tempo, key."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from musicflamingo_cli.audio.decoding import ffmpeg_stream
from musicflamingo_cli.errors import AudioError

_LANGUAGE = "eng"  # of a comment in ID3, which needs one
_OWN = "MUSIC_FLAMINGO"
_FREE = "----:com.apple.iTunes:"  # MP4's fields without a name of their own


class TagField(StrEnum):
    """What can be written into a file's tags."""

    COMMENT = "comment"
    CUSTOM = "custom"  # MUSIC_FLAMINGO, for those who keep comments for themselves
    BPM = "bpm"
    KEY = "key"


_NAMES = {
    "vorbis": {
        TagField.COMMENT: "COMMENT",
        TagField.CUSTOM: _OWN,
        TagField.BPM: "BPM",
        TagField.KEY: "INITIALKEY",
    },
    "mp4": {
        TagField.COMMENT: "©cmt",
        TagField.CUSTOM: _FREE + _OWN,
        TagField.BPM: "tmpo",
        TagField.KEY: f"{_FREE}initialkey",
    },
    "asf": {
        TagField.COMMENT: "Description",
        TagField.CUSTOM: _OWN,
        TagField.BPM: "WM/BeatsPerMinute",
        TagField.KEY: "WM/InitialKey",
    },
    "ape": {TagField.COMMENT: "Comment", TagField.CUSTOM: _OWN, TagField.BPM: "BPM", TagField.KEY: "Key"},
    "id3": {
        TagField.COMMENT: f"COMM::{_LANGUAGE}",
        TagField.CUSTOM: f"TXXX:{_OWN}",
        TagField.BPM: "TBPM",
        TagField.KEY: "TKEY",
    },
}


class TaggedFile:
    """The tags of an audio file. Raises AudioError where its format has none that can be written.

    ``original``: the file that this is a copy of, under a name that does not tell its format.
    """

    def __init__(self, path: Path, original: Path | None = None) -> None:
        self._path = path
        try:
            self._file: Any = _opened(path, original)
            if self._file is not None and self._file.tags is None:
                self._file.add_tags()
        except Exception as error:  # mutagen raises many types for broken tags
            raise AudioError(
                f"the tags of {path.name} cannot be read: {error}", "repair them, or exclude it"
            ) from error
        self._kind = _kind_of(self._file)
        if not self._kind:
            raise AudioError(f"{path.name} is of a format without tags", "convert it to FLAC, or leave it without")

    def get(self, field: TagField) -> list[str]:
        """Return a field's values; none where it is missing."""
        name = _NAMES[self._kind][field]
        if self._kind == "id3":
            return [str(text) for frame in self._file.tags.getall(name) for text in frame.text]
        return [_as_text(value) for value in _listed(self._file.tags.get(name))]

    def set(self, field: TagField, values: Sequence[str]) -> None:
        """Set a field's values; none: remove it."""
        name = _NAMES[self._kind][field]
        if self._kind == "id3":
            self._file.tags.delall(name)
            if values:
                self._file.tags.add(_frame(field, list(values)))
        elif not values:
            if name in self._file.tags:
                del self._file.tags[name]
        elif self._kind == "mp4":
            self._file.tags[name] = [_mp4_value(name, value) for value in values]
        else:
            self._file.tags[name] = list(values)

    def save(self) -> None:
        """Write the tags into the file. ID3 keeps its version, but 2.2 becomes 2.3, as mutagen cannot write it."""
        version = getattr(self._file.tags, "version", (2, 4, 0))
        # Without v23_sep mutagen would join several values of other frames into one, with slashes.
        more = {"v2_version": 3 if version < (2, 4, 0) else 4, "v23_sep": None} if self._kind == "id3" else {}
        self._file.save(**more)


def audio_digest(path: Path) -> str:
    """Return a hash of a file's encoded audio, without its tags. Raises AudioError."""
    import av

    found = hashlib.sha256()
    with ffmpeg_stream(path) as (container, stream):
        try:
            for packet in container.demux(stream):
                found.update(bytes(packet))
        except av.FFmpegError as error:
            raise AudioError(f"{path.name} is damaged: {error}", "copy it again from its source") from error
    return found.hexdigest()


def _opened(path: Path, original: Path | None) -> Any:
    """Return a file as mutagen reads it, None for an unknown format; ``original``: see ``TaggedFile``.

    ID3 frames are as they are in the file: by default mutagen makes them those of 2.4.
    """
    import mutagen

    file = mutagen.File(original or path)
    kind: Any = type(file)
    if _kind_of(file) != "id3":
        return kind(path) if original and file is not None else file
    file = kind(path, translate=False)
    if file.tags is not None and file.tags.version < (2, 3, 0):
        file.tags.update_to_v23()
    return file


def _kind_of(file: Any) -> str:
    from mutagen.apev2 import APEv2
    from mutagen.asf import ASFTags
    from mutagen.id3 import ID3
    from mutagen.mp4 import MP4Tags

    kinds = {"mp4": MP4Tags, "asf": ASFTags, "ape": APEv2, "id3": ID3}
    tags = file.tags if file is not None else None
    if hasattr(tags, "vendor"):  # of FLAC, Ogg and Opus, whose classes share a private one only
        return "vorbis"
    return next((name for name, kind in kinds.items() if isinstance(tags, kind)), "")


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def _as_text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _mp4_value(name: str, value: str) -> Any:
    if name == "tmpo":
        return round(float(value))
    return value.encode() if name.startswith(_FREE) else value


def _frame(field: TagField, values: list[str]) -> Any:
    from mutagen import id3

    utf8 = 3
    match field:
        case TagField.COMMENT:
            return id3.COMM(encoding=utf8, lang=_LANGUAGE, desc="", text=values)
        case TagField.CUSTOM:
            return id3.TXXX(encoding=utf8, desc=_OWN, text=values)
        case TagField.BPM:
            return id3.TBPM(encoding=utf8, text=values)
        case TagField.KEY:
            return id3.TKEY(encoding=utf8, text=values)
