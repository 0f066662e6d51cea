"""What is in an Ogg or FLAC file besides its first stream's header: further streams, and gaps where pages are lost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_BLOCK = 1 << 20  # bytes
_LONGEST_MATCH = 22  # bytes
# Flags (2: the page begins a stream), position of its last sample, number of the stream, number of the page.
_OGG_PAGE = re.compile(rb"OggS\0([\0-\7])(.{8})(.{4})(.{4})", re.DOTALL)
_FLAC_START = re.compile(rb"fLaC[\0\x80]\0\0\x22")  # the marker, and the first metadata block with its length


@dataclass(frozen=True, slots=True)
class Streams:
    """Whether a second stream follows the first, and which share of the audio (0 to 1) was on pages that are lost."""

    is_chained: bool = False
    lost: float = 0.0


def streams_in(audio: Path, header_only: bool = False) -> Streams:
    """Look through an Ogg or FLAC file; decoders report neither what follows the first stream nor lost pages of Ogg.

    ``header_only``: FLAC files, which are large, are not read for it, and count as one stream.
    """
    with audio.open("rb") as file:
        kind = file.read(4)
        file.seek(0)
        if kind == b"OggS":
            return _ogg_streams(file)
        is_read = kind == b"fLaC" and not header_only
        return Streams(is_chained=is_read and sum(1 for _ in _matches(_FLAC_START, file)) > 1)


@dataclass(slots=True)
class _Place:
    """Where the reading of a stream is: its last page, the last position in samples, and the pages since."""

    page: int
    position: int = 0
    missing: int = 0
    read: int = 0


def _ogg_streams(file: BinaryIO) -> Streams:
    """Streams that begin together (a video and its sound) are no chain."""
    has_data = is_chained = False
    places: dict[bytes, _Place] = {}
    lost = total = 0.0
    for match in _matches(_OGG_PAGE, file):
        stream, page = match[3], int.from_bytes(match[4], "little")
        position = int.from_bytes(match[2], "little", signed=True)
        if match[1][0] & 2:  # it begins a stream
            is_chained |= has_data
            places[stream] = _Place(page)
            continue
        has_data = True
        if (place := places.get(stream)) is None:
            continue
        place.missing += max(0, page - place.page - 1)
        place.read += 1
        place.page = page
        if position >= 0:  # else no packet ends on this page
            length = max(0, position - place.position)
            total += length
            if place.position > 0:  # a recorded broadcast may begin with any page
                lost += length * place.missing / (place.missing + place.read)
            places[stream] = _Place(page, position)
    return Streams(is_chained, lost / total if total else 0.0)


def _matches(pattern: re.Pattern[bytes], file: BinaryIO) -> Iterator[re.Match[bytes]]:
    """Yield the matches in a file, also those across two blocks."""
    data = b""
    while block := file.read(_BLOCK):
        end = 0
        data += block
        for match in pattern.finditer(data):
            end = match.end()
            yield match
        data = data[max(end, len(data) - _LONGEST_MATCH) :]
