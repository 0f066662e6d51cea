"""Export captions in the formats that trainers read: one module per format; `job` holds what they share."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from musicflamingo_cli.choices import ExportFormat
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.exports.audiocraft import write_audiocraft
from musicflamingo_cli.exports.audiofolder import write_audiofolder
from musicflamingo_cli.exports.beside import write_ace_step, write_txt
from musicflamingo_cli.exports.cutting import Cutter
from musicflamingo_cli.exports.job import Job, Target, count, nothing_exported
from musicflamingo_cli.exports.output import new_file, new_folder, require_free_file, require_free_folder
from musicflamingo_cli.exports.rows import ExportOptions, ExportStats, rows_of
from musicflamingo_cli.exports.stable_audio import write_stable_audio
from musicflamingo_cli.exports.tables import is_csv, is_jsonl, is_parquet, write_csv, write_jsonl, write_parquet
from musicflamingo_cli.exports.webdataset import write_webdataset
from musicflamingo_cli.sidecars.captions import is_text
from musicflamingo_cli.text.t5_tokens import TokenStats


@dataclass(frozen=True, slots=True)
class Format:
    """How a format is written.

    ``takes``: the fields of ``Target`` that apply to it. ``is_ours``: for a format that is a single file, a function
    that says whether a file is such an export. ``writes_all``, ``has_columns``: see ``Job``. ``in_segments``: whether
    rows may be segments. ``package``: what it needs besides the base install.
    """

    write: Callable[[Job], None]
    takes: frozenset[str] = frozenset(["audio"])
    is_ours: Callable[[Path], bool] | None = None
    writes_all: bool = False
    has_columns: bool = False
    in_segments: bool = True
    package: str = ""

    def require_package(self) -> None:
        """Raise ConfigError where its package is not installed."""
        if self.package and importlib.util.find_spec(self.package) is None:
            raise ConfigError(
                f"this format needs {self.package}, which is not installed", "pip install 'musicflamingo[export]'"
            )


_TABLE = frozenset(["paths"])
FORMATS = {
    ExportFormat.AUDIOCRAFT: Format(write=write_audiocraft, writes_all=True),
    ExportFormat.STABLE_AUDIO: Format(write=write_stable_audio, writes_all=True, in_segments=False),
    ExportFormat.WEBDATASET: Format(write=write_webdataset, takes=frozenset(["shard_size"]), has_columns=True),
    ExportFormat.AUDIOFOLDER: Format(write=write_audiofolder, writes_all=True, has_columns=True),
    ExportFormat.ACE_STEP: Format(write=write_ace_step),
    ExportFormat.TXT: Format(write=write_txt),
    ExportFormat.CSV: Format(
        write=write_csv, takes=_TABLE | {"raw_cells"}, is_ours=is_csv, writes_all=True, has_columns=True
    ),
    ExportFormat.JSONL: Format(write=write_jsonl, takes=_TABLE, is_ours=is_jsonl, writes_all=True, has_columns=True),
    ExportFormat.PARQUET: Format(
        write=write_parquet, takes=_TABLE, is_ours=is_parquet, writes_all=True, has_columns=True, package="pyarrow"
    ),
}


def default_out(name: ExportFormat, root: Path) -> Path:
    """Return where an export goes by default: into the working folder, or beside the dataset if that is inside it."""
    dataset = root.resolve()
    folder = dataset.parent if Path.cwd().is_relative_to(dataset) else Path()
    return folder / (f"{dataset.name}.{name}" if FORMATS[name].is_ours else f"{dataset.name}-{name}")


def export(
    name: ExportFormat, root: Path, target: Target, options: ExportOptions, stats: ExportStats, tokens: TokenStats
) -> None:
    """Export the dataset at ``root``: completely, or not at all. Counts go to ``stats`` and ``tokens``.

    Raises ConfigError where the format's package is missing, where the target is occupied or cannot be written, and
    where there is nothing to export.
    """
    form = FORMATS[name]
    form.require_package()
    _require_apart(root, target.out)
    place = (
        new_file(target.out, target.overwrite, form.is_ours)
        if form.is_ours
        else new_folder(target.out, target.overwrite)
    )
    try:
        with place as building, Cutter() as cutter:
            job = Job(
                root=root,
                building=building,
                target=target,
                options=options,
                rows=rows_of(root, options, stats),
                stats=stats,
                tokens=tokens,
                writes_all=form.writes_all,
                has_columns=form.has_columns,
                cutter=cutter,
            )
            form.write(job)
    except OSError as error:
        hint = "free some disk space, or choose a place with more of it"
        raise ConfigError(f"cannot write {target.out}: {error.strerror or error}", hint) from error


def rehearse(
    name: ExportFormat, root: Path, target: Target, options: ExportOptions, stats: ExportStats, tokens: TokenStats
) -> None:
    """Count what ``export`` would write, and write nothing. Raises the same errors; audio files are not opened."""
    form = FORMATS[name]
    form.require_package()
    _require_apart(root, target.out)
    if form.is_ours:
        require_free_file(target.out, target.overwrite, form.is_ours)
    else:
        require_free_folder(target.out, target.overwrite)
    for row in rows_of(root, options, stats):
        count(row, stats, tokens, form.writes_all)
    if not stats.exported:
        raise nothing_exported(root, stats)


def _require_apart(root: Path, out: Path) -> None:
    """Raise ConfigError for an export inside its dataset: the next batch would caption it, the next export read it."""
    if not is_text(str(out.absolute())):
        raise ConfigError("the name of OUT is not UTF-8, which dataset formats require", "choose another name")
    places = (out.resolve(), out.parent.resolve() / out.name)  # a link's target, and the link itself
    if any(place.is_relative_to(root.resolve()) for place in places):
        raise ConfigError(f"{out} is inside the dataset {root}", "choose a place outside of it")


__all__ = ["FORMATS", "ExportOptions", "ExportStats", "Format", "Target", "default_out", "export", "rehearse"]
