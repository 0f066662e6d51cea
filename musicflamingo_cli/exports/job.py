"""One export: what goes where, and the loop that takes a failing track for a failing track."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musicflamingo_cli.budget import Budget
from musicflamingo_cli.errors import AudioError, TrackError, kind_of
from musicflamingo_cli.exports.rows import TRAIN, VALIDATION, Choice, Row, Tally

LINK, COPY = "link", "copy"
RELATIVE, ABSOLUTE = "relative", "absolute"
_RESERVED_COLUMNS = frozenset(["path", "file_name", "text", "preset", "split", "audio"])


@dataclass(frozen=True, slots=True)
class Target:
    """Where an export goes, and how. ``paths``: None for what is usual in a format."""

    out: Path
    audio: str = LINK
    paths: str | None = None
    shard_size: int = 1000  # samples in a tar
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """``building`` is where to write now what will be at ``target.out``."""

    root: Path  # the dataset
    building: Path
    target: Target
    choice: Choice
    rows: Iterator[Row]
    tally: Tally
    budget: Budget

    @property
    def splits(self) -> tuple[str, ...]:
        """The parts that an export has: one without a name, or train and validation."""
        return (TRAIN, VALIDATION) if self.choice.validation else ("",)

    def for_each(self, write: Callable[[Row], None]) -> None:
        """Write every row; one that cannot be written is counted and told, and the next one follows.

        Raises OSError where nothing can be written any more.
        """
        for row in self.rows:
            try:
                write(row)
            except TrackError as error:
                self.tally.fail(row.track.audio, error)
            except OSError as error:
                if kind_of(error) == "no space":
                    raise
                reason = f"{error.strerror or error} ({error.filename or row.track.audio})"
                self.tally.fail(row.track.audio, AudioError(reason, "check the file and its permissions"))
            else:
                self.tally.exported += 1
                self.budget.add(row.text)


def column_of(preset: str) -> str:
    """The name of a preset's column, beside those that every row has."""
    return f"{preset}_caption" if preset in _RESERVED_COLUMNS else preset


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON as readers of datasets expect it: letters as they are, and no NaN, which is none."""
    return json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
