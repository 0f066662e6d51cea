"""Lines of styled text for a terminal: measured in cells, cut, wrapped and shortened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from rich.cells import cell_len, set_cell_size


class Style(StrEnum):
    """What a piece of text means; the value is how a terminal shows it (SGR). Colour is never the only sign."""

    PLAIN = ""
    STRONG = "1"
    FAINT = "2"
    GOOD = "32"
    WARNING = "33"
    BAD = "31"
    ACCENT = "36"


Piece = tuple[str, Style]
Line = Sequence[Piece]  # on the screen: one line


def width_of(line: Line) -> int:
    """Return the width of a line in cells."""
    return sum(cell_len(text) for text, _ in line)


def cut(line: Line, width: int) -> list[Piece]:
    """Return what of a line fits into ``width`` cells."""
    kept: list[Piece] = []
    for text, style in line:
        if (needed := cell_len(text)) > width:
            return [*kept, (set_cell_size(text, width), style)] if width > 0 else kept
        kept.append((text, style))
        width -= needed
    return kept


def fit(text: str, width: int, ellipsis: str) -> str:
    """Return a text, its end replaced by the ellipsis where it is wider than ``width`` cells.

    >>> fit("a long name", 8, "...")
    'a lon...'
    """
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - cell_len(ellipsis))).rstrip() + ellipsis


def shorten_middle(text: str, width: int, ellipsis: str) -> str:
    """Return a text, its middle replaced by the ellipsis where it is wider than ``width`` cells.

    Of a path the end says more than the beginning, so it gets two thirds.

    >>> shorten_middle("/home/me/Music/Some Artist/song.flac", 24, "...")
    '/home/m...tist/song.flac'
    """
    if cell_len(text) <= width:
        return text
    left = max(0, width - cell_len(ellipsis))
    head, tail = set_cell_size(text, left // 3), text[-(left - left // 3) :] if left else ""
    while cell_len(tail) > left - left // 3:
        tail = tail[1:]
    return head + ellipsis + tail


def wrap(text: str, width: int, lines: int, ellipsis: str) -> list[str]:
    """Return a text on at most so many lines, cut at spaces where there are some; the last one says what is missing."""
    words, wrapped = text.split(), [""]
    while words:
        longer = f"{wrapped[-1]} {words[0]}".strip()
        if cell_len(longer) <= width:
            wrapped[-1] = longer
            words.pop(0)
        elif len(wrapped) == lines:
            wrapped[-1] = fit(longer, width, ellipsis)
            break
        elif not wrapped[-1]:  # one word that is wider than a line
            wrapped[-1] = set_cell_size(words[0], width)
            words[0] = words[0][len(wrapped[-1]) :]
            wrapped.append("")
        else:
            wrapped.append("")
    return [line for line in wrapped if line]


def joined(parts: Iterable[str], width: int, separator: str) -> str:
    """Return the parts on one line, without those at the end for which there is no room."""
    line = ""
    for part in filter(None, parts):
        longer = f"{line}{separator}{part}" if line else part
        if line and cell_len(longer) > width:
            break
        line = longer
    return line


def rendered(line: Line, colour: bool) -> str:
    """Return a line as it is sent to a terminal."""
    if not colour:
        return "".join(text for text, _ in line)
    return "".join(f"\x1b[{style}m{text}\x1b[0m" if style else text for text, style in line)
