"""The header of a safetensors file, which tells whether the file is complete.

Format: eight bytes with the header's length, the header as JSON (each tensor's place in what follows), the tensors.
"""

from __future__ import annotations

import json
from pathlib import Path

from musicflamingo_cli.errors import ModelError

_PREFIX = 8  # bytes
_MAX_HEADER = 100 << 20  # bytes: the format's own limit


def require_whole(file: Path, hint: str) -> int:
    """Return the file's size in bytes. Raises ModelError with ``hint`` unless the size is what the header says."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(_PREFIX), "little")
            header = stream.read(length) if length <= _MAX_HEADER else b""
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror}", "check its permissions") from error
    if length > _MAX_HEADER:
        raise ModelError(f"{file} is not in the format safetensors", hint)
    if size <= _PREFIX + length:
        raise ModelError(f"{file} is cut short ({size} bytes)", hint)
    try:
        expected = _PREFIX + length + _length_of_tensors(header)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        raise ModelError(f"{file} has a damaged header", hint) from error
    if size != expected:
        problem = "is cut short" if size < expected else "is too long"
        raise ModelError(f"{file} {problem}: {size} bytes, and {expected} by its header", hint)
    return size


def _length_of_tensors(header: bytes) -> int:
    entries = json.loads(header).items()
    return max(int(entry["data_offsets"][1]) for name, entry in entries if name != "__metadata__")
