"""Hugging Face AudioFolder: `metadata.jsonl` and the audio below it; `load_dataset("audiofolder", data_dir=…)`."""

from __future__ import annotations

import contextlib
from typing import IO

from musicflamingo_cli.exports.job import CHANGES_COLUMN, Job, json_text
from musicflamingo_cli.exports.output import open_text
from musicflamingo_cli.exports.rows import Row

METADATA = "metadata.jsonl"
_FILES_PER_FOLDER = 1000


def write_audiofolder(job: Job) -> None:
    """Write one folder, or `train/` and `validation/`, which the loader reads as splits.

    Audio files are numbered, and the column `path` has their original names: the loader would take a `test_01.wav` or
    a `soul train.flac` for a split of its own and leave out the other files. Caption columns are text in every row,
    empty where there is no caption: the loader infers column types from the first rows of each split and rejects
    splits that differ.
    """
    with contextlib.ExitStack() as stack:
        files: dict[str, IO[str]] = {}  # a split without rows has no folder: the loader rejects empty ones
        numbers: dict[str, int] = {}

        def write(row: Row) -> None:
            folder = job.building / row.split
            number = numbers.get(row.split, 0)
            name = f"{number // _FILES_PER_FOLDER:04d}/{number:07d}{row.path.suffix.lower()}"
            job.place(row, folder / name)
            if row.split not in files:
                files[row.split] = stack.enter_context(open_text(folder / METADATA))
            captions = {column: row.captions.get(preset, "") for preset, column in job.columns.items()}
            line: dict[str, str | float] = {
                "file_name": name,
                "path": row.track_path.as_posix(),
                "text": row.text,
                "preset": row.preset,
                **captions,
            }
            if row.cut:
                line |= {"start": row.cut.span.start, "end": row.cut.span.end}
            if job.options.revises:
                line[CHANGES_COLUMN] = row.change_list
            files[row.split].write(json_text(line) + "\n")
            numbers[row.split] = number + 1

        job.for_each(write)
