"""How `models list` shows its rows: a table a kind of model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from musicflamingo_cli.cli.console import Console
from musicflamingo_cli.cli.symbols import Symbols
from musicflamingo_cli.cli.tables import Sign, fitting, listing, marked, sign_text

_GB = 1e9
_TITLES = {
    "quant": "Quants, for llama.cpp",
    "checkpoint": "Checkpoints, for transformers",
    "generator": "MusicGen, for listen",
}
_RIGHT = ("size", "needs", "audio")

Row = Mapping[str, Any]
Column = Sequence[Text | str]


def show(console: Console, rows: Sequence[Row]) -> None:
    """Print the rows of ``model_rows.rows_of``: in a terminal what there is room for, elsewhere all of it."""
    if console.as_json:
        return
    for number, (kind, title) in enumerate(_TITLES.items()):
        some = [row for row in rows if kind in row]
        if console.is_piped:
            console.listing(_table(title, _columns(kind, some, console.symbols)))
            continue
        if number:
            console.data("")
        columns = {"": [_sign(row, console.symbols) for row in some], **_columns(kind, some, console.symbols)}
        del columns["installed"]
        console.listing(_table(title, fitting(columns, console.width)))
    if not console.is_piped:
        signs = f"{console.symbols.ok} installed, {console.symbols.absent} not installed"
        console.info(f"{signs}; where: musicflamingo models path NAME")


def _table(title: str, columns: Mapping[str, Column]) -> Table:
    table = listing(title)
    for name in columns:
        table.add_column(name, justify="right" if name in _RIGHT else "left", overflow="fold")
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    return table


def _columns(kind: str, rows: Sequence[Row], symbols: Symbols) -> dict[str, Column]:
    """All columns but that of the signs, the important ones first."""
    columns: dict[str, Column] = {
        "name": [row[kind] for row in rows],
        "size": [f"{row['bytes'] / _GB:.1f} GB" for row in rows],
        "needs": [_needs(row, symbols) for row in rows],
        "memory": [_memory(row) for row in rows],
    }
    if kind == "checkpoint":
        columns["audio"] = [f"{row['max_seconds'] / 60:.0f} min" if row["max_seconds"] else "" for row in rows]
    if kind == "generator":
        columns["licence"] = [row["licence"] or "" for row in rows]
    return {**columns, "installed": [row["path"] or "not installed" for row in rows]}


def _needs(row: Row, symbols: Symbols) -> Text | str:
    """The memory that it needs; where no heads are shown, the cell says so."""
    if "memory_bytes" not in row:
        return ""
    prefix = "needs " if symbols.are_words else ""
    return marked(Sign.OK if row["fits"] else Sign.WARNING, f"{prefix}{row['memory_bytes'] / _GB:.1f} GB", symbols)


def _memory(row: Row) -> str:
    if "memory_bytes" not in row:
        return ""
    if not row["fits"]:
        return "too large"
    return "recommended" if row["recommended"] else "fits"


def _sign(row: Row, symbols: Symbols) -> Text:
    return sign_text(Sign.OK if row["path"] else Sign.ABSENT, symbols)
