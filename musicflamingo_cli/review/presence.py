"""Which tracks are open in another review of the same folder, so that two people do not edit the same one.

Like a claim of a batch (see ``sidecars.claims``), but for people: a batch does not wait for it, it only shows a name.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musicflamingo_cli.paths import read_regular
from musicflamingo_cli.review.edits import user_name
from musicflamingo_cli.sidecars.claims import claim_file
from musicflamingo_cli.sidecars.leftovers import REVIEW_SUFFIX

logger = logging.getLogger(__name__)

_IDLE = 15.0  # seconds without a question of the page until a track counts as closed
_LONGEST_NAME = 200  # bytes


@dataclass(slots=True)
class _Held:
    lock: Any
    file: Path
    until: float


class Presence:
    """The tracks that this review has open. For any thread."""

    def __init__(self) -> None:
        self._held: dict[Path, _Held] = {}
        self._lock = threading.Lock()

    def open(self, sidecar: Path) -> str:
        """Note that a track is open here; return who has it open elsewhere, empty where nobody has."""
        now = time.monotonic()
        with self._lock:
            for closed in [path for path, held in self._held.items() if path != sidecar and held.until < now]:
                self._release(closed)
            if sidecar not in self._held:
                return self._acquire(sidecar, now)
            self._held[sidecar].until = now + _IDLE
            return ""

    def close(self) -> None:
        """Close all tracks."""
        with self._lock:
            for sidecar in list(self._held):
                self._release(sidecar)

    def _acquire(self, sidecar: Path, now: float) -> str:
        from filelock import FileLock, Timeout

        file = claim_file(sidecar, REVIEW_SUFFIX)
        lock = FileLock(file, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            return _name_in(file) or "another review"
        except (OSError, RuntimeError):  # no locks in this folder, or no permission: nothing can be shown
            return ""
        with contextlib.suppress(OSError):
            file.write_text(f"{user_name()} on {socket.gethostname()}"[:_LONGEST_NAME], encoding="utf-8")
        self._held[sidecar] = _Held(lock, file, now + _IDLE)
        return ""

    def _release(self, sidecar: Path) -> None:
        held = self._held.pop(sidecar)
        with contextlib.suppress(OSError):
            held.file.unlink()  # while it is locked (see sidecars.claims)
        held.lock.release()


def _name_in(file: Path) -> str:
    with contextlib.suppress(OSError):
        return read_regular(file, 4 * _LONGEST_NAME).decode("utf-8", "replace").strip()[:_LONGEST_NAME]
    return ""
