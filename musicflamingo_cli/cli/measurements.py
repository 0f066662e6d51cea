"""Measuring as a person watches it: the bar, a line or a JSON object a track, the summary."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from musicflamingo_cli.cli.batch_view import BatchView
from musicflamingo_cli.cli.console import Console, duration
from musicflamingo_cli.cli.progress import batch_bar
from musicflamingo_cli.system.disk import file_size
from musicflamingo_cli.trust.measured import Measured, as_json
from musicflamingo_cli.trust.measuring import Measurement, cores, known_result, measure_tracks
from musicflamingo_cli.types import Outcome, Skipped, Track


class MeasureJob:
    """Measures tracks and shows the results.

    ``items`` returns the tracks, and what was skipped; it is called twice, to count and to measure. ``is_data``:
    whether results go to stdout; else only messages are shown. ``limit``: how many tracks to measure at most. For the
    other arguments see ``measure_tracks``.
    """

    def __init__(
        self,
        console: Console,
        items: Callable[[], Iterable[Track | Skipped]],
        *,
        overwrite: bool = False,
        limit: int | None = None,
        workers: int | None = None,
        is_data: bool = True,
    ) -> None:
        self._console = console
        self._items = items
        self._overwrite = overwrite
        self._limit = limit
        self._workers = workers or cores()
        self._is_data = is_data
        self._new = self._known = self._failed = self._skipped = 0
        self._audio_seconds = 0.0

    def run(self) -> int:
        """Measure all that is not measured yet; return how many tracks failed."""
        sizes: Counter[str] = Counter()
        total = 0
        for track in self._tracks(is_counting=True):
            if known_result(track, self._overwrite) is None:
                sizes[track.audio.suffix] += file_size(track.audio)
                total += 1
        self._console.info(f"{total} tracks to measure, {min(self._workers, max(total, 1))} at once")
        started = time.monotonic()
        try:
            with batch_bar(self._console, BatchView(total, sizes)) as bar:
                for found in measure_tracks(self._tracks(), min(self._workers, max(total, 1)), self._overwrite):
                    self._show(found)
                    if found.seconds:
                        bar.finished(_as_outcome(found))
        finally:
            self._show_summary(time.monotonic() - started)
        return self._failed

    def _tracks(self, is_counting: bool = False) -> Iterator[Track]:
        """The tracks up to the limit, which counts those that are to be measured."""
        left = self._limit
        for item in self._items():
            if isinstance(item, Skipped):
                if not is_counting:
                    self._show_skipped(item)
                continue
            if left is not None and known_result(item, self._overwrite) is None:
                if not left:
                    return
                left -= 1
            yield item

    def _show_skipped(self, item: Skipped) -> None:
        self._failed += item.failed
        self._skipped += not item.failed
        if self._is_data:
            (self._console.warn if item.failed else self._console.info)(f"skipped {item.path}: {item.reason}")
            self._console.json(_json(str(item.path), skipped=item.reason))

    def _show(self, found: Measurement) -> None:
        self._failed += found.failure is not None
        self._new += found.is_new
        self._known += found.failure is None and not found.is_new
        if found.is_new and found.measured:
            self._audio_seconds += found.measured.seconds
        if found.failure:
            show = self._console.warn if self._is_data else self._console.detail  # a batch shows it by itself
            show(found.failure.line(found.track.audio))
        if self._is_data:
            if found.measured:
                self._console.data(f"{found.track.audio}: {described(found.measured)}{_stated(found)}")
            self._console.json(_as_json(found))

    def _show_summary(self, seconds: float) -> None:
        skipped = f", {self._skipped} skipped" if self._skipped else ""
        self._console.info(
            f"{self._new} measured, {self._known} already measured, {self._failed} failed{skipped};"
            f" {duration(self._audio_seconds)} of audio in {duration(seconds)}"
        )


def described(measured: Measured) -> str:
    """Return a measurement on one line."""
    tempo, key = measured.tempo, measured.key
    parts = ["tempo unknown"]
    if tempo:
        others = ", ".join(f"{bpm:g}" for bpm in tempo.alternatives)
        parts = [f"{tempo.bpm:g} BPM (or {others}; confidence {tempo.confidence:g})"]
    parts.append(f"{key.name} (confidence {key.confidence:g})" if key else "key unknown")
    if len(set(measured.halves)) > 1:
        parts.append(f"halves {' and '.join(half or 'unknown' for half in measured.halves)}")
    if measured.lufs is not None:
        parts.append(f"{measured.lufs:.1f} LUFS")
    parts += [duration(measured.seconds), f"{measured.silence:.0%} silent"]
    if measured.width is not None:
        parts.append(f"width {measured.width:.2f}")
    if other := measured.essentia:
        parts.append(f"essentia says {other.bpm or 0:g} BPM, {other.key or 'no key'}")
    return ", ".join(parts)


def _stated(found: Measurement) -> str:
    """What other tools wrote into the sidecar, to be shown beside."""
    stated = found.stated
    parts = [f"bpm {stated.bpm:g}"] if stated and stated.bpm is not None else []
    parts += [f"key {stated.key}"] if stated and stated.key else []
    return f"; the sidecar says {', '.join(parts)}" if parts else ""


def _as_json(found: Measurement) -> dict[str, Any]:
    failure, stated = found.failure, found.stated
    return _json(
        str(found.track.audio),
        sidecar=str(found.track.sidecar) if found.measured else None,
        measured=as_json(found.measured) if found.measured else None,
        stated={"bpm": stated.bpm, "key": stated.key} if stated else None,
        is_new=found.is_new,
        failure={"reason": failure.reason, "hint": failure.hint} if failure else None,
    )


def _json(track: str, **values: Any) -> dict[str, Any]:
    """The object that `--json` prints for a track; its shape is a contract (docs/measure.md)."""
    empty = {"sidecar": None, "measured": None, "stated": None, "is_new": False, "failure": None, "skipped": None}
    return {"track": track, **empty, **values}


def _as_outcome(found: Measurement) -> Outcome:
    """The result as the bar counts it."""
    return Outcome(
        track=found.track,
        failures=(found.failure,) if found.failure else (),
        audio_seconds=found.measured.seconds if found.measured else 0.0,
        seconds=found.seconds,
    )
