"""Names of temporary files and folders that tell their owner, so that those of dead processes can be removed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import tempfile
from pathlib import Path

_PREFIX = "musicflamingo-"


def owner() -> str:
    """Return a name for this process; the host is in it, since containers and nodes may share a folder."""
    return f"{_host()}-{os.getpid()}"


def is_abandoned(name_of_owner: str) -> bool:
    """Return whether ``owner()`` gave this name to a process of this host that is gone."""
    host, _, pid = name_of_owner.rpartition("-")
    return host == _host() and pid.isdigit() and not _is_running(int(pid))


def folder_prefix() -> str:
    """Return how the names of this process's temporary folders begin."""
    return f"{_PREFIX}{owner()}-"


def sweep_temporary_folders() -> None:
    """Remove what runs that were killed outright (SIGKILL, power cut) left in the temporary folder."""
    parents = {Path(tempfile.gettempdir()), Path("/tmp")}  # a server's socket cannot lie below a long TMPDIR
    for folder in (folder for parent in parents for folder in parent.glob(f"{_PREFIX}{_host()}-[0-9]*-*")):
        if is_abandoned(folder.name.removeprefix(_PREFIX).rpartition("-")[0]):
            shutil.rmtree(folder, ignore_errors=True)


def _host() -> str:
    """This machine, or this container: where a process number identifies one process."""
    place = socket.gethostname()
    with contextlib.suppress(OSError):  # two machines of one name may share a folder
        place += Path("/etc/machine-id").read_text(encoding="ascii", errors="replace").strip()
    with contextlib.suppress(OSError):
        place += os.readlink("/proc/self/ns/pid")  # noqa: PTH115  (no file behind it to make a path of)
    return hashlib.sha256(place.encode()).hexdigest()[:12]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
