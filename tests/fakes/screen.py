"""A program in a real pseudo-terminal of a given size, and the screen that a person would see."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyte


class Screen:
    """Runs a command; a context manager, which ends it. What scrolled off the top is kept."""

    def __init__(
        self,
        command: Sequence[object],
        cwd: Path,
        columns: int = 100,
        rows: int = 40,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it. ``environment``: more variables."""
        self._screen = pyte.HistoryScreen(columns, rows, history=2000, ratio=1.0)
        self._stream = pyte.ByteStream(self._screen)
        self.sent = b""  # all bytes that the program wrote
        words = [str(word) for word in command]
        variables = {**os.environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **(environment or {})}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            if name not in (environment or {}):
                variables.pop(name, None)
        self.pid, self._terminal = pty.fork()
        if not self.pid:
            try:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                os.chdir(cwd)
                time.sleep(0.05)  # until the size is set
                os.execvpe(words[0], words, variables)
            finally:
                os._exit(127)
        self._set_size(columns, rows)

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._terminal)
        for seconds in (5.0, 0.0):
            deadline = time.monotonic() + seconds
            while True:
                if os.waitpid(self.pid, os.WNOHANG)[0]:
                    return
                if time.monotonic() >= deadline:
                    break
                time.sleep(0.02)
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    @property
    def lines(self) -> list[str]:
        """The screen, without blanks at the ends, and what has scrolled off above it."""
        above = [
            "".join(line[column].data for column in range(self._screen.columns)) for line in self._screen.history.top
        ]
        return [line.rstrip() for line in [*above, *self._screen.display]]

    @property
    def text(self) -> str:
        """``lines`` as one text, which ends in one line break."""
        return "\n".join(self.lines).rstrip("\n") + "\n"

    @property
    def cells(self) -> list[list[pyte.screens.Char]]:
        """The characters on the screen, with their colours."""
        screen = self._screen
        return [[screen.buffer[row][column] for column in range(screen.columns)] for row in range(screen.lines)]

    @property
    def is_cursor_hidden(self) -> bool:
        """Whether the program has hidden the cursor."""
        return bool(self._screen.cursor.hidden)

    def wait_for(self, text: str, seconds: float = 60.0) -> None:
        """Read until the screen shows a text."""
        self.wait_until(lambda: text in self.text, f"{text!r} is shown", seconds)

    def wait_until(self, condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        """Read until a condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            assert left > 0, f"not after {seconds:g} s: {what}\n{self.text}"
            assert self._read(left), f"the program ended before {what}\n{self.text}"

    def wait_for_end(self, seconds: float = 60.0) -> None:
        """Read until the program closes the terminal."""
        deadline = time.monotonic() + seconds
        while self._read(max(0.0, deadline - time.monotonic())):
            assert time.monotonic() < deadline, f"it does not end\n{self.text}"

    def settle(self, seconds: float = 0.3) -> None:
        """Read until nothing has come for a while."""
        while select.select([self._terminal], [], [], seconds)[0] and self._read(0.0):
            pass

    def clear(self) -> None:
        """Forget what was shown."""
        self._screen.reset()
        self._screen.history.top.clear()

    def type(self, text: str) -> None:
        """Type a text."""
        os.write(self._terminal, text.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Change the terminal's size, as a terminal that does not break long lines anew does."""
        self._screen.resize(rows, columns)
        self._set_size(columns, rows)

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self, seconds: float) -> bool:
        """Take what the program writes next, waiting at most so long; return False where it has ended."""
        if not select.select([self._terminal], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # EIO: the program has closed its end
            return False
        self.sent += data
        self._stream.feed(data)
        return bool(data)
