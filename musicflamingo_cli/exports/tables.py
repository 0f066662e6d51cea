"""One file with a row a track: CSV, JSON Lines, Parquet."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.exports.job import ABSOLUTE, Job, json_text
from musicflamingo_cli.exports.output import open_text
from musicflamingo_cli.exports.rows import Row

_FIRST = ["path", "text", "preset"]  # columns, by which an export of ours is known
_ROWS_IN_A_GROUP = 1000  # of Parquet; what is held in memory


def write_csv(job: Job) -> None:
    """CSV with a header; a caption that is missing is an empty cell."""
    with open_text(job.building) as file:
        writer = csv.DictWriter(file, _columns(job), lineterminator="\n")
        writer.writeheader()
        job.for_each(lambda row: writer.writerow(_cells(row, job)))


def write_jsonl(job: Job) -> None:
    """JSON Lines; a caption that is missing is null."""
    with open_text(job.building) as file:
        job.for_each(lambda row: print(json_text(_cells(row, job)), file=file))


def write_parquet(job: Job) -> None:
    """Parquet of text columns; a caption that is missing is null. Raises ConfigError where pyarrow is missing."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError("Parquet needs a package that is not installed", "pip install pyarrow") from error
    schema = pyarrow.schema([(name, pyarrow.string()) for name in _columns(job)])
    group: list[dict[str, Any]] = []
    with parquet.ParquetWriter(job.building, schema) as writer:

        def flush() -> None:
            if group:
                writer.write_table(pyarrow.Table.from_pylist(group, schema))
                group.clear()

        def write(row: Row) -> None:
            group.append(_cells(row, job))
            if len(group) == _ROWS_IN_A_GROUP:
                flush()

        job.for_each(write)
        flush()


def _columns(job: Job) -> list[str]:
    split = ["split"] if job.choice.validation else []
    return [*_FIRST, *split, *job.columns.values()]


def _cells(row: Row, job: Job) -> dict[str, str | None]:
    path = (job.root.absolute() / row.path) if job.target.paths == ABSOLUTE else row.path
    cells: dict[str, str | None] = {"path": path.as_posix(), "text": row.text, "preset": row.preset}
    if row.split:
        cells["split"] = row.split
    return cells | {column: row.captions.get(preset) for preset, column in job.columns.items()}


def is_csv(path: Path) -> bool:
    """Whether it looks like a table of ours: only such a file is replaced."""
    with path.open("rb") as file:
        return file.readline(1 << 20).startswith(",".join(_FIRST).encode())


def is_jsonl(path: Path) -> bool:
    """Other tools' lines begin with a path, too, so all of our columns must be there."""
    with path.open("rb") as file:
        try:
            first = json.loads(file.readline(1 << 20))
        except ValueError:
            return False
    return isinstance(first, dict) and list(first)[:3] == _FIRST


def is_parquet(path: Path) -> bool:
    try:
        from pyarrow import parquet

        return bool(parquet.read_schema(path).names[:3] == _FIRST)
    except Exception:  # pyarrow raises errors of its own for what is no Parquet
        return False
