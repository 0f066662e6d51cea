"""Claims in a store: an object beside the sidecar, which its owner keeps renewing. A claim that rests has expired.

No clock is compared with another machine's: whoever wants a claim watches whether its version changes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from musicflamingo_cli.stores.store import ConflictError, Store

logger = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
CLAIM_SUFFIX = ".mf-claim"


def claim_key(sidecar: str) -> str:
    """Return the key of the claim on a sidecar."""
    folder, _, name = sidecar.rpartition("/")
    return f"{folder}/.{name}{CLAIM_SUFFIX}"


@dataclass(frozen=True, slots=True)
class _Claim:
    """Our version of a claim, and when we began to write it (monotonic seconds)."""

    tag: str
    since: float


class Leases:
    """This process's claims. A context manager: a thread renews them, and those that are left are released."""

    def __init__(self, store: Store, seconds: float = LEASE_SECONDS, is_needed: bool = True) -> None:
        """``is_needed``: false where nothing is written, and so nothing need be claimed."""
        self._store = store
        self._is_needed = is_needed and store.is_conditional
        self._seconds = seconds
        self._owner = uuid.uuid4().hex
        self._number = 0
        self._lock = threading.RLock()
        self._held: dict[str, _Claim] = {}
        self._seen: dict[str, tuple[str, float]] = {}  # others' claims: the version, and since when it is that
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True, name="leases")

    def __enter__(self) -> Leases:
        if self._is_needed:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for claim in list(self._held):
            with contextlib.suppress(OSError):
                self._release(claim)

    @contextlib.contextmanager
    def claimed(self, sidecar: str) -> Iterator[bool]:
        """Claim a track for as long as the context lasts; yield whether that worked. Raises OSError."""
        if not self._is_needed:
            yield True
            return
        claim = claim_key(sidecar)
        if not self._acquire(claim):
            yield False
            return
        try:
            yield True
        finally:
            with contextlib.suppress(OSError):  # it expires
                self._release(claim)

    def is_held(self, sidecar: str) -> bool:
        """Return whether the claim is ours for some time to come: a process that slept too long has lost it.

        Raises OSError where an old claim cannot be renewed.
        """
        if not self._is_needed:
            return True
        claim = claim_key(sidecar)
        held = self._held.get(claim)
        if held is not None and time.monotonic() - held.since > self._seconds / 2:
            self._renew_one(claim, held.tag)
        return claim in self._held

    def _acquire(self, claim: str) -> bool:
        with contextlib.suppress(ConflictError):
            self._hold(claim, None)
            return True
        if (found := self._store.read(claim)) is None:
            return False  # released this moment; the next round takes it
        tag, since = self._seen.get(claim, ("", 0.0))
        if tag != found.tag:
            self._seen[claim] = (found.tag, time.monotonic())
            return False
        if time.monotonic() - since < self._seconds:
            return False
        try:
            self._hold(claim, found.tag)
        except ConflictError:
            return False
        logger.info("took over the claim of a process that is gone: %s", claim)
        return True

    def _hold(self, claim: str, tag: str | None) -> None:
        """Write a claim in place of the version ``tag``. Raises ConflictError, OSError."""
        with self._lock:
            self._number += 1
            data = json.dumps({"owner": self._owner, "number": self._number}).encode()
            since = time.monotonic()
            try:
                new = self._store.write(claim, data, tag)
            except ConflictError:
                # Ours: the store's library repeats a write whose answer was lost, and that conflicts with itself.
                found = self._store.read(claim)
                if found is None or found.data != data:
                    raise
                new = found.tag
            self._held[claim] = _Claim(new, since)

    def _release(self, claim: str) -> None:
        with self._lock:
            held = self._held.pop(claim, None)
            found = self._store.read(claim) if held is not None else None
            if held is not None and found is not None and found.tag == held.tag:
                self._store.delete(claim)

    def _renew(self) -> None:
        while not self._ended.wait(self._seconds / 4):
            for claim, held in list(self._held.items()):
                try:
                    self._renew_one(claim, held.tag)
                except OSError as error:
                    logger.info("cannot renew %s: %s", claim, error)

    def _renew_one(self, claim: str, tag: str) -> None:
        """Renew a claim, unless that was done meanwhile; forget it where another process has it. Raises OSError."""
        try:
            with self._lock:
                held = self._held.get(claim)
                if held is not None and held.tag == tag:
                    self._hold(claim, tag)
        except ConflictError:
            with self._lock:
                held = self._held.get(claim)
                if held is not None and held.tag == tag:
                    del self._held[claim]
                    logger.warning("another process took over %s", claim)
