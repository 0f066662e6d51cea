"""How often the model is right: ``python -m tiny_flamingo.evaluate LM.gguf MMPROJ.gguf --engine mtmd-cli``.

Songs whose seeds were never trained on are written as WAV files at 44.1 kHz and asked about through the product itself,
so that its decoding, resampling, prompts and engines are measured along. Prints a line for each attribute.
``--engine transformers-reference`` asks a checkpoint, or the GGUF pair turned back into one, in transformers itself as
its documentation shows, and needs torch.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import soundfile

from musicflamingo_cli import Analysis, MusicFlamingoGGUF, MusicFlamingoTransformers
from musicflamingo_cli.choices import EngineName
from musicflamingo_cli.models.tiny_checkpoint import write_checkpoint
from tiny_flamingo import captions, music

FIRST_SEED = 1_000_000  # training songs begin at ten million
ASKED = ("technical", "instrumentation", "structure")  # together they name all that captions speak of
RATE = 44_100
REFERENCE = "transformers-reference"


class Flamingo(Protocol):
    def analyze_many(self, paths: list[Path], presets: list[str], /) -> Iterator[Analysis]: ...


def clips(folder: Path, count: int, first: int = FIRST_SEED) -> Iterator[tuple[Path, music.Song]]:
    """WAV files of held-out songs, 12 to 29.9 s long; those that are there already are taken."""
    for seed in range(first, first + count):
        song = music.random_song(seed)
        path = folder / f"{seed}.wav"
        if not path.exists():
            samples, _ = music.render(song, music.random_recording(seed), RATE)
            soundfile.write(path, samples, RATE, subtype="FLOAT")
        yield path, song


def evaluate(flamingo: Flamingo, songs: dict[Path, music.Song]) -> dict[str, float]:
    """The share of songs whose attribute was named rightly; a song without an answer counts as wrong."""
    right: Counter[str] = Counter()
    for analysis in flamingo.analyze_many(list(songs), list(ASKED)):
        said = captions.heard(" ".join(analysis.captions.values()))
        truth = songs[analysis.path].labels()
        right.update(name for name in captions.NAMED if said.get(name) == truth[name])
    return {name: right[name] / len(songs) for name in captions.NAMED}


@contextlib.contextmanager
def opened(engine: str, model: Path, mmproj: Path | None, threads: int) -> Iterator[Flamingo]:
    """The model behind an engine of the product, or in transformers without the product; greedy."""
    greedy: dict[str, Any] = {"temperature": 0.0, "repeat_penalty": 1.0, "threads": threads}
    if engine not in (REFERENCE, EngineName.TRANSFORMERS):
        with MusicFlamingoGGUF(str(model), mmproj=mmproj, engine=engine, **greedy) as flamingo:
            yield flamingo
        return
    with tempfile.TemporaryDirectory() as folder:
        if mmproj:
            write_checkpoint(model, mmproj, Path(folder) / "checkpoint")
            model = Path(folder) / "checkpoint"
        if engine == REFERENCE:
            from tiny_flamingo.in_transformers import InTransformers

            yield InTransformers(model, threads)
            return
        with MusicFlamingoTransformers(str(model), **greedy) as flamingo:
            yield flamingo


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("model", type=Path)
    options.add_argument("mmproj", type=Path, nargs="?")
    options.add_argument("--engine", default="mtmd-cli", help=f"an engine of the product, or {REFERENCE}")
    options.add_argument("--clips", type=int, default=500)
    options.add_argument("--first", type=int, default=FIRST_SEED, help="the first song's seed")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--folder", type=Path, help="keep the songs here, for the next engine")
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    if chosen.first + chosen.clips > music.TRAIN_SEEDS:
        options.error(f"songs from {music.TRAIN_SEEDS} on are trained on: give a lower --first")
    with (
        tempfile.TemporaryDirectory() as temporary,
        opened(chosen.engine, chosen.model, chosen.mmproj, chosen.threads) as flamingo,
    ):
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        accuracy = evaluate(flamingo, dict(clips(folder, chosen.clips, chosen.first)))
    if chosen.json:
        print(json.dumps({"engine": chosen.engine, "clips": chosen.clips, **accuracy}))
        return
    for name, share in accuracy.items():
        print(f"{name:10} {share:6.1%}   chance {1 / len(music.ATTRIBUTES[name]):.1%}")


if __name__ == "__main__":
    main()
