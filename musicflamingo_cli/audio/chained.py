"""What is in a file behind its first stream's header: further streams, further files, and gaps where pages are lost."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from musicflamingo_cli.errors import AudioError

_BLOCK = 1 << 20  # bytes
_LONGEST_MATCH = 22  # bytes
_PAGE_HEADER, _LONGEST_PAGE = 27, 65_307  # bytes of an Ogg page; the header's last byte counts the lengths behind it
# Flags (2: the page begins a stream), position of its last sample, number of the stream, number of the page.
_OGG_PAGE = re.compile(rb"OggS\0([\0-\7])(.{8})(.{4})(.{4})", re.DOTALL)
# The order of the bytes of a size, and the kinds of files that begin so.
_SIZED: dict[bytes, tuple[Literal["little", "big"], tuple[bytes, ...]]] = {
    b"RIFF": ("little", (b"WAVE",)),
    b"FORM": ("big", (b"AIFF", b"AIFC")),
}
_MOST_BOXES = 1000  # of an MP4 file, at its top level
_FLAC_START = re.compile(rb"fLaC[\0\x80]\0\0\x22")  # the marker, and the first metadata block with its length


@dataclass(frozen=True, slots=True)
class Streams:
    """Whether a second stream follows the first, and which share of the audio (0 to 1) was on pages that are lost.

    ``is_broadcast``: it begins in the middle of a stream, as the recording of a broadcast does.
    """

    is_chained: bool = False
    lost: float = 0.0
    is_broadcast: bool = False


def streams_in(audio: Path, header_only: bool = False) -> Streams:
    """Look through a file; decoders report neither what follows the first stream or file nor lost pages of Ogg.

    ``header_only``: FLAC files, which are large, are not read for it, and count as one stream. Raises AudioError where
    no decoder reads on: after the first of several WAV, AIFF or MP4 files joined into one.
    """
    with audio.open("rb") as file:
        _skip_tag(file)
        start = file.tell()
        head = file.read(12)
        if _is_sized_and_followed(file, start, head) or _is_followed_mp4(file, start, head):
            raise AudioError(
                f"{audio.name} holds a second file behind its first one, which no decoder reads",
                "split it, or convert each and join them then",
            )
        file.seek(start)
        if head.startswith(b"OggS"):
            streams = _ogg_streams(file)
            if not streams.is_broadcast and _ends_within_a_page(file):
                raise AudioError(
                    f"{audio.name} is truncated: it ends in the middle of a page, and is not marked as its last",
                    "copy it again from its source; if nothing is missing, convert it to FLAC",
                )
            return streams
        is_read = head.startswith(b"fLaC") and not header_only
        return Streams(is_chained=is_read and sum(1 for _ in _matches(_FLAC_START, file)) > 1)


def _skip_tag(file: BinaryIO) -> None:
    """Go behind an ID3 tag, which some programs write before any kind of audio."""
    tag = file.read(10)
    size = 0
    if tag.startswith(b"ID3") and len(tag) == 10:
        for byte in tag[6:]:  # seven bits each
            size = size << 7 | byte & 0x7F
        size += 10 + 10 * bool(tag[5] & 0x10)  # header, and footer
    file.seek(size)


def _is_sized_and_followed(file: BinaryIO, start: int, head: bytes) -> bool:
    """Return whether another WAV or AIFF file begins where one of these ends by its header."""
    if head[:4] not in _SIZED:
        return False
    order, kinds = _SIZED[head[:4]]
    if head[8:] not in kinds:
        return False
    file.seek(start + 8 + int.from_bytes(head[4:8], order))
    behind = file.read(13)
    return any(part[:4] == head[:4] and part[8:12] in kinds for part in (behind, behind[1:]))  # with a byte of padding


def _is_followed_mp4(file: BinaryIO, start: int, head: bytes) -> bool:
    """Return whether an MP4 file has two indexes, each of a file of its own; one in fragments is read whole."""
    if head[4:8] != b"ftyp":
        return False
    indexes = 0
    end = os.fstat(file.fileno()).st_size
    for _ in range(_MOST_BOXES):
        if start >= end:  # also one that a box's size puts where no file can reach
            break
        file.seek(start)
        box = file.read(16)
        size = int.from_bytes(box[:4], "big")
        if size == 1:  # the size follows, in eight bytes
            size = int.from_bytes(box[8:], "big")
        if len(box) < 8 or box[4:8] == b"moof":
            return False
        indexes += box[4:8] == b"moov"
        if indexes > 1 or size < 8:
            break
        start += size
    return indexes > 1


@dataclass(slots=True)
class _Place:
    """Where the reading of a stream is: its last page, the last position in samples, and the pages since."""

    page: int
    position: int = 0
    missing: int = 0
    read: int = 0


def _ogg_streams(file: BinaryIO) -> Streams:
    """Streams that begin together (a video and its sound) are no chain."""
    has_data = is_chained = is_broadcast = False
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
        is_broadcast |= place.missing > 0 and place.position <= 0
        place.read += 1
        place.page = page
        if position >= 0:  # else no packet ends on this page
            length = max(0, position - place.position)
            total += length
            if place.position > 0:  # a recorded broadcast may begin with any page
                lost += length * place.missing / (place.missing + place.read)
            places[stream] = _Place(page, position)
    return Streams(is_chained, lost / total if total else 0.0, is_broadcast)


def _ends_within_a_page(file: BinaryIO) -> bool:
    """Return whether an Ogg file's last page is longer than what is there of it, and does not end its stream.

    The header has no length of the whole, by which a decoder would notice (RFC 3533, section 6).
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - _LONGEST_PAGE))
    data = file.read()
    start = data.rfind(b"OggS\0")
    header = data[start:] if start >= 0 else b""
    if len(header) < _PAGE_HEADER:
        return bool(header)
    behind = _PAGE_HEADER + header[_PAGE_HEADER - 1]  # the lengths
    is_last = header[5] & 4
    return not is_last and behind + sum(header[_PAGE_HEADER:behind]) > len(header)


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
