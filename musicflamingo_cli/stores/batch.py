"""A batch over a dataset in a store: audio is downloaded into bounded space, captions go into sidecar objects."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from musicflamingo_cli.captioning.batch import IN_PROGRESS_ELSEWHERE, skipped_if_too_short
from musicflamingo_cli.captioning.captioner import Captioner
from musicflamingo_cli.captioning.retries import MOST_PENDING, PAUSES, FailuresInARow, is_temporary, merged_tries
from musicflamingo_cli.captioning.saving import as_saved, keys_to_save, operating_system_failure
from musicflamingo_cli.captioning.worker_pool import WorkerPool
from musicflamingo_cli.choices import Wanted
from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.dataset.tracks import is_audio, tracks_in
from musicflamingo_cli.errors import ConfigError, ModelError, SidecarBusyError, ToolMissingError, TrackError
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.captions import captions_in
from musicflamingo_cli.sidecars.merge import merged_text, parse_sidecar
from musicflamingo_cli.sidecars.staleness import EarlierRuns
from musicflamingo_cli.stores.leases import LEASE_SECONDS, Leases, claim_key
from musicflamingo_cli.stores.store import ConflictError, Entry, Store
from musicflamingo_cli.system.temporary import folder_prefix
from musicflamingo_cli.types import COMPLETE, Failure, Outcome, Skipped, Track

logger = logging.getLogger(__name__)

_AHEAD = 2  # tracks that are downloaded while others are captioned
_READS = 16  # sidecars that are read at once, where captions wait for it
_TRIES = 20  # while others change a sidecar
_PAUSE = 5.0  # seconds between looks at claims of others


@dataclass(frozen=True, slots=True)
class StoredTrack:
    """A track in a store; ``track`` has its keys as absolute paths.

    ``has_sidecar``, ``has_claim``: as it was listed.
    """

    track: Track
    entry: Entry
    has_sidecar: bool
    has_claim: bool = False

    @property
    def sidecar(self) -> str:
        """The sidecar's key."""
        return str(self.track.sidecar).lstrip("/")


class Space:
    """Temporary space in bytes: whoever takes some waits until there is that much, or until all of it is free."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._taken = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Take ``size`` bytes for as long as the context lasts."""
        with self._changed:
            while self._taken and self._taken + size > self._total:
                self._changed.wait()
            self._taken += size
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()


def find_stored(store: Store, root: str, selection: Selection) -> Iterator[StoredTrack | Skipped]:
    """Yield the selected tracks below ``root``, folder by folder, in a stable order; see ``dataset.find_tracks``.

    Raises ConfigError where the store does not list a folder.
    """
    pending = [root]
    top = Path("/") / root
    while pending:
        folder = pending.pop()
        entries = {each.key.rpartition("/")[2]: each for each in _listed(store, folder)}
        below = [each.key for name, each in entries.items() if each.is_folder and not name.startswith(".")]
        pending += sorted(below, reverse=True)
        names = sorted(
            name
            for name, each in entries.items()
            if not each.is_folder and not name.startswith(".") and is_audio(Path(name))
        )
        for item in tracks_in(Path("/") / folder, names, Path("/") / folder):
            if isinstance(item, Skipped):
                yield item
            elif selection.takes(item, top):
                claim = claim_key(str(item.sidecar)).rpartition("/")[2]
                yield StoredTrack(item, entries[item.audio.name], item.sidecar.name in entries, claim in entries)


def _listed(store: Store, folder: str) -> list[Entry]:
    try:
        return store.list(folder)
    except OSError as error:
        problem = "no such folder" if isinstance(error, FileNotFoundError) else error.strerror or error
        raise ConfigError(
            f"cannot list {store.scheme}://{folder}: {problem}", "check its name, your credentials and the connection"
        ) from error


class StoreBatch:
    """Captions a dataset in a store. ``space``: bytes of audio that may be in the temporary folder at once.

    ``keep_going``: do not stop when many tracks in a row fail.
    """

    def __init__(
        self,
        store: Store,
        captioner: Captioner,
        presets: Sequence[Preset],
        selection: Selection,
        *,
        space: int,
        lease: float = LEASE_SECONDS,
        keep_going: bool = False,
    ) -> None:
        self._store = store
        self._captioner = captioner
        self._presets = presets
        self._selection = selection
        self._space = Space(space)
        self._lease = lease
        self._failures = FailuresInARow(is_ignored=keep_going)
        self._failed: dict[str, tuple[StoredTrack, Outcome]] = {}  # temporarily, by the sidecar's key

    def run(self, root: str, done: Callable[[Outcome], None]) -> int:
        """Caption what is selected below ``root``; return how many tracks are left to other processes.

        ``done`` gets every outcome once, in this thread. What failed temporarily is tried again after the other tracks.
        Claims of processes that are gone are taken over once they have rested for the time of a lease.

        Raises BatchStoppedError, and ConfigError where the store cannot be listed or written.
        """
        waiting: dict[str, StoredTrack] = {}
        if self._selection.save:
            self._store.require_conditions(root)
            if self._selection.wanted == Wanted.ALL:
                self._selection = replace(self._selection, earlier=self._runs_before(root))
        try:
            with Leases(self._store, self._lease, is_needed=self._selection.save) as leases:
                self._round(self._wanted(root, done), leases, waiting, done, self._failures.note)
                self._wait_for_others(leases, waiting, done)
                for pause in PAUSES:
                    if self._failed:
                        logger.info("%d tracks failed temporarily; retrying in %g s", len(self._failed), pause)
                        time.sleep(pause)
                        self._round([item for item, _ in self._failed.values()], leases, waiting, done)
        finally:
            for _, outcome in self._failed.values():
                done(outcome)
        return len(waiting)

    def _runs_before(self, root: str) -> EarlierRuns:
        """Return the runs that have made captions by now: those of processes that start now are not made again."""
        logger.info("reading all sidecars, to tell which captions are made from now on")
        runs, items = EarlierRuns(), find_stored(self._store, root, self._selection)
        captioned = (item for item in items if not isinstance(item, Skipped) and item.has_sidecar)

        def read(item: StoredTrack) -> dict[str, Any]:
            with contextlib.suppress(TrackError, OSError):  # reported when its turn comes
                return self._info(item)[0]
            return {}

        with WorkerPool(read, lambda: _READS) as pool:
            for info in pool.results(captioned):
                runs.add(info)
        return runs

    def _wait_for_others(
        self, leases: Leases, waiting: dict[str, StoredTrack], done: Callable[[Outcome], None]
    ) -> None:
        """Look again at what other processes have claimed, until they are done or do not go on."""
        deadline = time.monotonic() + 1.5 * self._lease + _PAUSE
        while waiting and time.monotonic() < deadline:
            time.sleep(min(_PAUSE, self._lease / 4))
            again = list(waiting.values())
            waiting.clear()
            self._round(again, leases, waiting, done)
            if len(waiting) < len(again):
                deadline = time.monotonic() + 1.5 * self._lease + _PAUSE

    def _wanted(self, root: str, done: Callable[[Outcome], None]) -> Iterator[StoredTrack]:
        """The tracks that lack captions, as far as the listing and the sidecars say so now."""
        remaining = self._selection.limit
        for item in find_stored(self._store, root, self._selection):
            if isinstance(item, Skipped):
                done(Outcome(Track(item.path, item.path), skipped=item.reason))
                continue
            try:
                is_complete = item.has_sidecar and not self._missing(item, self._info(item)[0])
            except TrackError as error:
                done(Outcome(item.track, failures=(Failure.for_track(error),)))
                continue
            except OSError as error:
                done(Outcome(item.track, failures=(operating_system_failure(error),)))
                continue
            if is_complete and not item.has_claim:  # a claim that was left after the captions were saved is removed
                done(Outcome(item.track, skipped=COMPLETE))
                continue
            if remaining == 0:
                return
            remaining = None if remaining is None else remaining - 1
            yield item

    def _round(
        self,
        items: Iterator[StoredTrack] | list[StoredTrack],
        leases: Leases,
        waiting: dict[str, StoredTrack],
        done: Callable[[Outcome], None],
        note: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        """Caption tracks; ``note`` sees each outcome, also of those that are tried again."""

        def work(item: StoredTrack) -> tuple[StoredTrack, Outcome]:
            return item, self._caption(item, leases)

        def settle(item: StoredTrack, outcome: Outcome) -> None:
            waiting.pop(item.sidecar, None)
            if outcome.skipped == IN_PROGRESS_ELSEWHERE:
                waiting[item.sidecar] = item
                return
            if before := self._failed.pop(item.sidecar, None):
                outcome = merged_tries(before[1], outcome)
            if is_temporary(outcome) and len(self._failed) < MOST_PENDING:
                self._failed[item.sidecar] = item, outcome
            else:
                done(outcome)

        with WorkerPool(work, lambda: self._captioner.slots + _AHEAD) as pool:
            try:
                for item, outcome in pool.results(items):
                    settle(item, outcome)
                    note(outcome)
            except BaseException:
                self._captioner.close()
                for item, outcome in pool.remaining():
                    settle(item, outcome)
                raise

    def _caption(self, item: StoredTrack, leases: Leases) -> Outcome:
        """Claim, download, caption and save one track. Raises what concerns every track."""
        try:
            with leases.claimed(item.sidecar) as is_ours:
                if not is_ours:
                    return Outcome(item.track, skipped=IN_PROGRESS_ELSEWHERE)
                info, _ = self._info(item)
                presets = self._missing(item, info)
                if not presets:
                    return Outcome(item.track, skipped=COMPLETE)
                outcome = skipped_if_too_short(replace(self._answer(item, presets, info), track=item.track))
                if not leases.is_held(item.sidecar):
                    return Outcome(item.track, skipped=IN_PROGRESS_ELSEWHERE)
                return self._save(item, outcome, info)
        except (ToolMissingError, ModelError, ConfigError):
            raise
        except TrackError as error:
            return Outcome(item.track, failures=(Failure.for_track(error),))
        except OSError as error:
            return Outcome(item.track, failures=(operating_system_failure(error),))

    def _answer(self, item: StoredTrack, presets: Sequence[Preset], info: dict[str, Any]) -> Outcome:
        with (
            self._space.taken(item.entry.size),
            tempfile.TemporaryDirectory(prefix=folder_prefix(), ignore_cleanup_errors=True) as folder,
        ):
            audio = Path(folder) / item.track.audio.name
            self._store.download(item.entry.key, audio)
            os.utime(audio, (item.entry.modified, item.entry.modified))
            return self._captioner.answer(Track(audio, audio.with_suffix(".INFO")), presets, info)

    def _missing(self, item: StoredTrack, info: dict[str, Any]) -> list[Preset]:
        return self._selection.presets_of(item.track, info, self._presets)

    def _info(self, item: StoredTrack) -> tuple[dict[str, Any], str | None]:
        """Return a sidecar's data and version; nothing where there is none. Raises SidecarError."""
        stored = self._store.read(item.sidecar)
        if stored is None:
            return {}, None
        return parse_sidecar(stored.data, item.track.sidecar), stored.tag

    def _save(self, item: StoredTrack, outcome: Outcome, before: Mapping[str, Any]) -> Outcome:
        """Merge what was captioned into the sidecar, which held ``before``, however often others change it meanwhile.

        Captions that another process has made since stay: this one may have been frozen, and its claim taken over.
        """
        if not outcome.keys or not self._selection.save:
            return replace(outcome, keys={})
        ours: Mapping[str, Any] = {}

        def keys(now: Mapping[str, Any]) -> Mapping[str, Any]:
            nonlocal ours
            ours = keys_to_save(outcome, now, before)
            return ours

        for _ in range(_TRIES):
            stored = self._store.read(item.sidecar)
            text = None
            if stored is not None:
                parse_sidecar(stored.data, item.track.sidecar)
                text = stored.data.decode("utf-8")
            now, merged = merged_text(text, keys, item.track.sidecar)
            if merged is None or merged == text:
                answers = captions_in(outcome.keys)
                is_there = all(now.get(name) == caption for name, caption in answers.items())  # the reply was lost
                return as_saved(outcome, outcome.keys if is_there else ours)
            try:
                self._store.write(item.sidecar, merged.encode("utf-8"), stored.tag if stored else None)
            except ConflictError:
                continue
            return as_saved(outcome, ours)
        raise SidecarBusyError(f"another program keeps changing {item.track.sidecar.name}", "run it again later")
