"""Captions in the formats that trainers read. One file a format; `job` is what they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from musicflamingo_cli.errors import ConfigError, nearest
from musicflamingo_cli.exports.audiocraft import write_audiocraft
from musicflamingo_cli.exports.audiofolder import write_audiofolder
from musicflamingo_cli.exports.beside import write_ace_step, write_txt
from musicflamingo_cli.exports.job import Job, Target, count, nothing_exported
from musicflamingo_cli.exports.output import new_file, new_folder, require_free_file, require_free_folder
from musicflamingo_cli.exports.rows import Choice, Tally, is_text, rows_of
from musicflamingo_cli.exports.stable_audio import write_stable_audio
from musicflamingo_cli.exports.tables import is_csv, is_jsonl, is_parquet, write_csv, write_jsonl, write_parquet
from musicflamingo_cli.exports.webdataset import write_webdataset
from musicflamingo_cli.text.t5_tokens import Budget


@dataclass(frozen=True, slots=True)
class Format:
    """How a format is written. ``takes``: the fields of ``Target`` that mean something to it.

    ``is_ours``: for a format that is one file, whether a file is such an export. ``writes_all``: see ``Job``.
    """

    write: Callable[[Job], None]
    takes: frozenset[str] = frozenset(["audio"])
    is_ours: Callable[[Path], bool] | None = None
    writes_all: bool = False


_TABLE = frozenset(["paths"])
FORMATS = {
    "audiocraft": Format(write_audiocraft, writes_all=True),
    "stable-audio": Format(write_stable_audio, writes_all=True),
    "webdataset": Format(write_webdataset, frozenset(["shard_size"])),
    "audiofolder": Format(write_audiofolder, writes_all=True),
    "ace-step": Format(write_ace_step),
    "txt": Format(write_txt),
    "csv": Format(write_csv, _TABLE, is_csv, writes_all=True),
    "jsonl": Format(write_jsonl, _TABLE, is_jsonl, writes_all=True),
    "parquet": Format(write_parquet, _TABLE, is_parquet, writes_all=True),
}


def find_format(name: str) -> Format:
    """The format of that name. Raises ConfigError."""
    if name not in FORMATS:
        known = "see: musicflamingo export --help"
        raise ConfigError(f"no format {name!r}{nearest(name, FORMATS)}", known)
    return FORMATS[name]


def default_out(name: str, root: Path) -> Path:
    """Where an export goes when nobody says: the working folder, or beside the dataset where that is inside it."""
    dataset = root.resolve()
    folder = dataset.parent if Path.cwd().is_relative_to(dataset) else Path()
    return folder / (f"{dataset.name}.{name}" if find_format(name).is_ours else f"{dataset.name}-{name}")


def export(name: str, root: Path, target: Target, choice: Choice, tally: Tally, budget: Budget) -> None:
    """Export the dataset at ``root``: whole and under its name, or not at all.

    Raises ConfigError where the target is in the way or cannot be written, and where there is nothing to export.
    """
    form = find_format(name)
    _require_apart(root, target.out)
    place = (
        new_file(target.out, target.overwrite, form.is_ours)
        if form.is_ours
        else new_folder(target.out, target.overwrite)
    )
    try:
        with place as building:
            job = Job(root, building, target, choice, rows_of(root, choice, tally), tally, budget, form.writes_all)
            form.write(job)
    except OSError as error:
        hint = "make room, or name a place with more of it"
        raise ConfigError(f"cannot write {target.out}: {error.strerror or error}", hint) from error


def rehearse(name: str, root: Path, target: Target, choice: Choice, tally: Tally, budget: Budget) -> None:
    """Count what an export would hold, with the same objections, and write nothing. Audio is not opened."""
    form = find_format(name)
    _require_apart(root, target.out)
    if form.is_ours:
        require_free_file(target.out, target.overwrite, form.is_ours)
    else:
        require_free_folder(target.out, target.overwrite)
    for row in rows_of(root, choice, tally):
        count(row, tally, budget, form.writes_all)
    if not tally.exported:
        raise nothing_exported(root, tally)


def _require_apart(root: Path, out: Path) -> None:
    """An export inside its dataset would be captioned by the next batch, and read by the next export."""
    if not is_text(str(out.absolute())):
        raise ConfigError("the name of OUT is not UTF-8, which dataset formats cannot hold", "name another place")
    places = (out.resolve(), out.parent.resolve() / out.name)  # a link's target, and the link
    if any(place.is_relative_to(root.resolve()) for place in places):
        raise ConfigError(f"{out} lies inside the dataset {root}", "name a place outside of it")


__all__ = ["FORMATS", "Choice", "Format", "Tally", "Target", "default_out", "export", "find_format", "rehearse"]
