"""Free disk space, also for folders that do not exist yet, and the sizes of files."""

from __future__ import annotations

import shutil
from pathlib import Path


def nearest_existing(folder: Path) -> Path:
    """Return the folder, or the first of its parents that exists."""
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk that the folder is on, or would be."""
    return shutil.disk_usage(nearest_existing(folder)).free


def file_size(path: Path) -> int:
    """Return a file's size in bytes; 0 where it is not known."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
