"""The one place that prints: data goes to stdout, messages go to stderr."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unicodedata import category

from musicflamingo_cli.cli.symbols import UNICODE, WORDS, Symbols, symbols_for
from musicflamingo_cli.errors import MusicFlamingoError

if TYPE_CHECKING:
    from pathlib import Path

    from musicflamingo_cli.types import Failure

_COMMAND = "musicflamingo "
_UNLIMITED = 100_000  # columns: rich breaks no line
_HARMLESS = "\n\t\u200c\u200d"  # line ends, and the joiners of Persian and the scripts of India


@dataclass(slots=True)
class Console:
    """Where output goes and how much of it there is. ``as_json``: stdout carries JSON and nothing else.

    ``plain``: lines of text only, for screen readers and logs, also in a terminal.
    """

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    colour: bool = True
    plain: bool = False

    def data(self, text: str, end: str = "\n") -> None:
        """Print a line of what was asked for on stdout: unchanged to a file, without control characters to a screen."""
        if not self.as_json:
            _write(sys.stdout, printable(text) if sys.stdout.isatty() else text, end)

    def styled(self, text: str) -> None:
        """Print a line of what was asked for, with escape sequences of ours, on stdout; it is printable otherwise."""
        if not self.as_json:
            _write(sys.stdout, text)

    def stream(self, text: str) -> None:
        """Print a piece of an answer on stdout; its end is a line of its own (``data("")``)."""
        self.data(text, end="")

    @property
    def symbols(self) -> Symbols:
        """The symbols for stdout: words with --plain, and where it leads to no terminal."""
        return symbols_for(sys.stdout) if sys.stdout.isatty() and not self.plain else WORDS

    @property
    def is_piped(self) -> bool:
        """Whether stdout leads to no terminal."""
        return not sys.stdout.isatty()

    @property
    def width(self) -> int:
        """The width of the terminal, in cells."""
        return shutil.get_terminal_size().columns

    def listing(self, table: Any) -> None:
        """Print a rich table of records on stdout; where it leads to no terminal one line a record, without heads."""
        if self.symbols is not UNICODE:  # no rule below the heads, and thus no gaps of its own
            table.box, table.padding = None, (0, 2, 0, 0)
        if sys.stdout.isatty():
            self.table(table)
            return
        table.show_header, table.expand, table.title = False, False, None
        self.table(table, _UNLIMITED)

    def table(self, table: Any, width: int | None = None) -> None:
        """Print a rich table on stdout, as wide as the terminal; in colours only where the terminal has them."""
        if self.as_json:
            return
        import rich.console
        from rich.segment import Segment, Segments

        styled = self.colour and sys.stdout.isatty()
        width = width or self.width
        screen = rich.console.Console(
            file=io.StringIO(),
            width=width,
            force_terminal=styled,
            no_color=not styled,
            markup=False,  # [live] in a name is no style
            emoji=False,
            highlight=False,
        )
        with screen.capture() as printed:
            cells = screen.render(table)  # before styles become escape sequences, which are ours
            screen.print(Segments(Segment(printable(cell.text), cell.style) for cell in cells), end="")
        lines = (line.rstrip() for line in printed.get().splitlines())
        _write(sys.stdout, "\n".join(lines).strip("\n"))

    def json(self, value: Any) -> None:
        """Print a value as one line of JSON on stdout, with --json only."""
        if self.as_json:
            _write(sys.stdout, json_line(value))

    def info(self, text: str) -> None:
        """Print a message on stderr; not with -q."""
        if not self.quiet:
            self._message(text, "")

    def detail(self, text: str) -> None:
        """Print a message on stderr with -v only."""
        if self.verbose:
            self._message(text, "dim")

    def warn(self, text: str) -> None:
        """Print what a person must not miss on stderr, also with -q."""
        self._message(text, "yellow")

    def fail(self, error: MusicFlamingoError) -> None:
        """Print an error and what to do next on stderr."""
        if self._is_plain_stderr:
            self._message(f"error: {error}", "red")
            if error.hint:
                self._message(f"  {error.hint}", "")
            return
        from musicflamingo_cli.cli.error_layout import split_place

        self._error(*split_place(str(error)), error.hint)

    def track_failed(self, failure: Failure, audio: Path) -> None:
        """Print why a track, or one preset of it, has no caption; elsewhere than in a terminal on one line."""
        if self._is_plain_stderr:
            self.warn(failure.line(audio))
            return
        preset = f" [{failure.preset}]" if failure.preset else ""
        self._error(failure.reason, f"{audio}{preset}", failure.hint)

    @property
    def _is_plain_stderr(self) -> bool:
        return self.plain or not sys.stderr.isatty()

    def _error(self, what: str, where: str, hint: str) -> None:
        from musicflamingo_cli.cli.error_layout import error_lines
        from musicflamingo_cli.cli.styled import rendered

        what, where, hint = printable(what), printable(where), printable(hint)
        lines = error_lines(what, where, hint, self.width, symbols_for(sys.stderr), is_whole=self.verbose)
        _write(sys.stderr, "\n".join(rendered(line, self.colour) for line in lines))

    def show_logs(self) -> None:
        """Show what the package logs: warnings always, information unless -q, details with -v."""
        package = logging.getLogger(__name__.partition(".")[0])
        for old in [handler for handler in package.handlers if isinstance(handler, _ConsoleHandler)]:
            package.removeHandler(old)
        package.addHandler(_ConsoleHandler(self))
        package.setLevel(logging.DEBUG if self.verbose else logging.INFO)

    def _message(self, text: str, style: str) -> None:
        if not self._is_plain_stderr:
            text = "\n".join(map(self._at_words, text.splitlines()))
        if style and self.colour and sys.stderr.isatty():
            rich_stderr(self.colour).print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)
        else:
            write_message(text)

    def _at_words(self, line: str) -> str:
        """Break a line of prose between words; a path or a command stays whole, so that it can be copied."""
        if len(line) < self.width or "/" in line or _COMMAND in line or line.startswith(" "):
            return line
        from musicflamingo_cli.cli.styled import wrap

        return "\n".join(wrap(line, self.width - 1, len(line), ""))


class _ConsoleHandler(logging.Handler):
    """Passes log records of the package to a console."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            self._console.warn(text)
        elif record.levelno >= logging.INFO:
            self._console.info(text)
        else:
            self._console.detail(text)


def duration(seconds: float) -> str:
    """Return seconds for a person: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def json_line(value: Any) -> str:
    """Return one line of JSON; names that are not UTF-8 on disk are escaped, so that a reader gets them back."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def printable(text: str) -> str:
    """Return text that any terminal takes: no lone surrogates (names that are not UTF-8), no control characters.

    They come from file names, tags, sidecars and answers, and could move the cursor, set the title or hide text.
    """
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(c if c.isprintable() or c in _HARMLESS or category(c) == "Zs" else "\ufffd" for c in text)


def one_line(text: str) -> str:
    """Return ``printable`` text without line ends and tabs, which names of files may hold."""
    return printable(text).replace("\n", "\ufffd").replace("\t", "\ufffd")


def write_message(text: str) -> None:
    """Write a plain line to stderr."""
    _write(sys.stderr, printable(text))


def _write(stream: Any, text: str, end: str = "\n") -> None:
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "replace").decode(encoding) + end)
        stream.flush()
    except OSError as error:
        # A reader that has gone (head, less) is no error. Nor are messages for which there is no room: a long run goes
        # on without them, while data that cannot be written is an error.
        devnull = os.open(os.devnull, os.O_WRONLY)  # what is left in the buffer, too: Python writes it when it ends
        os.dup2(devnull, stream.fileno())
        os.close(devnull)
        if not isinstance(error, BrokenPipeError) and stream is not sys.stderr:
            raise MusicFlamingoError(
                f"cannot write to stdout: {error.strerror or error}", "free some space there, or write to another place"
            ) from error


def rich_stderr(colour: bool) -> Any:
    """Return a rich console on stderr."""
    import rich.console

    return rich.console.Console(stderr=True, no_color=not colour)
