"""What identifies a file's content: its size and a hash of parts of it, cheap for large files and many of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_PARTS, _PART = 9, 4096  # how many parts, from the first byte to the last, of how many bytes


def file_identity(file: Path) -> dict[str, Any] | None:
    """Return a file's size in bytes, a hash, and when it was modified (microseconds); None where it is unreadable."""
    try:
        status = file.stat()
    except OSError:
        return None
    found = digest([file])
    return None if found is None else {"size": status.st_size, "hash": found, "modified": status.st_mtime_ns // 1000}


def is_replaced(file: Path, recorded: Any) -> bool:
    """Return whether a file's content is not that of the ``recorded`` identity; False where either is unknown.

    It is read only where its size is the same and its time of modification is not.
    """
    if not isinstance(recorded, Mapping) or "hash" not in recorded:
        return False
    try:
        status = file.stat()
    except OSError:
        return False
    if status.st_size != recorded.get("size"):
        return True
    return status.st_mtime_ns // 1000 != recorded.get("modified") and digest([file]) not in (None, recorded["hash"])


def digest(files: Iterable[Path]) -> str | None:
    """Return 16 hex digits from the sizes and parts of files; None where one is unreadable, or there is none."""
    files = list(files)
    if not files:
        return None
    found = hashlib.sha256()
    try:
        for path in files:
            if not path.is_file():  # reading a pipe would block
                return None
            with path.open("rb") as file:
                size = file.seek(0, 2)
                found.update(size.to_bytes(8, "little"))
                for number in range(_PARTS):
                    file.seek(max(0, size - _PART) * number // (_PARTS - 1))
                    found.update(file.read(_PART))
    except OSError:
        return None
    return found.hexdigest()[:16]
