"""The answers of `caption` in a terminal, as they are made; all presets at once, since they are answered together."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from musicflamingo_cli.cli.console import Console, one_line, printable
from musicflamingo_cli.cli.live_area import LiveArea
from musicflamingo_cli.cli.progress import can_draw
from musicflamingo_cli.cli.styled import Line, Style, fit, rendered, wrap
from musicflamingo_cli.cli.symbols import Symbols, symbols_for
from musicflamingo_cli.engines.observer import UNOBSERVED, Observer, Stage
from musicflamingo_cli.text.reasoning import VisiblePieces
from musicflamingo_cli.types import Caption

_DRAW_SECONDS = 0.1
_MOST_LINES = 1000  # of one caption
_WIDEST = 120


class CaptionStream(Observer):
    """Collects the pieces of a track's answers. ``reasons``: the model writes what it thinks before an answer."""

    wants_text = True

    def __init__(self, audio: Path, presets: Sequence[str], reasons: bool) -> None:
        self._audio = audio
        self._stage = Stage.PREPARING
        self._texts = dict.fromkeys(presets, "")
        self._reasons = reasons
        self._takers: dict[str, Callable[[str], None]] = {}

    def reached(self, stage: Stage) -> None:
        """Note the stage; where the engine begins again, so do the answers that it makes again."""
        if stage == Stage.HEARING:
            self._takers = {}
        self._stage = stage

    def text(self, preset: str, piece: str) -> None:
        """Add to an answer."""
        if preset not in self._takers:
            self._texts[preset] = ""

            def add(text: str) -> None:
                self._texts[preset] += text

            self._takers[preset] = VisiblePieces(add) if self._reasons else add
        self._takers[preset](piece)

    def lines(self, columns: int, rows: int, symbols: Symbols) -> list[Line]:
        """Return what is known so far; its end, where the terminal is too low for all of it."""
        width = min(columns - 1, _WIDEST)
        begun = {preset: text for preset, text in self._texts.items() if text.strip()}
        lines: list[Line] = [
            [(fit(f"{one_line(self._audio.name)}: {self._stage}", width, symbols.ellipsis), Style.FAINT)]
        ]
        for preset, text in begun.items():
            lines += caption_lines(preset, text, width, symbols)
        return lines[-max(1, rows - 2) :]


def caption_lines(preset: str, text: str, width: int, symbols: Symbols) -> list[Line]:
    """Return a caption under its preset's name, wrapped."""
    wrapped: list[Line] = [[(f"  {line}", Style.PLAIN)] for line in _paragraphs(text, width - 2, symbols)]
    return [[(preset, Style.STRONG)], *wrapped]


def _paragraphs(text: str, width: int, symbols: Symbols) -> list[str]:
    """A text wrapped line by line: lyrics have lines of their own."""
    return [line for part in printable(text).splitlines() for line in wrap(part, width, _MOST_LINES, symbols.ellipsis)]


@contextlib.contextmanager
def streamed(console: Console, audio: Path, presets: Sequence[str], reasons: bool) -> Iterator[Observer]:
    """Show the answers of a track as they are made, where stdout is a terminal; they disappear at the end."""
    if console.as_json or console.quiet or not can_draw(console, sys.stdout):
        yield UNOBSERVED
        return
    stream, area, ended = (
        CaptionStream(audio, presets, reasons),
        LiveArea(sys.stdout, console.colour),
        threading.Event(),
    )
    symbols = symbols_for(sys.stdout)

    def draw() -> None:
        while not ended.wait(_DRAW_SECONDS):
            columns, rows = area.size
            area.draw(stream.lines(columns, rows, symbols))

    thread = threading.Thread(target=draw, daemon=True, name="captions")
    with area.shown():
        thread.start()
        try:
            yield stream
        finally:
            ended.set()
            thread.join()


def show_wrapped(console: Console, captions: Sequence[Caption], text_only: bool) -> None:
    """Print captions for a terminal: wrapped, under the names of their presets unless ``text_only``."""
    symbols = symbols_for(sys.stdout)
    width = min(LiveArea(sys.stdout, console.colour).size[0] - 1, _WIDEST)
    for caption in captions:
        if text_only:
            console.data("\n".join(_paragraphs(caption.text, width, symbols)))
            continue
        for line in caption_lines(caption.preset, caption.text, width, symbols):
            console.styled(rendered(line, console.colour))
