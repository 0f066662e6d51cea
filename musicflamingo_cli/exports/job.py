"""One export: its target, its options, and the loop that isolates per-track failures."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from musicflamingo_cli.audio.clip import measure
from musicflamingo_cli.choices import AudioPlacement, PathStyle
from musicflamingo_cli.errors import AudioError, ConfigError, FailureKind, TrackError, kind_of
from musicflamingo_cli.exports.cutting import Cutter
from musicflamingo_cli.exports.output import place_audio, write_text
from musicflamingo_cli.exports.rows import ExportOptions, ExportStats, Row, TrackFacts
from musicflamingo_cli.sidecars.captions import TINY_MODEL_ONLY
from musicflamingo_cli.text.t5_tokens import TokenStats

CHANGES = "changes.jsonl"  # what was changed in captions, of formats without columns
CHANGES_COLUMN = "changes"
_OWN_COLUMNS = ("path", "file_name", "text", "preset", "split", "audio", "start", "end", CHANGES_COLUMN)


@dataclass(frozen=True, slots=True)
class Target:
    """Where an export goes, and how.

    ``shard_size``: samples per tar file. ``raw_cells``: cells that a spreadsheet would run as a formula are unchanged.
    """

    out: Path
    audio: AudioPlacement = AudioPlacement.LINK
    paths: PathStyle = PathStyle.RELATIVE
    shard_size: int = 1000
    overwrite: bool = False
    raw_cells: bool = False


@dataclass(frozen=True)  # no slots: `columns` is cached in the instance's __dict__
class Job:
    """One export in progress.

    ``root`` is the dataset. ``building`` is where files are written now that will end up at ``target.out``.
    ``writes_all``: the trainer reads all captions of a row, not only its text. ``has_columns``: rows have a column
    for what was changed in their captions; else it goes into a file. ``cutter``: cuts the audio of segments.
    """

    root: Path
    building: Path
    target: Target
    options: ExportOptions
    rows: Iterator[Row]
    stats: ExportStats
    tokens: TokenStats
    writes_all: bool = False
    has_columns: bool = False
    cutter: Cutter = field(default_factory=Cutter, repr=False)

    @cached_property
    def columns(self) -> Mapping[str, str]:
        """The name of each preset's column."""
        return columns_of(self.options.columns)

    def place(self, row: Row, target: Path) -> None:
        """Link, copy or cut a row's audio to ``target``. Raises the errors of ``to_copy`` and ``place_audio``."""
        if row.cut:
            self.cutter.cut(self.to_copy(row), row.cut.span, target)
            return
        is_copy = self.target.audio == AudioPlacement.COPY
        place_audio(self.to_copy(row) if is_copy else row.track.audio, target, self.target.audio)

    def to_copy(self, row: Row) -> Path:
        """Return the file with a row's audio, whose bytes may leave this machine with the export.

        Raises AudioError for what is no audio, and for a link out of the dataset unless links are followed.
        """
        source = Path(os.path.realpath(row.track.audio))
        if not self.options.follow_links and not source.is_relative_to(row.track.within or self.root.resolve()):
            reason = f"{row.track.audio.name} is a link that leads out of the dataset; it was not copied"
            raise AudioError(reason, "copy it all the same with --follow-links")
        if not row.cut:  # else it is opened to be cut
            measure(source)
        return source

    @contextlib.contextmanager
    def audio_file(self, row: Row) -> Iterator[Path]:
        """Yield a file whose bytes are a row's audio. Raises the errors of ``place``."""
        if row.cut is None:
            yield self.to_copy(row)
            return
        with self.cutter.temporary(self.to_copy(row), row.cut.span, row.path.suffix) as file:
            yield file

    def facts(self, row: Row) -> TrackFacts:
        """Return what is known of a row besides its captions. Reads the audio's header; raises AudioError."""
        if row.cut is None:
            return row.facts(measure(row.track.audio))
        return row.facts(self.cutter.measure(Path(os.path.realpath(row.track.audio)), row.cut.span))

    def for_each(self, write: Callable[[Row], None]) -> None:
        """Call ``write`` with every row; a row that fails is counted and logged, and the next one follows.

        Raises OSError where the disk is full, and ConfigError where no row was exported.
        """
        for row in self.rows:
            try:
                write(row)
                self._record_changes(row)
            except TrackError as error:
                self.stats.fail(row.track.audio, error)
            except ConfigError:
                raise
            except OSError as error:
                if kind_of(error) == FailureKind.NO_SPACE:
                    raise
                reason = f"{error.strerror or error} ({error.filename or row.track.audio})"
                self.stats.fail(row.track.audio, AudioError(reason, "check the file and its permissions"))
            except Exception as error:  # a decoder's or a bug: one bad file must not cost the others
                reason = f"{type(error).__name__}: {error}"
                self.stats.fail(row.track.audio, AudioError(reason, "report this bug, with the file"))
            else:
                count(row, self.stats, self.tokens, self.writes_all)
        if not self.stats.exported:
            raise nothing_exported(self.root, self.stats)

    def _record_changes(self, row: Row) -> None:
        """Note what was changed in a row's captions."""
        if row.changes and not self.has_columns:
            line = json_text(
                {"path": row.path.as_posix(), "changes": {name: list(each) for name, each in row.changes.items()}}
            )
            with (self.building / CHANGES).open("a", encoding="utf-8", newline="\n") as file:
                file.write(line + "\n")


def count(row: Row, stats: ExportStats, tokens: TokenStats, writes_all: bool) -> None:
    """Count a row, and the tokens of the captions that a trainer reads of it (see ``Job.writes_all``)."""
    stats.exported += 1
    stats.revised += bool(row.changes)
    stats.parts[row.split] = stats.parts.get(row.split, 0) + 1
    for text in dict.fromkeys([row.text, *(row.captions.values() if writes_all else ())]):
        tokens.add(text, str(row.path))


def nothing_exported(root: Path, stats: ExportStats) -> ConfigError:
    """Return the error for an export that would be empty; it names why each track was left out."""
    reasons = {**stats.left_out, **({"failed": stats.failures} if stats.failures else {})}
    found = ", ".join(f"{reason} ({number})" for reason, number in sorted(reasons.items())) or "no tracks"
    hint = f"list the captions with: musicflamingo status '{root}'; then choose one with --preset NAME"
    if TINY_MODEL_ONLY in stats.left_out:
        hint = f"caption it with a real model: musicflamingo batch '{root}'"
    return ConfigError(f"nothing to export: {found}", hint)


def columns_of(presets: Sequence[str]) -> dict[str, str]:
    """Return the column of each preset: its name, or a free one where rows already have a column of that name."""
    columns: dict[str, str] = {}
    for preset in presets:
        name = preset
        while name in _OWN_COLUMNS or name in columns.values() or (name != preset and name in presets):
            name = f"{name}_caption"
        columns[preset] = name
    return columns


def json_text(value: Any, indent: int | None = None) -> str:
    """Return JSON as dataset readers expect it: non-ASCII characters unescaped. Raises ValueError for NaN."""
    return json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write an indented JSON file."""
    write_text(path, json_text(value, indent=2) + "\n")
