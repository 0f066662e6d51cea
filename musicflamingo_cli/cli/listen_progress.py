"""The progress of `listen`: a live bar on a terminal, one line a clip elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from musicflamingo_cli.cli.console import Console, duration, rich_stderr, write_message

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@contextlib.contextmanager
def clip_bar(console: Console, total: int, verb: str) -> Iterator[ClipBar]:
    """Show progress over ``total`` clips, with the time left. ``verb``: what is done, such as `made`."""
    bar = ClipBar(
        total, verb, live=sys.stderr.isatty() and not console.quiet, quiet=console.quiet, colour=console.colour
    )
    with bar:
        yield bar


class ClipBar:
    """Counts finished clips and the share that is done of those in progress."""

    def __init__(self, total: int, verb: str, *, live: bool, quiet: bool, colour: bool) -> None:
        self._total = total
        self._verb = verb
        self._quiet = quiet
        self._colour = colour
        self._done = 0
        self._part = 0.0  # clips, of those in progress
        self._started = time.monotonic()
        self._live = live
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> ClipBar:
        if self._live:
            from rich.progress import BarColumn, Progress, TextColumn

            left = TextColumn("{task.fields[left]}", markup=False)
            columns = (BarColumn(20), TextColumn("{task.fields[count]}"), left)
            self._progress = Progress(*columns, console=rich_stderr(self._colour), redirect_stdout=sys.stdout.isatty())
            self._task = self._progress.add_task("", total=self._total, left="", count=f"0/{self._total}")
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def step(self, share: float, clips: int) -> None:
        """Show that of ``clips`` clips in progress this share is done."""
        self._part = share * clips
        self._show()

    def finished(self, name: str, has_failed: bool = False) -> None:
        """Count a clip, and print a line where there is no live bar."""
        self._done += 1
        self._part = max(0.0, self._part - 1)
        self._show()
        if self._progress is None and not self._quiet:
            write_message(
                f"[{self._done}/{self._total}] {'failed' if has_failed else self._verb} {name} ({self._left()})"
            )

    def _show(self) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(
                self._task, completed=self._done + self._part, left=self._left(), count=f"{self._done}/{self._total}"
            )

    def _left(self) -> str:
        """The estimated time left; empty before anything is done."""
        done = self._done + self._part
        if not done:
            return ""
        return f"{duration((time.monotonic() - self._started) * max(0.0, self._total - done) / done)} left"
