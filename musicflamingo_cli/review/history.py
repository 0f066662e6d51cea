"""Undo and redo over a whole session: what each change replaced, and that it is still there to be replaced again."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from musicflamingo_cli.errors import SidecarError
from musicflamingo_cli.review.edits import ConflictError, Decision
from musicflamingo_cli.review.library import Entry, Library
from musicflamingo_cli.sidecars.captions import PROVENANCE_KEY
from musicflamingo_cli.sidecars.merge import REMOVED, update_sidecar
from musicflamingo_cli.types import KEY_PREFIX

logger = logging.getLogger(__name__)

_MOST = 1000  # changes that can be undone


@dataclass(frozen=True, slots=True)
class Change:
    """The keys of one sidecar that a change set, before and after; the provenance's are named by key and preset."""

    entry: Entry
    before: Mapping[tuple[str, str], Any]
    after: Mapping[tuple[str, str], Any]


@dataclass(frozen=True, slots=True)
class Step:
    """What one command changed, in one sidecar or in many. ``label`` says what it was, for a person."""

    label: str
    changes: list[Change]


@dataclass(slots=True)
class Done:
    """The result of a command: the numbers of the changed tracks, and of those left out.

    ``conflicts``: they had changed, or cannot be written.
    """

    label: str = ""
    changed: list[int] = field(default_factory=list)
    conflicts: list[int] = field(default_factory=list)


class History:
    """Applies changes to a library's sidecars and remembers them. For any thread."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._lock = threading.RLock()
        self._undone: list[Step] = []
        self._done: list[Step] = []

    @property
    def labels(self) -> tuple[str, str]:
        """What undo and redo would take back and repeat; empty where there is nothing."""
        with self._lock:
            return self._done[-1].label if self._done else "", self._undone[-1].label if self._undone else ""

    def apply(self, label: str, entry: Entry, decide: Decision) -> bool:
        """Change one sidecar; return whether it changed. Raises what ``decide`` raises, and SidecarError."""
        change = self._write(entry, decide)
        if change is not None:
            self._remember(Step(label, [change]))
        return change is not None

    def apply_all(self, label: str, decisions: Mapping[int, Decision]) -> Done:
        """Change many sidecars as one step; those that changed meanwhile are left out."""
        done, changes = Done(label), []
        for number, decide in decisions.items():
            if (entry := self._library.entry(number)) is None:
                continue
            try:
                change = self._write(entry, decide)
            except (ConflictError, SidecarError) as error:  # what was changed before it can still be undone
                _log_unwritable(entry, error)
                done.conflicts.append(number)
                continue
            if change is not None:
                changes.append(change)
                done.changed.append(number)
        if changes:
            self._remember(Step(label, changes))
        return done

    def undo(self) -> Done:
        """Take the last step back where its result still stands."""
        return self._move(self._done, self._undone, lambda change: (change.after, change.before))

    def redo(self) -> Done:
        """Repeat the step that was undone last."""
        return self._move(self._undone, self._done, lambda change: (change.before, change.after))

    def _move(
        self, source: list[Step], target: list[Step], sides: Callable[[Change], tuple[Mapping[Any, Any], ...]]
    ) -> Done:
        with self._lock:
            if not source:
                return Done()
            step = source.pop()
            done, moved = Done(step.label), []
            for change in step.changes:
                expected, wanted = sides(change)
                try:
                    self._write(change.entry, functools.partial(_replaced, expected=expected, wanted=wanted))
                except (ConflictError, SidecarError) as error:
                    _log_unwritable(change.entry, error)
                    done.conflicts.append(change.entry.number)
                    continue
                moved.append(change)
                done.changed.append(change.entry.number)
            if moved:
                target.append(Step(step.label, moved))
            return done

    def _write(self, entry: Entry, decide: Decision) -> Change | None:
        update = update_sidecar(entry.track.sidecar, decide, entry.track.within)
        if not update.changed:
            return None
        self._library.refresh(entry)
        before, after = _flat(update.before), _flat(update.after)
        names = [name for name in {**before, **after} if before.get(name, REMOVED) != after.get(name, REMOVED)]
        return Change(
            entry=entry,
            before={name: before.get(name, REMOVED) for name in names},
            after={name: after.get(name, REMOVED) for name in names},
        )

    def _remember(self, step: Step) -> None:
        with self._lock:
            self._done.append(step)
            del self._done[:-_MOST]
            self._undone.clear()


def _log_unwritable(entry: Entry, error: Exception) -> None:
    if isinstance(error, SidecarError):
        logger.warning("%s: %s - %s", entry.track.audio, error, error.hint)


def _flat(info: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    """Return our keys of a sidecar, with those inside the provenance one by one."""
    flat: dict[tuple[str, str], Any] = {}
    for key, value in info.items():
        if key == PROVENANCE_KEY and isinstance(value, dict):
            flat |= {(key, preset): made for preset, made in value.items()}
        elif key.startswith(KEY_PREFIX):
            flat[key, ""] = value
    return flat


def _replaced(
    info: Mapping[str, Any], expected: Mapping[tuple[str, str], Any], wanted: Mapping[tuple[str, str], Any]
) -> dict[str, Any]:
    """Return the keys that set ``wanted`` where ``expected`` stands. Raises ConflictError where it does not."""
    now = _flat(info)
    keys: dict[str, Any] = {}
    for (key, preset), value in expected.items():
        if now.get((key, preset), REMOVED) != value:
            raise ConflictError(preset or key.removeprefix(KEY_PREFIX), "", {})
        target = wanted[key, preset]
        if preset:
            keys.setdefault(key, {})[preset] = {} if target is REMOVED else target
        else:
            keys[key] = target
    return keys
