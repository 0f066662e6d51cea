"""The one layout of errors in a terminal: what, where, what to do."""

from __future__ import annotations

import re
from pathlib import Path

from musicflamingo_cli.cli.styled import Line, Style, shorten_middle, wrap
from musicflamingo_cli.cli.symbols import Symbols

_WIDEST = 120
_MOST_LINES = 1000
_PATH = re.compile(r"(?<![\w./:])(?:[A-Za-z]:)?[/\\][^\s:;,'\"()]+")

_ENDS_A_NAME = re.compile(r"\.\w+$")


def error_lines(what: str, where: str, hint: str, width: int, symbols: Symbols, is_whole: bool = False) -> list[Line]:
    """Return the lines for a terminal of ``width`` cells: all but what is to be typed is wrapped at spaces.

    ``where`` and ``hint`` may be empty. ``is_whole``: long paths are not shortened.
    """
    width = max(20, min(width - 1, _WIDEST))
    margin = len(symbols.failure) + 1
    room = width - margin
    if not is_whole:
        what, where = short_paths(what, room, symbols), shorten_middle(where, room - 3, symbols.ellipsis)
    first, *rest = [line for part in what.splitlines() for line in wrap(part, room, _MOST_LINES, symbols.ellipsis)] or [
        ""
    ]
    indent = " " * margin
    lines: list[Line] = [[(f"{symbols.failure} {first}", Style.BAD)]]
    lines += [[(f"{indent}{line}", Style.BAD)] for line in rest]
    if where:
        lines.append([(f"{indent}in ", Style.FAINT), (where, Style.PLAIN)])
    for number, line in enumerate(hint.splitlines()):
        mark = symbols.hint if number == 0 else " " * len(symbols.hint)
        lines.append([(f"{indent}{mark} ", Style.ACCENT), (line, Style.PLAIN)])
    return lines


def short_paths(text: str, width: int, symbols: Symbols) -> str:
    """Return a text, its absolute paths shortened in the middle where they are wider than half of ``width``.

    >>> from musicflamingo_cli.cli.symbols import ASCII
    >>> short_paths("no such file: /home/me/Music/Some-Artist/song.flac", 48, ASCII)
    'no such file: /home/m...tist/song.flac'
    """
    return _PATH.sub(lambda match: shorten_middle(match[0], max(16, width // 2), symbols.ellipsis), text)


def split_place(message: str) -> tuple[str, str]:
    """Return what a message says and where: it may begin with an absolute path and a colon.

    >>> split_place("/my music/prompts.yaml: no setting 'x'")
    ("no setting 'x'", '/my music/prompts.yaml')
    >>> split_place("/music/prompts.yaml cannot be read: it is a folder")
    ('/music/prompts.yaml cannot be read: it is a folder', '')
    """
    place, colon, rest = message.partition(": ")
    is_path = bool(colon) and "\n" not in place and Path(place).is_absolute() and bool(_ENDS_A_NAME.search(place))
    return (rest, place) if is_path else (message, "")
