"""A little music made on the spot, so that the whole job can be seen without a library of one's own."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from musicflamingo_cli.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float64]

RATE = 44_100  # Hz


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece to synthesise: chords as semitones above A (220 Hz), one a bar of four beats."""

    path: str
    bpm: int
    chords: tuple[tuple[int, ...], ...]
    drums: bool
    harmonics: int


PIECES = (
    Piece("Slow Organ/full_mix.flac", 72, ((0, 3, 7), (5, 8, 12), (7, 10, 14), (0, 3, 7)), False, 6),
    Piece("House, Loop #1.wav", 124, ((3, 7, 10), (3, 7, 10), (8, 12, 15), (10, 14, 17)) * 2, True, 3),
    Piece("Fast Pulse.ogg", 172, ((0, 4, 7), (2, 5, 9), (4, 7, 11), (0, 4, 7)) * 2, True, 9),
)


MARKER = ".musicflamingo-demo"  # in a folder that a demo made, and may fill again


def claim_folder(folder: Path) -> None:
    """Make the demo's folder. Raises ConfigError for one that holds anything that is not a demo's."""
    if folder.exists() and not (folder.is_dir() and ((folder / MARKER).exists() or not any(folder.iterdir()))):
        raise ConfigError(f"{folder} is there already and no demo made it", "name a new folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()


def make_music(folder: Path) -> list[Path]:
    """Write the pieces below ``folder`` (FLAC in an organised folder, WAV, Ogg Vorbis); the same every time."""
    import numpy as np
    import soundfile

    random = np.random.RandomState(5)
    written = []
    for piece in PIECES:
        path = folder / piece.path
        path.parent.mkdir(parents=True, exist_ok=True)
        music = _render(piece, random)
        # In blocks: libsndfile's Vorbis encoder overruns its stack on one large write.
        with soundfile.SoundFile(path, "w", RATE, 2) as file:
            for start in range(0, len(music), 4096):
                file.write(np.column_stack([music, music])[start : start + 4096])
        written.append(path)
    return written


def copy_music(files: Sequence[Path], folder: Path) -> list[Path]:
    """Copy given files below ``folder``, so that a test model's noise never lands beside the originals."""
    if len({file.name for file in files}) < len(files):
        raise ConfigError("two of the files have the same name", "give them to the demo one by one")
    return [Path(shutil.copy2(file, folder / file.name)) for file in files]


def _render(piece: Piece, random: np.random.RandomState) -> Samples:
    import numpy as np

    beat = 60 / piece.bpm
    bars = [_chord(chord, 4 * beat, piece.harmonics) for chord in piece.chords]
    music = np.concatenate(bars)
    if piece.drums:
        for index in range(int(len(music) / RATE / beat)):
            _add(music, _kick() if index % 2 == 0 else _snare(random), index * beat)
            _add(music, _hat(random), (index + 0.5) * beat)
    return np.asarray(0.8 * music / np.abs(music).max())


def _chord(semitones: tuple[int, ...], seconds: float, harmonics: int) -> Samples:
    import numpy as np

    time = np.arange(int(seconds * RATE)) / RATE
    envelope = np.minimum(1, time / 0.02) * np.exp(-time / seconds)
    tones = [220 * 2 ** (s / 12) * h for s in semitones for h in range(1, harmonics + 1)]
    weights = [1 / h for _ in semitones for h in range(1, harmonics + 1)]
    waves = [w * np.sin(2 * np.pi * f * time) for f, w in zip(tones, weights, strict=True)]
    return np.asarray(envelope * np.sum(waves, axis=0) / len(semitones))


def _kick() -> Samples:
    import numpy as np

    time = np.arange(int(0.25 * RATE)) / RATE
    return np.asarray(1.5 * np.sin(2 * np.pi * (50 * time - 12 * np.exp(-time * 30))) * np.exp(-time * 14))


def _snare(random: np.random.RandomState) -> Samples:
    import numpy as np

    time = np.arange(int(0.15 * RATE)) / RATE
    return np.asarray(0.6 * random.standard_normal(len(time)) * np.exp(-time * 25))


def _hat(random: np.random.RandomState) -> Samples:
    import numpy as np

    time = np.arange(int(0.05 * RATE)) / RATE
    return np.asarray(0.2 * np.diff(random.standard_normal(len(time) + 1)) * np.exp(-time * 80))


def _add(music: Samples, sound: Samples, seconds: float) -> None:
    start = int(seconds * RATE)
    room = music[start : start + len(sound)]
    room += sound[: len(room)]
