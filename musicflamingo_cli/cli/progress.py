"""The progress of a batch: a live bar on a terminal, one line a track elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from musicflamingo_cli.cli.console import Console, duration, printable, rich_stderr, write_message
from musicflamingo_cli.system.disk import file_size
from musicflamingo_cli.types import Outcome

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from musicflamingo_cli.engines.pool.member import MemberStatus


@contextlib.contextmanager
def batch_bar(
    console: Console,
    total: int,
    slots: int,
    sizes: Mapping[str, int],
    members: Callable[[], Sequence[MemberStatus]] = tuple,
) -> Iterator[BatchBar]:
    """Show progress: a live bar on a terminal, one line a track elsewhere, nothing with -q. See BatchBar."""
    live = sys.stderr.isatty() and not console.quiet
    bar = BatchBar(
        total, live=live, quiet=console.quiet, colour=console.colour, slots=slots, sizes=sizes, members=members
    )
    with bar, console.above(bar):
        yield bar


class BatchBar:
    """Progress over the tracks to caption: rate, time left, the tracks in progress, failures so far.

    ``sizes``: bytes of their audio by file extension, from which the time left is estimated. ``members``: the engines
    that share the work, whose rates are shown.
    """

    def __init__(
        self,
        total: int,
        *,
        live: bool,
        quiet: bool,
        colour: bool,
        sizes: Mapping[str, int],
        slots: int = 1,
        members: Callable[[], Sequence[MemberStatus]] = tuple,
    ) -> None:
        self._members = members
        self._bytes_left = Counter(sizes)
        self._bytes_heard: Counter[str] = Counter()
        self._milliseconds_heard: Counter[str] = Counter()
        self._slots = slots
        self._in_progress: list[Path] = []  # one a slot, and the one that is being prepared
        self._audio_seconds = 0.0
        self._total = total
        self._live = live
        self._quiet = quiet
        self._colour = colour
        self._done = 0
        self._failed = 0
        self._started = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> BatchBar:
        if self._live:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            rate, failed = TextColumn("{task.fields[rate]}"), TextColumn("[red]{task.fields[failed]}")
            track = TextColumn("{task.fields[track]}", markup=False)
            self._progress = Progress(
                BarColumn(20),
                MofNCompleteColumn(),
                rate,
                TextColumn("{task.fields[left]}"),
                failed,
                TextColumn("{task.fields[members]}", markup=False),
                track,
                console=rich_stderr(self._colour),
                redirect_stdout=sys.stdout.isatty(),  # data that goes to a file must not be shown instead
            )
            self._task = self._progress.add_task(
                "", total=self._total, rate="", left="", failed="", members="", track=""
            )
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def print(self, text: str, style: str) -> None:
        """Print a message above the bar."""
        if self._progress is not None:
            console = self._progress.console
            console.print(printable(text), style=style or None, markup=False, highlight=False, soft_wrap=True)
        else:
            write_message(text)

    def starting(self, audio: Path) -> None:
        """Show a track as in progress. From any thread."""
        self._in_progress.append(audio)
        self._show_tracks()

    def ended(self, audio: Path) -> None:
        """Show a track as no longer in progress, finished or not."""
        with contextlib.suppress(ValueError):
            self._in_progress.remove(audio)
        self._show_tracks()

    def _show_tracks(self) -> None:
        if self._progress is not None and self._task is not None:
            width = max(12, 40 // self._slots)
            names = [printable(audio.name)[:width] for audio in self._in_progress[: self._slots]]
            self._progress.update(self._task, track=" | ".join(names))

    def finished(self, outcome: Outcome) -> None:
        """Count an outcome that needed the engine, and print a line where there is no live bar."""
        if outcome.was_interrupted:
            return
        self._done += 1
        self._failed += bool(outcome.failures)
        self._audio_seconds += outcome.audio_seconds
        self._note_size(outcome.track.audio, outcome.audio_seconds)
        hours = max(time.monotonic() - self._started, 1e-9) / 3600
        rate = f"{self._done / hours:.0f} tracks/h, {self._audio_seconds / 3600 / hours:.1f} h of audio/h"
        if self._progress is not None and self._task is not None:
            failed = f"{self._failed} failed" if self._failed else ""
            self._progress.update(self._task, advance=1, rate=rate, failed=failed, left=self._time_left(hours))
            self._progress.update(self._task, members=printable(members_line(self._members())))
        elif not self._quiet:
            result = "failed" if outcome.failures else "done"
            line = f"[{self._done}/{self._total}] {result} {outcome.track.audio} ({outcome.seconds:.1f} s; {rate}, "
            write_message(f"{line}{self._time_left(hours)}, {self._failed} failed)")

    def left_out(self, audio: Path) -> None:
        """Count a track that turned out not to be captioned."""
        self._total -= 1
        self._note_size(audio, 0.0)
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, total=self._total)

    def _note_size(self, audio: Path, seconds: float) -> None:
        size, kind = file_size(audio), audio.suffix
        self._bytes_left[kind] -= size
        if seconds:
            self._bytes_heard[kind] += size
            self._milliseconds_heard[kind] += round(seconds * 1000)

    def _time_left(self, hours: float) -> str:
        """The estimated time left: by the audio of what is left, of which only the bytes are known before decoding."""
        heard, size = self._milliseconds_heard.total(), self._bytes_heard.total()
        if not heard or not size:  # nothing captioned yet, so only tracks can be counted
            share = max(0, self._total - self._done) / self._done
        else:
            share = (
                sum(
                    max(0, left)
                    * (self._milliseconds_heard[kind] / known if (known := self._bytes_heard[kind]) else heard / size)
                    for kind, left in self._bytes_left.items()
                )
                / heard
            )
        return f"{duration(share * hours * 3600)} left"


_SHOWN_MEMBERS = 8


def members_line(members: Sequence[MemberStatus]) -> str:
    """Return each member's rate, or that it rests, on one line; of many only those that do not work, and a count."""
    if not members:
        return ""
    at_rest = [each for each in members if each.state != "ready"]
    shown = members if len(members) <= _SHOWN_MEMBERS else at_rest[:_SHOWN_MEMBERS]
    parts = [f"{each.name} {f'{each.per_hour:.0f}/h' if each.state == 'ready' else each.state}" for each in shown]
    if len(members) > _SHOWN_MEMBERS:
        parts.insert(0, f"{len(members) - len(at_rest)} of {len(members)} engines work")
    return ", ".join(parts)
