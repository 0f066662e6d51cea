"""The common look of tables, and the one sign of ok, warning, failure and absent: a symbol and a colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from musicflamingo_cli.cli.symbols import Symbols


class Sign(StrEnum):
    """What a sign says; the values are the fields of ``Symbols``."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    ABSENT = "absent"


NAME_WIDTH = 15  # cells: of what a line is about
_GAP = 2  # cells between columns
_STYLES = {Sign.OK: "green", Sign.WARNING: "yellow", Sign.FAILURE: "red", Sign.ABSENT: "dim"}


def sign_text(sign: Sign, symbols: Symbols) -> Text:
    """Return a sign in a column of its own."""
    return Text(getattr(symbols, sign), style=_STYLES[sign])


def sign_width(symbols: Symbols) -> int:
    """Return the width of the widest sign, in cells."""
    return max(len(getattr(symbols, sign)) for sign in Sign)


def marked(sign: Sign, text: str, symbols: Symbols) -> Text:
    """Return a text that says the same as the sign before it; without the sign where signs are words."""
    mark = "" if symbols.are_words else f"{getattr(symbols, sign)} "
    return Text(f"{mark}{text}", style=_STYLES[sign])


def listing(title: str = "") -> Table:
    """Return an empty table of records, a line each."""
    return Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )


def fitting(columns: Mapping[str, Sequence[Text | str]], width: int) -> dict[str, Sequence[Text | str]]:
    """Return the columns, without those at the end for which a terminal of ``width`` cells has no room."""
    kept = dict(columns)
    while len(kept) > 1 and sum(max(map(_width, [head, *cells])) + _GAP for head, cells in kept.items()) - _GAP > width:
        kept.popitem()
    return kept


def _width(cell: Text | str) -> int:
    return cell_len(str(cell))


def facts(rows: Sequence[tuple[str, Text | str]], width: int) -> Table:
    """Return names and what is known of each; ``width``: of the names, in cells."""
    table = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="dim", no_wrap=True, min_width=width)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table
