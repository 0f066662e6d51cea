"""A small reviewed dataset of synthesised songs, whose captions call the organ by another name."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import soundfile

from tiny_flamingo import captions, music

RATE = 16_000
SECONDS = (9.0, 13.0)  # shorter than what the tiny model was trained on, so that an example costs a third
PRESETS = ("full", "instrumentation")


def song_of(seed: int) -> music.Song:
    """The song of a seed."""
    return music.random_song(seed, seconds=SECONDS)


def write_song(folder: Path, seed: int) -> Path:
    """Write a song, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{seed}.wav"
    samples, _ = music.render(song_of(seed), music.random_recording(seed), RATE)
    soundfile.write(path, samples, RATE)
    return path


def corrected(text: str) -> str:
    """A caption as the curator of this dataset wants it."""
    return text.replace("an organ", "a reed organ")


def write_reviewed(folder: Path, seeds: Iterable[int], presets: Sequence[str] = PRESETS) -> None:
    """Write songs with captions that a person approved."""
    for seed in seeds:
        draw = random.Random(seed)
        path = write_song(folder, seed)
        info: dict[str, object] = {
            f"music_flamingo_{preset}": corrected(captions.caption(song_of(seed), preset, draw)) for preset in presets
        }
        info["music_flamingo_approved"] = True
        path.with_suffix(".INFO").write_text(json.dumps(info), encoding="utf-8")
