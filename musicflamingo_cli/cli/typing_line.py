"""Lines that a person types: editing and history where the system has readline, and what Ctrl-C does meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from musicflamingo_cli.errors import AnswerCancelledError

_PROMPT = "> "
_KEPT_LINES = 1000
_STOPPING = b"\nstopping as soon as the answer begins; Ctrl-C again to quit\n"


class LineCleared(Exception):
    """Ctrl-C was pressed at the prompt. ``had_text``: there was something on the line."""

    def __init__(self, had_text: bool) -> None:
        super().__init__()
        self.had_text = had_text


class TypedLines:
    """Reads lines from the terminal. A context manager: its end adds what was typed to the history file."""

    def __init__(self, history: Path, is_edited: bool) -> None:
        """``history``: a file of the last lines, the oldest first. ``is_edited``: with editing, which uses stdout."""
        self._history = history
        self._typed: list[str] = []
        self._readline = _readline() if is_edited else None

    def __enter__(self) -> TypedLines:
        if self._readline:
            self._readline.clear_history()
            for line in _read_history(self._history):
                self._readline.add_history(line)
        return self

    def __exit__(self, *_: object) -> None:
        if self._typed:
            _write_history(self._history, [*_read_history(self._history), *self._typed][-_KEPT_LINES:])

    def has_text(self) -> bool:
        """Return whether something is on the line that is being typed; always False without editing."""
        return bool(self._readline and self._readline.get_line_buffer())

    def read(self) -> str:
        """Return the next line. Raises EOFError at Ctrl-D, after beginning a new line on the screen."""
        try:
            line = input(_PROMPT) if self._readline else _plain_line()
        except (EOFError, LineCleared):
            sys.stderr.write("\n")
            raise
        except UnicodeDecodeError:
            return ""
        if words := line.split():
            self._typed.append(" ".join(words))  # a pasted text can have several lines
        return line


def _plain_line() -> str:
    """A line without editing; the prompt goes to stderr, since stdout is for data."""
    sys.stderr.write(_PROMPT)
    sys.stderr.flush()
    if not (line := sys.stdin.readline()):
        raise EOFError
    return line


def _readline() -> Any:
    """The module that gives ``input`` editing and history; None on systems without it."""
    try:
        import readline
    except ImportError:
        return None
    return readline


def _read_history(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _write_history(file: Path, lines: list[str]) -> None:
    """Write the history for its owner's eyes only; where that is not possible, there is none."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as history:
            file.chmod(0o600)  # one that existed before
            history.writelines(f"{line}\n" for line in lines)


class Interrupts:
    """What Ctrl-C does: at the prompt it clears the line, during an answer it ends that, the second time the program.

    A context manager, since outside of it Ctrl-C does what it does in all commands.
    """

    def __init__(self, has_text: Callable[[], bool]) -> None:
        self._has_text = has_text
        self._is_at_prompt = False
        self._is_stopping = False
        self._has_begun = False  # the answer in progress
        self._before: Any = signal.SIG_IGN

    def __enter__(self) -> Interrupts:
        self._before = signal.getsignal(signal.SIGINT)
        if self._before is not signal.SIG_IGN:  # ignored: nohup
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    @contextlib.contextmanager
    def at_prompt(self) -> Iterator[None]:
        """Let Ctrl-C raise LineCleared."""
        self._is_at_prompt = True
        try:
            yield
        finally:
            self._is_at_prompt = False

    @contextlib.contextmanager
    def during_answer(self) -> Iterator[Callable[[], None]]:
        """Give a function that raises AnswerCancelledError after Ctrl-C, to be called with each piece of the answer."""
        self._is_stopping = self._has_begun = False
        yield self._check

    def _check(self) -> None:
        self._has_begun = True
        if self._is_stopping:
            raise AnswerCancelledError("the answer was stopped")

    def _handle(self, number: int, frame: Any) -> None:
        if self._is_at_prompt:
            raise LineCleared(self._has_text())
        if self._is_stopping:
            raise KeyboardInterrupt
        self._is_stopping = True
        if not self._has_begun:  # the audio is being processed, which cannot be stopped without losing it
            os.write(sys.stderr.fileno(), _STOPPING)  # not by the stream, which may be in use at this moment
