"""Names of temporary files and folders that tell whose they are, so that those of the dead can be removed."""

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
    """This process, for a name: the host, too, since containers and nodes may share a folder."""
    return f"{_host()}-{os.getpid()}"


def is_abandoned(name_of_owner: str) -> bool:
    """Whether ``owner()`` gave this to a process of this host that is gone."""
    host, _, pid = name_of_owner.rpartition("-")
    return host == _host() and pid.isdigit() and not _is_running(int(pid))


def folder_prefix() -> str:
    """How the names of this process's temporary folders begin."""
    return f"{_PREFIX}{owner()}-"


def sweep_temporary_folders() -> None:
    """Remove what runs that were killed outright (SIGKILL, power) have left in the temporary folder."""
    parents = {Path(tempfile.gettempdir()), Path("/tmp")}  # the server's socket cannot stand below a long TMPDIR
    for folder in (folder for parent in parents for folder in parent.glob(f"{_PREFIX}{_host()}-[0-9]*-*")):
        if is_abandoned(folder.name.removeprefix(_PREFIX).rpartition("-")[0]):
            shutil.rmtree(folder, ignore_errors=True)


def _host() -> str:
    """This machine, or this container: where a process number means the same process."""
    place = socket.gethostname()
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
