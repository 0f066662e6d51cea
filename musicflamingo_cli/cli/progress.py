"""The progress of a batch: a live view in a terminal, one line a track elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from musicflamingo_cli.cli.batch_view import NARROWEST, BatchView, Heading
from musicflamingo_cli.cli.console import Console, write_message
from musicflamingo_cli.cli.live_area import LiveArea
from musicflamingo_cli.cli.symbols import symbols_for
from musicflamingo_cli.engines.observer import Observer
from musicflamingo_cli.types import Outcome

_LOOK_SECONDS = 0.25  # between looks whether there is something new to show
_DRAW_SECONDS = 1.0  # the seconds of the tracks in progress pass
_DEVICE_SECONDS = 30.0  # asking a GPU's driver starts a program


@contextlib.contextmanager
def batch_bar(console: Console, view: BatchView, heading: Heading | None = None) -> Iterator[BatchBar]:
    """Show the progress of a batch: live in a terminal, one line a track elsewhere, nothing with -q."""
    if console.quiet or not is_live(console):
        yield BatchBar(view, quiet=console.quiet)
        return
    with _drawn(view, LiveArea(sys.stderr, console.colour), heading):
        yield BatchBar(view, quiet=True)


def is_live(console: Console) -> bool:
    """Whether stderr is a terminal that is wide enough for the live view."""
    return can_draw(console, sys.stderr) and LiveArea(sys.stderr, console.colour).size[0] >= NARROWEST


def can_draw(console: Console, stream: Any) -> bool:
    """Whether a stream is a terminal in which lines can be drawn again."""
    return not console.plain and stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


class BatchBar:
    """Passes what happens to the view; prints a line for each finished track, unless ``quiet``."""

    def __init__(self, view: BatchView, quiet: bool) -> None:
        self._view = view
        self._quiet = quiet

    def starting(self, audio: Path) -> Observer:
        """Show a track as in progress. From any thread."""
        return self._view.starting(audio)

    def ended(self, audio: Path) -> None:
        """Show a track as no longer in progress, finished or not."""
        self._view.ended(audio)

    def finished(self, outcome: Outcome) -> None:
        """Count an outcome that needed the engine."""
        if outcome.was_interrupted:
            return
        view = self._view
        view.finished(outcome)
        if self._quiet:
            return
        result = "failed" if outcome.failures else "done"
        facts = [f"{outcome.seconds:.1f} s", view.time_left_text(), f"{view.failed} failed" if view.failed else ""]
        line = f"[{view.done}/{view.total}] {result} {outcome.track.audio}"
        write_message(f"{line} ({', '.join(filter(None, facts))})")

    def left_out(self, audio: Path) -> None:
        """Count a track that turned out not to be captioned."""
        self._view.left_out(audio)


@contextlib.contextmanager
def _drawn(view: BatchView, area: LiveArea, heading: Heading | None) -> Iterator[None]:
    """Draw the view now and then, in a thread of its own."""
    ended = threading.Event()
    symbols = symbols_for(sys.stderr)

    def draw() -> None:
        columns, rows = area.size
        area.draw(view.lines(columns, rows, symbols))

    def draw_all() -> None:
        drawn, size, done = 0.0, area.size, -1
        while not ended.wait(_LOOK_SECONDS):
            now = time.monotonic()
            if now - drawn >= _DRAW_SECONDS or area.size != size or view.done != done:
                drawn, size, done = now, area.size, view.done
                draw()

    def ask_device() -> None:
        while heading is not None:
            with contextlib.suppress(Exception):  # a driver that does not answer is no fault of the run
                view.device = heading.device()
            if ended.wait(_DEVICE_SECONDS):
                return

    threads = [threading.Thread(target=target, daemon=True, name="view") for target in (draw_all, ask_device)]
    with area.shown():
        draw()
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            threads[0].join()
            draw()  # what happened last
