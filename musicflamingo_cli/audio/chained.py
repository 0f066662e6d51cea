"""Files that hold several streams one after the other, of which a header and libsndfile know only the first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_BLOCK = 1 << 20  # bytes
_OGG_PAGE = re.compile(rb"OggS\0([\0-\7])")  # the flags of a page; 2: it begins a stream
_FLAC_START = re.compile(rb"fLaC[\0\x80]\0\0\x22")  # the marker, and the first metadata block with its length


def is_chained(audio: Path, header_only: bool = False) -> bool:
    """Return whether a second stream follows the first in an Ogg or FLAC file.

    ``header_only``: FLAC files, which are large, are not read for it, and count as one stream.
    """
    with audio.open("rb") as file:
        kind = file.read(4)
        file.seek(0)
        if kind == b"OggS":
            return _ogg_is_chained(file)
        return kind == b"fLaC" and not header_only and sum(1 for _ in _matches(_FLAC_START, file)) > 1


def _ogg_is_chained(file: BinaryIO) -> bool:
    """Whether a stream begins after the audio; streams that begin together (a video and its sound) are no chain."""
    has_data = False
    for page in _matches(_OGG_PAGE, file):
        begins = bool(page[1][0] & 2)
        if begins and has_data:
            return True
        has_data |= not begins
    return False


def _matches(pattern: re.Pattern[bytes], file: BinaryIO) -> Iterator[re.Match[bytes]]:
    """Yield the matches in a file, also those across two blocks; matches are shorter than 9 bytes."""
    data = b""
    while block := file.read(_BLOCK):
        end = 0
        data += block
        for match in pattern.finditer(data):
            end = match.end()
            yield match
        data = data[max(end, len(data) - 8) :]
