"""The songs that come with the tiny model: ``python -m tiny_flamingo.songs models/tiny/songs``.

`musicflamingo demo` captions them, `doctor` and the build script ask about them: what is true of them is known, so that
a build that hears wrongly is seen. MP3, since llama.cpp's own tools read that, too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import soundfile

from tiny_flamingo import captions, music
from tiny_flamingo.music import Recording, Song

RATE = 44_100  # Hz
SONGS = {
    "slow organ": Song(80, "A", "minor", "organ", "sub", "none", seconds=20.0, bpm=80.0, seed=1),
    "house loop": Song(120, "C", "major", "square", "synth", "four-on-the-floor", seconds=16.0, bpm=120.0, seed=2),
    "fast flute": Song(160, "E", "minor", "flute", "plucked", "breakbeat", seconds=16.0, bpm=160.0, seed=3),
}


def write_songs(folder: Path) -> list[Path]:
    """Write the songs and ``songs.json``, what is true of each in the words that the model has for it."""
    folder.mkdir(parents=True, exist_ok=True)
    truths, written = {}, []
    for title, song in SONGS.items():
        samples, _ = music.render(song, Recording(noise_db=-70.0), RATE)
        path = folder / f"{title}.mp3"
        soundfile.write(path, samples, RATE, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.9)
        truths[path.name] = captions.truth(song)
        written.append(path)
    described = folder / "songs.json"
    described.write_text(json.dumps(truths, indent=2) + "\n", encoding="utf-8")
    return [*written, described]


if __name__ == "__main__":
    for path in write_songs(Path(sys.argv[1])):
        print(path, path.stat().st_size)
