"""What the tests of exports share: a captioned dataset of 50 tracks, its true captions, and readers of exports."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from musicflamingo_cli import exports
from musicflamingo_cli.choices import ExportFormat
from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.exports import ExportOptions, ExportStats, Target
from musicflamingo_cli.sidecars.captions import PROVENANCE_KEY, caption_key, real_captions
from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar
from musicflamingo_cli.text.t5_tokens import TokenStats, token_counter

PRESETS = ("full", "technical", "genre_mood")
ALL_CAPTIONS = ExportOptions(weights={"full": 1}, columns=PRESETS)
EXTENSIONS = (".wav", ".flac", ".ogg")
_FOLDERS = ("a", "b c", "d#é%", "a/deep")


@pytest.fixture(scope="session")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 50 captioned tracks with awkward names. Tests must not change it; see ``music``."""
    root = tmp_path_factory.mktemp("datasets") / "my music"
    tracks = [root / _FOLDERS[number % 4] / f"Track {number:02d} v1.2{EXTENSIONS[number % 3]}" for number in range(49)]
    tracks.append(root / "Song" / "full_mix.flac")
    for number, audio in enumerate(tracks):
        write_sound(audio, 0.6 + number / 100)
        captions = {caption_key(preset): caption(number, preset) for preset in PRESETS}
        made = {preset: {"model": "music-flamingo-hf.Q6_K.gguf"} for preset in PRESETS}
        merge_sidecar(track_for(audio).sidecar, {**captions, PROVENANCE_KEY: made})
    write_sound(root / "Song" / "drums.flac", 1.0)  # a stem: not a track
    return root


@pytest.fixture
def music(captioned: Path, tmp_path: Path) -> Path:
    """A copy of the captioned dataset that a test may change."""
    return shutil.copytree(captioned, tmp_path / "music")


def caption(number: int, preset: str) -> str:
    """A different caption for each track and preset, with what formats escape: quotes, commas, non-ASCII letters."""
    tempo = 61 + 3 * number + PRESETS.index(preset)
    return f'A "warm", slow jazz piece no. {number} at {tempo} BPM in F# minor; café piano & drums, {preset}.'


def write_sound(path: Path, seconds: float) -> None:
    """Write a tone at 22.05 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * 22050)) / 22050)
    soundfile.write(path, wave, 22050)


def write_track(audio: Path, info: Mapping[str, Any]) -> None:
    """Write a short tone and its sidecar."""
    write_sound(audio, 0.1)
    audio.with_suffix(".INFO").write_text(json.dumps(info))


def run(name: str, root: Path, out: Path, options: ExportOptions = ALL_CAPTIONS, **target: Any) -> ExportStats:
    """Export and return the counts. ``target``: more fields of ``Target``."""
    stats = ExportStats()
    tokens = TokenStats(counter=token_counter(None))
    exports.export(ExportFormat(name), root, Target(out=out, **target), options, stats, tokens)
    return stats


def add(sidecar: Path, **foreign: Any) -> None:
    """Set what other tools write into a sidecar."""
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text("utf-8")) | foreign), "utf-8")


def true_captions(root: Path) -> dict[str, dict[str, str]]:
    """Path relative to the dataset, to captions by preset, read from the sidecars."""
    found = {}
    for audio in audio_files(root):
        if audio.stem != "drums":
            info = read_sidecar(track_for(audio).sidecar)
            found[audio.relative_to(root).as_posix()] = real_captions(info, PRESETS)
    assert len(found) == 50
    assert all(len(captions) == 3 for captions in found.values())
    return found


def true_texts(root: Path) -> dict[str, str]:
    """Path relative to the dataset, to the caption of the preset `full`."""
    return {path: captions["full"] for path, captions in true_captions(root).items()}


def audio_files(folder: Path) -> list[Path]:
    """All audio files below a folder, links included."""
    return sorted(path for path in folder.rglob("*") if path.suffix in EXTENSIONS)


def fingerprint(path: Path) -> dict[str, str]:
    """Hashes of a file, or of all files below a folder."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(f.relative_to(path.parent)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_jsonl(path: Path) -> list[dict[str, str]]:
    """The rows of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def read_parquet(path: Path) -> list[dict[str, str]]:
    """The rows of a Parquet file."""
    from pyarrow import parquet

    rows: list[dict[str, str]] = parquet.read_table(path).to_pylist()
    return rows
