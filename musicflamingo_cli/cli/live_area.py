"""Lines at the bottom of a terminal that are drawn again and again, while everything else is printed above them.

rich's Live erases before it draws, which flickers, and counts wrongly after the terminal got narrower; this draws only
lines that changed, in one write that terminals show at once (mode 2026).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from musicflamingo_cli.cli.styled import Line, cut, rendered, width_of

_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"  # of what is to be shown at once; ignored where it is not known
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_ERASE_LINE, _ERASE_BELOW, _DOWN = "\x1b[K", "\x1b[J", "\x1b[B"


class LiveArea:
    """The lines. ``terminal`` is the stream that leads there. From any thread."""

    def __init__(self, terminal: Any, colour: bool) -> None:
        self._terminal = terminal
        self._colour = colour
        self._lock = threading.RLock()
        self._shown: list[list[tuple[str, Any]]] = []
        self._columns = 0
        self._is_open = False

    @property
    def size(self) -> tuple[int, int]:
        """The terminal's columns and lines."""
        try:
            columns, lines = os.get_terminal_size(self._terminal.fileno())
        except (OSError, ValueError):
            columns, lines = shutil.get_terminal_size()
        return columns, lines

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the area on the screen; stderr, and stdout where it leads to a terminal, are printed above it."""
        streams = sys.stdout, sys.stderr
        above = [_Above(stream, self) for stream in streams]
        self._write(_HIDE_CURSOR)
        self._is_open = True
        sys.stderr = above[1]
        if sys.stdout.isatty():
            sys.stdout = above[0]
        try:
            yield
        finally:
            with self._lock:
                sys.stdout, sys.stderr = streams
                self._write(f"{self._erased()}{_SHOW_CURSOR}")
                self._is_open = False
            for each in above:
                each.end()

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these lines instead of those before; as many as the terminal has room for."""
        with self._lock:
            self._write(self._drawn(lines))

    def print_above(self, text: str, stream: Any) -> None:
        """Print whole lines, which end in a line break, above the area. Raises OSError."""
        with self._lock:
            if stream is self._terminal and self._is_open:
                self._write(self._drawn(self._shown, text))
                return
            lines = self._shown
            if self._is_open:
                self._write(self._erased())
            stream.write(text)
            stream.flush()
            if self._is_open:
                self._write(self._drawn(lines))

    def _drawn(self, lines: Sequence[Line], above: str = "") -> str:
        """Return what draws the lines over those that are shown; nothing where they are the same.

        Nothing is erased before it is overwritten, which would flicker, and make tmux take it for history.
        """
        columns, rows = self.size
        fitting = [cut(line, columns - 1) for line in lines[: rows - 1]]
        drawn = [self._up(), above.replace("\n", f"{_ERASE_LINE}\n")]
        if columns != self._columns or above:
            self._shown, self._columns = [], columns
        elif fitting == self._shown:
            return ""
        for number, line in enumerate(fitting):
            if number:
                drawn.append("\r\n")
            if number >= len(self._shown) or self._shown[number] != line:
                drawn.append(rendered(line, self._colour) + _ERASE_LINE)
        self._shown = fitting
        return "".join([*drawn, _ERASE_BELOW])

    def _erased(self) -> str:
        """Return what removes the area, and leaves the cursor at its beginning."""
        up, rows = self._up(), self._rows()
        self._shown = []
        return f"{up}{f'{_ERASE_LINE}{_DOWN}' * (rows - 1)}{_ERASE_LINE}{up}"

    def _up(self) -> str:
        """Return what moves the cursor to the beginning of the area."""
        rows = self._rows()
        return "\r" + (f"\x1b[{rows - 1}A" if rows > 1 else "")

    def _rows(self) -> int:
        """Return how many rows the area has; a terminal that got narrower has broken its lines."""
        columns = max(1, self.size[0])
        return sum(max(1, -(-width_of(line) // columns)) for line in self._shown)

    def _write(self, text: str) -> None:
        if not text:
            return
        encoding = self._terminal.encoding or "utf-8"
        with contextlib.suppress(OSError, ValueError):  # a terminal that has gone ends the view, not the run
            self._terminal.write(f"{_BEGIN}{text.encode(encoding, 'replace').decode(encoding)}{_END}")
            self._terminal.flush()


class _Above:
    """In place of a stream: its lines are printed above the area, each as soon as it is complete."""

    def __init__(self, stream: Any, area: LiveArea) -> None:
        self._stream = stream
        self._area = area
        self._incomplete = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Print what is complete. Raises OSError."""
        whole, end, rest = (self._incomplete + text).rpartition("\n")
        self._incomplete = rest
        if end:
            self._area.print_above(whole + end, self._stream)
        return len(text)

    def flush(self) -> None:
        """Nothing: lines are printed at once."""

    def end(self) -> None:
        """Print what has no line break yet."""
        if self._incomplete:
            with contextlib.suppress(OSError):
                self._area.print_above(f"{self._incomplete}\n", self._stream)
            self._incomplete = ""
