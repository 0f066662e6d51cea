"""Songs of the synthesiser, captioned by the tiny model through `native`: what benchmarks/trust.py is measured on.

    python benchmarks/trust_songs.py FOLDER --songs 200     can be interrupted and started again
    python benchmarks/trust_songs.py FOLDER --temperature 2.5     for more wrong numbers: the tiny model makes few

Writes the songs, and what is true of them into `truth.json`; then captions what has no caption yet.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import soundfile

from tiny_flamingo import music

SEED = 8_400_000  # the first song's; below the training songs' (music.TRAIN_SEEDS), and no rule was tuned on these
RATE = 16_000  # Hz
PRESETS = ("full", "technical")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--songs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--llama-dir", type=Path)
    options = parser.parse_args()
    write_songs(options.folder, options.songs, options.seed)
    words = ["--threads", str(options.threads), "--temperature", str(options.temperature)]
    words += ["--top-p", "1" if options.temperature > 1 else "0.9"]
    caption(options.folder, [*words, *(["--llama-dir", str(options.llama_dir)] if options.llama_dir else [])])


def write_songs(folder: Path, number: int, first: int) -> None:
    """Render the songs that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    truths = {}
    for seed in range(first, first + number):
        song = music.random_song(seed)
        path = folder / f"{seed}.flac"
        truths[path.name] = {"bpm": song.bpm, "key": f"{song.key} {song.mode}", **song.labels()}
        if not path.exists():
            samples, _ = music.render(song, music.random_recording(seed), RATE)
            soundfile.write(path, samples, RATE)
    (folder / "truth.json").write_text(json.dumps(truths, indent=1) + "\n", encoding="utf-8")


def caption(folder: Path, words: list[str]) -> None:
    """Caption what has no caption yet. ``words``: more options of `batch`."""
    words = ["batch", str(folder), "--model", "tiny", "--engine", "native", *words]
    for preset in PRESETS:
        words += ["--preset", preset]
    subprocess.run([sys.executable, "-m", "musicflamingo_cli", *words], check=True)


if __name__ == "__main__":
    main()
