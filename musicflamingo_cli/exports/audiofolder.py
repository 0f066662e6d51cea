"""Hugging Face AudioFolder: `metadata.jsonl` and the audio below it; `load_dataset("audiofolder", data_dir=…)`."""

from __future__ import annotations

import contextlib

from musicflamingo_cli.exports.job import Job, column_of, json_text
from musicflamingo_cli.exports.output import place_audio
from musicflamingo_cli.exports.rows import Row

METADATA = "metadata.jsonl"


def write_audiofolder(job: Job) -> None:
    """One folder, or `train/` and `validation/`, which the loader takes for splits.

    Columns are texts in every row, empty where there is no caption: the loader guesses their type from the first rows
    of each split, and refuses splits that differ.
    """
    with contextlib.ExitStack() as stack:
        files = {}
        for split in job.splits:
            (job.building / split).mkdir(exist_ok=True)
            metadata = (job.building / split / METADATA).open("w", encoding="utf-8", newline="")
            files[split] = stack.enter_context(metadata)

        def write(row: Row) -> None:
            place_audio(row.track.audio, job.building / row.split / row.path, job.target.audio)
            columns = {column_of(preset): row.captions.get(preset, "") for preset in job.choice.columns}
            line = {"file_name": row.path.as_posix(), "text": row.text, "preset": row.preset, **columns}
            files[row.split].write(json_text(line) + "\n")

        job.for_each(write)
