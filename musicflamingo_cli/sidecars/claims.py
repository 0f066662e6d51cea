"""Claims: which process captions a track. A claim is a lock on a file, so it ends with its owner.

The lock is the system's (flock), which also works between machines on a shared folder that supports it (NFS 4, SMB).
Where a folder supports no locks, filelock falls back to files that may outlive their owner: use `--shard` there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from musicflamingo_cli.sidecars.leftovers import CLAIM_SUFFIX

_LONGEST_NAME = 255  # bytes, of all usual file systems


def claim_file(sidecar: Path, suffix: str = CLAIM_SUFFIX) -> Path:
    """Return the hidden file beside a sidecar that is locked while its track is in progress.

    Two links to one sidecar share it. Where its name would be too long for the file system, it is a hash.
    """
    if os.path.islink(sidecar):  # noqa: PTH114  (Path's method raises for a name that is too long)
        sidecar = Path(os.path.realpath(sidecar))
    name = f".{sidecar.name}{suffix}"
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = f".{hashlib.sha256(os.fsencode(sidecar.name)).hexdigest()[:32]}{suffix}"
    return sidecar.with_name(name)


@contextlib.contextmanager
def claimed(sidecar: Path) -> Iterator[bool]:
    """Claim the track of this sidecar for as long as the context lasts; yield whether that worked. Never waits.

    The file is removed with the claim; one that a killed process left is taken over.
    """
    from filelock import FileLock, Timeout

    # Not bound to this thread: the main thread releases it where a worker was interrupted.
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
            claim_file(sidecar).unlink()  # while it is locked: a process that waits opens a new one (filelock >= 3.21)
        lock.release()
