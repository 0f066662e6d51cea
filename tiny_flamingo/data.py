"""Training examples, made as they are asked for: example i is always the same music."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.signal import resample_poly
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tiny_flamingo import mel, music
from tiny_flamingo.music import RUN_SEEDS, TRAIN_SEEDS


@dataclass(frozen=True, slots=True)
class Shape:
    """How long the songs of a stage are, and how long the mel is."""

    seconds: tuple[float, float]
    window: float
    steady: bool  # short pieces have no sections to hear


PIECE = Shape((8.0, 8.0), 8.0, steady=True)
SHORT = Shape((6.0, 10.0), 10.0, steady=False)  # a third of a window: drums for 2 s, where a part enters late
WINDOW = Shape((12.0, 29.97), 30.0, steady=False)


class Music(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """(mel, score, labels): (128, frames), (frames / 2, 29), (8,) indices in the order of ``ATTRIBUTES``."""

    def __init__(self, shape: Shape, first: int, count: int) -> None:
        self.shape, self.first, self.count = shape, first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        song = music.random_song(self.first + index, seconds=self.shape.seconds, steady=self.shape.steady)
        samples, score = _recorded(song, self.first + index)
        samples = _coloured(samples, np.random.default_rng((song.seed, 3)))
        spectrum = mel.log_mel(samples, self.shape.window)
        rows = np.concatenate([score.lead, score.chord, score.hits], axis=1)
        frames = spectrum.shape[1] // 2
        rows = np.pad(rows[:frames], ((0, max(0, frames - len(rows))), (0, 0)))
        return torch.from_numpy(spectrum), torch.from_numpy(rows), label_indices(song)


def label_indices(song: music.Song) -> Tensor:
    values = [options.index(getattr(song, name)) for name, options in music.ATTRIBUTES.items()]
    return torch.tensor(values)


def _recorded(song: music.Song, seed: int) -> tuple[music.Samples, music.Score]:
    """At 16 kHz, most songs from a higher rate: their drums are then thinner, as in people's files.

    Trained at 16 kHz alone, drums were told at 0.97 there and at 0.83 in files of 44.1 kHz.
    """
    rate = int(np.random.default_rng((song.seed, 4)).choice((mel.RATE, 44_100, 44_100, 44_100, 48_000)))
    samples, score = music.render(song, music.random_recording(seed), rate)
    if rate == mel.RATE:
        return samples, score
    shared = math.gcd(rate, mel.RATE)
    return resample_poly(samples, mel.RATE // shared, rate // shared).astype(np.float32), score


def _coloured(samples: music.Samples, random: np.random.Generator) -> music.Samples:
    """What a lossy codec or a cheap microphone leaves: nothing above some frequency, in one of four songs."""
    if random.random() < 0.75:
        return samples
    spectrum = np.fft.rfft(samples)
    cut = int(len(spectrum) * random.uniform(0.5, 0.95))
    spectrum[cut:] *= 10 ** (-random.uniform(30, 80) / 20)
    return np.fft.irfft(spectrum, len(samples)).astype(np.float32)


def batches(shape: Shape, run: int, step: int, steps: int, size: int) -> Iterator[list[Tensor]]:
    """The batches of steps ``step`` to ``steps``: going on at a step gives the batches that it would have had.

    Every ``run`` (0 to 9) has songs of its own.
    """
    first = TRAIN_SEEDS + run * RUN_SEEDS + step * size
    data = Music(shape, first, (steps - step) * size)
    return iter(DataLoader(data, batch_size=size, num_workers=1, prefetch_factor=4))
