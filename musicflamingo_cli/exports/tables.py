"""Tables, one file with a row per track: CSV, JSON Lines, Parquet."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from musicflamingo_cli.choices import PathStyle
from musicflamingo_cli.exports.job import CHANGES_COLUMN, Job, json_text
from musicflamingo_cli.exports.output import open_text
from musicflamingo_cli.exports.rows import Row

_FIRST = ["path", "text", "preset"]  # columns, by which an earlier export is recognised
_SPAN = ["start", "end"]  # columns, of segments: seconds in the track
_MARKED = tuple("=+-@\t\r")  # what spreadsheets take for a formula, where a cell begins with it
_TEXT_MARK = "'"
_Cell = str | float | None
_ROWS_PER_GROUP = 1000  # of Parquet; so many rows are held in memory


def write_csv(job: Job) -> None:
    """Write CSV with a header; a missing caption is an empty cell. Nothing is a formula, unless ``raw_cells``."""
    safe = (lambda cells: cells) if job.target.raw_cells else _without_formulas
    with open_text(job.building) as file:
        writer = csv.DictWriter(file, _columns(job), lineterminator="\n")
        writer.writeheader()
        job.for_each(lambda row: writer.writerow(safe(_cells(row, job))))


def write_jsonl(job: Job) -> None:
    """Write JSON Lines; a missing caption is null."""
    with open_text(job.building) as file:
        job.for_each(lambda row: print(json_text(_cells(row, job)), file=file))


def write_parquet(job: Job) -> None:
    """Write Parquet with text columns; a missing caption is null."""
    import pyarrow
    from pyarrow import parquet

    kinds = dict.fromkeys(_SPAN, pyarrow.float64()) if job.options.segments else {}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in _columns(job)])
    group: list[dict[str, Any]] = []
    with parquet.ParquetWriter(job.building, schema) as writer:

        def flush() -> None:
            if group:
                writer.write_table(pyarrow.Table.from_pylist(group, schema))
                group.clear()

        def write(row: Row) -> None:
            group.append(_cells(row, job))
            if len(group) == _ROWS_PER_GROUP:
                flush()

        job.for_each(write)
        flush()


def _columns(job: Job) -> list[str]:
    """Return the names of all columns, in order."""
    split = ["split"] if job.options.validation else []
    changes = [CHANGES_COLUMN] if job.options.revises else []
    return [*_FIRST, *(_SPAN if job.options.segments else ()), *split, *changes, *job.columns.values()]


def _cells(row: Row, job: Job) -> dict[str, _Cell]:
    """Return a row's values by column; None for a missing caption."""
    path = (job.root.absolute() / row.track_path) if job.target.paths == PathStyle.ABSOLUTE else row.track_path
    cells: dict[str, _Cell] = {"path": path.as_posix(), "text": row.text, "preset": row.preset}
    if row.cut:
        cells |= zip(_SPAN, (row.cut.span.start, row.cut.span.end), strict=True)
    if row.split:
        cells["split"] = row.split
    if job.options.revises:
        cells[CHANGES_COLUMN] = row.change_list
    return cells | {column: row.captions.get(preset) for preset, column in job.columns.items()}


def _without_formulas(cells: dict[str, _Cell]) -> dict[str, _Cell]:
    """Return cells that no spreadsheet runs: text gets the apostrophe that marks text there, a path `./`.

    So each path still names its file.
    """
    marks = {"path": "./"}
    return {
        name: f"{marks.get(name, _TEXT_MARK)}{cell}" if isinstance(cell, str) and cell.startswith(_MARKED) else cell
        for name, cell in cells.items()
    }


def is_csv(path: Path) -> bool:
    """Return whether a file begins as ``write_csv`` writes it: only such a file is replaced."""
    with path.open("rb") as file:
        return file.readline(1 << 20).startswith(",".join(_FIRST).encode())


def is_jsonl(path: Path) -> bool:
    """Return whether a file begins as ``write_jsonl`` writes it.

    Manifests of other tools begin with a path, too, so the first three keys are compared.
    """
    with path.open("rb") as file:
        try:
            first = json.loads(file.readline(1 << 20))
        except ValueError:
            return False
    return isinstance(first, dict) and list(first)[:3] == _FIRST


def is_parquet(path: Path) -> bool:
    """Return whether a file has the first columns that ``write_parquet`` writes."""
    try:
        from pyarrow import parquet

        return bool(parquet.read_schema(path).names[:3] == _FIRST)
    except Exception:  # pyarrow raises several error types for a file that is not Parquet
        return False
