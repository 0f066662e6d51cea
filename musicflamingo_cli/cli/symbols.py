"""The symbols of the terminal's output: what its encoding can show, else ASCII; words where no symbols are wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Symbols:
    """What stands for what; ASCII, unless it is given.

    ``ellipsis``: for text that was left out; ``separator``: between parts of a line; ``hint``: before what to do next;
    ``are_words``: ok, warning, failure and absent are words, which need no sign where the text beside them says it.
    """

    ok: str = "ok"
    warning: str = "!"
    failure: str = "x"
    absent: str = "-"
    hint: str = "->"
    ellipsis: str = "..."
    separator: str = ", "
    bar: str = "#"
    bar_end: str = "#"
    bar_left: str = "."
    are_words: bool = False


ASCII = Symbols()
WORDS = Symbols(warning="warning", failure="failure", absent="absent", are_words=True)
UNICODE = Symbols(
    ok="✓", failure="✗", hint="→", ellipsis="…", separator=" · ", bar="━", bar_end="╸", bar_left="─"
)  # fmt: skip


def symbols_for(stream: Any) -> Symbols:
    """Return the symbols that a stream's encoding can show."""
    try:
        "".join((UNICODE.ok, UNICODE.failure, UNICODE.hint, UNICODE.ellipsis, UNICODE.bar, UNICODE.bar_end)).encode(
            getattr(stream, "encoding", None) or "ascii"
        )
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE
