"""Captions in the formats that trainers read. One file a format; `job` is what they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from musicflamingo_cli.budget import Budget
from musicflamingo_cli.errors import ConfigError, nearest
from musicflamingo_cli.exports.audiocraft import write_audiocraft
from musicflamingo_cli.exports.audiofolder import write_audiofolder
from musicflamingo_cli.exports.beside import write_ace_step, write_txt
from musicflamingo_cli.exports.job import COPY, LINK, Job, Target
from musicflamingo_cli.exports.output import new_file, new_folder
from musicflamingo_cli.exports.rows import Choice, Tally, rows_of
from musicflamingo_cli.exports.stable_audio import write_stable_audio
from musicflamingo_cli.exports.tables import write_csv, write_jsonl, write_parquet
from musicflamingo_cli.exports.webdataset import write_webdataset


@dataclass(frozen=True, slots=True)
class Format:
    """``suffix``: of the one file that it is; empty where it is a folder."""

    write: Callable[[Job], None]
    help: str
    suffix: str = ""


FORMATS = {
    "audiocraft": Format(write_audiocraft, "MusicGen: manifest, a JSON beside each track, paraphrases"),
    "stable-audio": Format(write_stable_audio, "stable-audio-tools: dataset config and metadata module"),
    "webdataset": Format(write_webdataset, "tar shards, with a config for stable-audio-tools"),
    "audiofolder": Format(write_audiofolder, "Hugging Face datasets: metadata.jsonl and the audio"),
    "ace-step": Format(write_ace_step, "ACE-Step 1.5: caption, lyrics and JSON beside each track"),
    "txt": Format(write_txt, "a text file beside each track"),
    "csv": Format(write_csv, "one table", ".csv"),
    "jsonl": Format(write_jsonl, "one JSON object a line", ".jsonl"),
    "parquet": Format(write_parquet, "one Parquet file", ".parquet"),
}


def find_format(name: str) -> Format:
    """The format of that name. Raises ConfigError."""
    if name not in FORMATS:
        known = "see: musicflamingo export --help"
        raise ConfigError(f"no format {name!r}{nearest(name, FORMATS)}", known)
    return FORMATS[name]


def default_out(name: str, root: Path) -> Path:
    """Where an export goes when nobody says: the working folder, under the dataset's and the format's name."""
    suffix = find_format(name).suffix
    dataset = root.resolve().name or "dataset"
    return Path(f"{dataset}{suffix}") if suffix else Path(f"{dataset}-{name}")


def export(name: str, root: Path, target: Target, choice: Choice, tally: Tally, budget: Budget) -> None:
    """Export the dataset at ``root``: whole and under its name, or not at all.

    Raises ConfigError where the target is in the way, and OSError where it cannot be written.
    """
    form = find_format(name)
    if not form.suffix:
        _require_apart(root, target.out)
    make = new_file if form.suffix else new_folder
    with make(target.out, target.overwrite) as building:
        job = Job(root, building, target, choice, rows_of(root, choice, tally), tally, budget)
        form.write(job)


def rehearse(root: Path, choice: Choice, tally: Tally, budget: Budget) -> Iterator[Path]:
    """What an export would hold: the tracks, one by one, counted, and nothing written."""
    for row in rows_of(root, choice, tally):
        tally.exported += 1
        budget.add(row.text)
        yield row.track.audio


def _require_apart(root: Path, out: Path) -> None:
    """An export inside its dataset would be captioned by the next batch, and read by the next export."""
    inside, outside = out.resolve(), root.resolve()
    if inside.is_relative_to(outside):
        raise ConfigError(f"{out} lies inside the dataset {root}", "name a place outside of it")


__all__ = ["COPY", "FORMATS", "LINK", "Choice", "Format", "Tally", "Target", "default_out", "export", "find_format"]
