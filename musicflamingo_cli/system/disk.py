"""Where a folder that need not exist yet would lie, and how much room there is."""

from __future__ import annotations

import shutil
from pathlib import Path


def nearest_existing(folder: Path) -> Path:
    """The folder, or the first of its parents that is there."""
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def free_bytes(folder: Path) -> int:
    """The room on the disk that the folder is on, or would be."""
    return shutil.disk_usage(nearest_existing(folder)).free
