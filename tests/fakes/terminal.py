"""A program in a real pseudo-terminal: what a person would type, and what the screen would show."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

UP, CTRL_A, CTRL_C, CTRL_D = "\x1b[A", "\x01", "\x03", "\x04"
_SEQUENCES = re.compile(r"\x1b\[[?0-9;]*[a-zA-Z]|\x1b[()=>].?|\r")  # of editing, colours and bracketed paste


class Terminal:
    """Runs a Python program in a terminal of its own; a context manager, which ends the program."""

    def __init__(self, arguments: Sequence[object], cwd: Path) -> None:
        """Start ``python arguments…``."""
        self.screen = ""  # all that was shown, without escape sequences
        self._seen = 0
        command = [sys.executable, *map(str, arguments)]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200", "LINES": "50"}
        self._pid, self._terminal = pty.fork()
        if not self._pid:
            try:
                signal.signal(signal.SIGINT, signal.SIG_DFL)  # a background job of a shell would ignore it
                os.chdir(cwd)
                os.execve(command[0], command, environment)
            finally:
                os._exit(127)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._terminal)
        if not self._wait(0.0):
            os.kill(self._pid, signal.SIGKILL)
            self._wait(10.0)

    def type(self, text: str) -> None:
        """Type text; a line ends with ``\\n``."""
        os.write(self._terminal, text.replace("\n", "\r").encode())

    def press_ctrl_c(self) -> None:
        """Press Ctrl-C at a prompt, or just after a line was typed.

        After a pause: while CPython's readline handles a key it does not notice a signal, until the next key.
        """
        time.sleep(0.3)
        self.type(CTRL_C)

    def expect(self, text: str, seconds: float = 60.0) -> str:
        """Return what is shown up to and with ``text``, after what earlier calls returned."""
        deadline = time.monotonic() + seconds
        while (found := self.screen.find(text, self._seen)) < 0:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} was not shown in {seconds:g} s, but:\n{self.screen[self._seen :]}"
            if select.select([self._terminal], [], [], left)[0]:
                self._read()
        shown, self._seen = self.screen[self._seen : found + len(text)], found + len(text)
        return shown

    def end(self, seconds: float = 20.0) -> int:
        """Return the exit code of the program, which is about to end."""
        deadline = time.monotonic() + seconds
        while not (ended := self._wait(0.05)):
            assert time.monotonic() < deadline, f"it does not end:\n{self.screen[self._seen :]}"
            if select.select([self._terminal], [], [], 0)[0]:
                self._read()
        return os.waitstatus_to_exitcode(ended[1])

    def _read(self) -> None:
        try:
            data = os.read(self._terminal, 65536)
        except OSError as error:  # EIO: the program has closed its end
            raise AssertionError(f"the program ended:\n{self.screen[self._seen :]}") from error
        self.screen += _SEQUENCES.sub("", data.decode("utf-8", "replace"))

    def _wait(self, seconds: float) -> tuple[int, int] | None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                pid, status = os.waitpid(self._pid, os.WNOHANG)
            except ChildProcessError:
                return self._pid, 0
            if pid:
                return pid, status
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.01)
