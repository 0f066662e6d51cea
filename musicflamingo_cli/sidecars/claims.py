"""Claims: which process is at work on a track. A claim is a lock on a file, so it dies with its owner.

The lock is the system's (flock), which also holds between machines on a shared folder that knows it (NFS 4, SMB).
Where a folder knows no locks, filelock falls back to files that need not die with their owner: use `--shard` there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

SUFFIX = ".mf-claim"


def claim_file(sidecar: Path) -> Path:
    """Hidden, beside the sidecar that the work is for."""
    return sidecar.with_name(f".{sidecar.name}{SUFFIX}")


@contextlib.contextmanager
def claimed(sidecar: Path) -> Iterator[bool]:
    """Whether the track of this sidecar is ours to work on, for as long as the context lasts. Never waits.

    The file goes with the claim; one that a killed process left is taken over.
    """
    from filelock import FileLock, Timeout

    # Not bound to this thread: the main one releases it where a worker was interrupted.
    lock = FileLock(claim_file(sidecar), timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    except PermissionError:
        yield not claim_file(sidecar).exists()  # another user's claim; or a folder in which none can be made
        return
    except (OSError, RuntimeError):  # no locks here, or no permission: the sidecar's own lock still protects it
        yield True
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):
            claim_file(sidecar).unlink()  # while it is held: whoever opened it in vain opens it anew (filelock >= 3.21)
        lock.release()


def sweep(file: Path) -> None:
    """Remove a claim whose owner is gone."""
    from filelock import FileLock, Timeout

    lock = FileLock(file, timeout=0, thread_local=False)
    with contextlib.suppress(Timeout, OSError, RuntimeError):
        lock.acquire()
        with contextlib.suppress(OSError):
            file.unlink()
        lock.release()
