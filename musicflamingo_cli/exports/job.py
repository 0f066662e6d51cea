"""One export: what goes where, and the loop that takes a failing track for a failing track."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musicflamingo_cli.errors import AudioError, ConfigError, TrackError, kind_of
from musicflamingo_cli.exports.output import LINK, write_text
from musicflamingo_cli.exports.rows import TOYS, Choice, Row, Tally
from musicflamingo_cli.text.t5_tokens import Budget

RELATIVE, ABSOLUTE = "relative", "absolute"
_OWN_COLUMNS = ("path", "file_name", "text", "preset", "split", "audio")


@dataclass(frozen=True, slots=True)
class Target:
    """Where an export goes, and how. ``shard_size``: samples in a tar."""

    out: Path
    audio: str = LINK
    paths: str = RELATIVE
    shard_size: int = 1000
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """``building`` is where to write now what will be at ``target.out``.

    ``writes_all``: not only a row's text, but all its captions are read by the trainer.
    """

    root: Path  # the dataset
    building: Path
    target: Target
    choice: Choice
    rows: Iterator[Row]
    tally: Tally
    budget: Budget
    writes_all: bool = False
    columns: Mapping[str, str] = field(init=False)  # preset to the name of its column

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", columns_of(self.choice.columns))

    def for_each(self, write: Callable[[Row], None]) -> None:
        """Write every row; one that cannot be written is counted and told, and the next one follows.

        Raises OSError where nothing can be written any more, and ConfigError where nothing was.
        """
        for row in self.rows:
            try:
                write(row)
            except TrackError as error:
                self.tally.fail(row.track.audio, error)
            except ConfigError:
                raise
            except OSError as error:
                if kind_of(error) == "no space":
                    raise
                reason = f"{error.strerror or error} ({error.filename or row.track.audio})"
                self.tally.fail(row.track.audio, AudioError(reason, "check the file and its permissions"))
            except Exception as error:  # of a decoder or of ours: one poisoned file must not cost the others
                reason = f"{type(error).__name__}: {error}"
                self.tally.fail(row.track.audio, AudioError(reason, "report it with this file"))
            else:
                count(row, self.tally, self.budget, self.writes_all)
        if not self.tally.exported:
            raise nothing_exported(self.root, self.tally)


def count(row: Row, tally: Tally, budget: Budget, writes_all: bool) -> None:
    """Count a row, and the tokens of what a trainer reads of it."""
    tally.exported += 1
    tally.parts[row.split] = tally.parts.get(row.split, 0) + 1
    for text in dict.fromkeys([row.text, *(row.captions.values() if writes_all else ())]):
        budget.add(text, str(row.path))


def nothing_exported(root: Path, tally: Tally) -> ConfigError:
    """Why an export would be empty: then there is none, and an earlier one stays."""
    reasons = {**tally.left_out, **({"failed": tally.failures} if tally.failures else {})}
    why = ", ".join(f"{reason} ({number})" for reason, number in sorted(reasons.items())) or "no tracks"
    hint = f"see which captions there are with: musicflamingo status '{root}'; then --preset NAME"
    if TOYS in tally.left_out:
        hint = f"caption it with a real model: musicflamingo batch '{root}'"
    return ConfigError(f"nothing to export: {why}", hint)


def columns_of(presets: Sequence[str]) -> dict[str, str]:
    """Each preset's column: its name, or where a row has such a column already, one that is free."""
    columns: dict[str, str] = {}
    for preset in presets:
        name = preset
        while name in _OWN_COLUMNS or name in columns.values() or (name != preset and name in presets):
            name = f"{name}_caption"
        columns[preset] = name
    return columns


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON as readers of datasets expect it: letters as they are, and no NaN, which is none."""
    return json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """A JSON file that people may read, too."""
    write_text(path, json_text(value, indent=2) + "\n")
