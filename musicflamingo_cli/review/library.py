"""The dataset in memory: one small entry a track, searched and filtered without touching the disk."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from musicflamingo_cli.captioning import run_log
from musicflamingo_cli.dataset.tracks import find_tracks
from musicflamingo_cli.errors import SidecarError
from musicflamingo_cli.review.doubts import doubt_of, reasons_of
from musicflamingo_cli.sidecars.captions import (
    APPROVED_KEY,
    EXCLUDED_KEY,
    NOTE_KEY,
    captions_in,
    has_caption,
    has_real_caption,
    is_protected,
)
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.types import KEY_PREFIX, Track

logger = logging.getLogger(__name__)

DOUBTFUL = 0.5  # from this doubt on, a track counts as doubtful
_WATCHED = 20.0  # seconds after a page's last question that sidecars are watched
_SHARE = 5  # of the time, at most one part in so many is spent watching
_POLITE, _YIELD = 20, 0.001  # after so many tracks, reading pauses so many seconds
_PAUSE = 1.0  # seconds, at least, between two looks at all sidecars


class Filter(StrEnum):
    """Which tracks a page lists."""

    ALL = "all"
    TO_DO = "to do"  # neither approved nor excluded
    MISSING = "missing"
    FAILED = "failed"
    DOUBTFUL = "doubtful"
    EDITED = "edited"
    APPROVED = "approved"
    EXCLUDED = "excluded"
    NOTED = "noted"


class Sort(StrEnum):
    """In which order; tracks of equal rank are in the dataset's order."""

    DOUBT = "doubt"
    NAME = "name"


@dataclass(slots=True)
class Entry:
    """A track as the list shows it.

    ``text`` is its name and captions in lower case, for the search. ``stamp`` identifies the state of the sidecar that
    this was read from, ``revision`` counts the library's changes. ``doubt``: from 0 to 1, None where it is unknown.
    """

    number: int
    track: Track
    name: str
    text: str = ""
    captions: int = 0
    missing: int = 0
    flags: frozenset[Filter] = frozenset()
    doubt: float | None = None
    problem: str = ""
    stamp: tuple[int, ...] = ()
    revision: int = 0

    def row(self) -> dict[str, Any]:
        """Return what the page's list shows."""
        return {
            "id": self.number,
            "name": self.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
            "missing": self.missing,
            "captions": self.captions,
            "flags": sorted(self.flags),
            "doubt": None if self.doubt is None else round(self.doubt, 3),
            "problem": self.problem,
        }


class Library:
    """The tracks of the dataset at ``root``. ``scan`` fills it, from a thread of its own; any thread may ask."""

    def __init__(self, root: Path, presets: Sequence[str], follow_links: bool = False) -> None:
        self.root = root
        self.presets = presets
        self.follow_links = follow_links
        self.entries: list[Entry] = []
        self.is_complete = False
        self.revision = 0
        self._failed: dict[Path, list[str]] = {}
        self._lock = threading.Lock()
        self._asked = 0.0
        self._stopped = threading.Event()

    def scan(self) -> None:
        """Read the dataset once."""
        log = run_log.latest([self.root])
        self._failed = run_log.failed(log) if log else {}
        for item in find_tracks(self.root, follow_links=self.follow_links):
            if len(self.entries) % _POLITE == 0 and self._stopped.wait(_YIELD):  # a page that waits comes first
                return
            if isinstance(item, Track):
                name = item.audio.relative_to(self.root).as_posix() if item.audio != self.root else item.audio.name
                entry = Entry(number=len(self.entries), track=item, name=name)
                self._read(entry)
                self.entries.append(entry)
        self.is_complete = True

    def watch(self) -> None:
        """Read sidecars again that others change, while a page is open; until ``stop``."""
        pause = _PAUSE
        while not self._stopped.wait(pause):
            if not self.is_complete or time.monotonic() - self._asked > _WATCHED:
                continue
            started = time.monotonic()
            for entry in self.entries:
                if self._stopped.is_set():
                    return
                if _stamp(entry.track.sidecar) != entry.stamp:
                    self.refresh(entry)
            pause = max(_PAUSE, _SHARE * (time.monotonic() - started))

    def stop(self) -> None:
        """End ``scan`` and ``watch``."""
        self._stopped.set()

    def touch(self) -> None:
        """Note that a page is open."""
        self._asked = time.monotonic()

    def entry(self, number: int) -> Entry | None:
        """Return a track by its number; None where there is none."""
        return self.entries[number] if 0 <= number < len(self.entries) else None

    def refresh(self, entry: Entry) -> None:
        """Read a track's sidecar again."""
        self._read(entry)

    def _read(self, entry: Entry) -> None:
        stamp = _stamp(entry.track.sidecar)  # before it is read: a change meanwhile is found later
        problem = ""
        try:
            info = read_sidecar(entry.track.sidecar)
        except SidecarError as error:
            info, problem = {}, str(error)
        captions = captions_in(info)
        missing = sum(not has_real_caption(info, preset) for preset in self.presets)
        failed = self._failed.get(entry.track.audio.absolute(), []) if missing else []
        doubt = doubt_of(info)
        flags = self._flags(info, missing, bool(problem or failed), doubt)
        note = info.get(NOTE_KEY)
        texts = [entry.name, *captions.values(), note if isinstance(note, str) else ""]
        with self._lock:
            self.revision += 1
            entry.revision = self.revision
            entry.stamp = stamp
            entry.text = "\n".join(texts).lower()
            entry.captions = sum(has_caption(info, key.removeprefix(KEY_PREFIX)) for key in captions)
            entry.missing, entry.flags, entry.doubt = missing, flags, doubt
            entry.problem = problem or ", ".join(dict.fromkeys(failed))

    def _flags(self, info: dict[str, Any], missing: int, is_failed: bool, doubt: float | None) -> frozenset[Filter]:
        is_approved, is_excluded = info.get(APPROVED_KEY) is True, info.get(EXCLUDED_KEY) is True
        holds = {
            Filter.TO_DO: not is_approved and not is_excluded,
            Filter.MISSING: missing > 0,
            Filter.FAILED: is_failed,
            Filter.DOUBTFUL: (doubt is not None and doubt >= DOUBTFUL) or bool(reasons_of(info)),
            Filter.EDITED: any(is_protected(info, key.removeprefix(KEY_PREFIX)) for key in captions_in(info)),
            Filter.APPROVED: is_approved,
            Filter.EXCLUDED: is_excluded,
            Filter.NOTED: bool(info.get(NOTE_KEY)),
        }
        return frozenset(name for name, is_so in holds.items() if is_so)

    def select(self, search: str = "", only: Filter = Filter.ALL, sort: Sort = Sort.NAME) -> list[int]:
        """Return the numbers of the tracks whose name or captions hold every word of ``search``, in order."""
        terms = search.lower().split()
        found = [
            entry
            for entry in list(self.entries)
            if (only == Filter.ALL or only in entry.flags) and all(term in entry.text for term in terms)
        ]
        if sort == Sort.DOUBT:
            found.sort(key=_doubtful_first)
        return [entry.number for entry in found]

    def counts(self) -> dict[str, int]:
        """Return the number of tracks that each filter takes."""
        counts = dict.fromkeys(Filter, 0)
        for entry in list(self.entries):
            for flag in entry.flags:
                counts[flag] += 1
        counts[Filter.ALL] = len(self.entries)
        return {str(name): number for name, number in counts.items()}

    def changed_since(self, revision: int, most: int = 200) -> list[Entry]:
        """Return tracks that changed after a revision, the earliest change first."""
        changed = [entry for entry in list(self.entries) if entry.revision > revision]
        return sorted(changed, key=lambda entry: entry.revision)[:most]


def _doubtful_first(entry: Entry) -> tuple[bool, bool, float, int]:
    """What is settled last; what failed first, then the most doubtful, then what lacks most captions."""
    is_settled = Filter.TO_DO not in entry.flags
    return is_settled, Filter.FAILED not in entry.flags, -(entry.doubt or 0.0), -entry.missing


def _stamp(sidecar: Path) -> tuple[int, ...]:
    try:
        status = sidecar.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


def start(work: Callable[[], None], name: str) -> threading.Thread:
    """Run ``work`` in a thread that does not keep the process alive, and log what ends it."""

    def run() -> None:
        try:
            work()
        except Exception:
            logger.exception("%s ended", name)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread
