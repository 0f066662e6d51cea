"""What a killed process leaves beside tracks: temporary files, lock files with our mark, and claims."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path

from musicflamingo_cli.paths import read_regular

SIDECAR_SUFFIX = ".INFO"
LOCK_SUFFIX = ".lock"
CLAIM_SUFFIX = ".mf-claim"
REVIEW_SUFFIX = ".mf-review"  # of the file that is locked while a track is open in a review
LOCK_MARK = "musicflamingo"  # what a lock file of ours holds; those of others are empty

_TEMPORARY = ".mf-{}.tmp"
_TEMPORARY_NAME = re.compile(re.escape(_TEMPORARY).replace(r"\{\}", "[0-9a-f]{16}"))


def temporary_name(sidecar: Path) -> Path:
    """Return a new name beside a sidecar; short, since the sidecar's own may be at the file system's limit."""
    return sidecar.with_name(_TEMPORARY.format(secrets.token_hex(8)))


def may_be_leftover(name: str) -> bool:
    """Return whether a file of this name may have been left by a killed process; cheap, for every file of a tree."""
    return ".mf-" in name or name.endswith(SIDECAR_SUFFIX + LOCK_SUFFIX)


def sweep(file: Path) -> None:
    """Remove a file that a killed process left, if it is one and no living process holds its lock."""
    if not _is_leftover(file):
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(file, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        try:
            # Compared after locking: meanwhile its owner may have removed it, and another made one of that name.
            if lock_now(descriptor) and os.path.samestat(os.fstat(descriptor), file.lstat()):
                file.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def sweep_folder(folder: Path) -> None:
    """Remove what killed processes left in a folder; see ``sweep``."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        leftovers = [entry.name for entry in entries if may_be_leftover(entry.name)]
        for name in leftovers:
            sweep(folder / name)


def has_our_mark(lock_file: Path) -> bool:
    """Return whether a lock file was made by this product rather than by another tool."""
    try:
        return read_regular(lock_file, len(LOCK_MARK)) == LOCK_MARK.encode()
    except OSError:
        return False


def lock_now(descriptor: int) -> bool:
    """Lock an open file, as filelock does, without waiting; return whether that worked.

    False too where the system has no such locks.
    """
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def _is_leftover(file: Path) -> bool:
    name = file.name
    if _TEMPORARY_NAME.fullmatch(name) or name.endswith((CLAIM_SUFFIX, REVIEW_SUFFIX)):
        return True
    return name.endswith(SIDECAR_SUFFIX + LOCK_SUFFIX) and has_our_mark(file)
