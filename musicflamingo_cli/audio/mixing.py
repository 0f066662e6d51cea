"""Mix channels to mono, and notice where they cancel out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # numpy is imported when the first file is read
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

# The share of the energy that independent channels would leave in a mix: with less, the channels cancel out.
_LEAST_ENERGY = 0.1
_SMALL_OFFSET = 1e-3  # as a share of the energy


class Mixer:
    """Averages channels, or takes only ``channel`` (counted from 1).

    Measures the energy of what comes after the first ``skip`` samples, to know whether the channels cancel out.
    """

    def __init__(self, channel: int | None = None, skip: int = 0) -> None:
        self._channel = channel
        self._skip = skip
        self._energies: dict[int, float] = {}  # of each channel, counted from 1
        self._mixed = self._expected = 0.0  # energy of the mix, and that of a mix of independent channels

    def mono(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        """Yield blocks of shape (frames, channels) as mono: within full scale, with zeros for NaN and infinity."""
        for block in blocks:
            samples = _valid(block)
            channels = samples.shape[1]
            if self._channel is not None:
                yield samples[:, min(self._channel, channels) - 1]
            elif channels == 1:
                yield samples[:, 0]
            else:
                mixed = _mixed(samples)
                self._measure(samples, mixed)
                yield mixed

    @property
    def louder_channel(self) -> int | None:
        """The loudest channel, counted from 1, where the channels cancel out; None where the mix is good."""
        if not self._energies or self._mixed >= _LEAST_ENERGY * self._expected:
            return None
        return max(self._energies, key=self._energies.__getitem__)

    def _measure(self, block: Samples, mixed: Samples) -> None:
        skipped = min(self._skip, len(block))
        self._skip -= skipped
        block, mixed = block[skipped:], mixed[skipped:]
        energies = [_energy(channel) for channel in block.T]
        for number, energy in enumerate(energies, 1):
            self._energies[number] = self._energies.get(number, 0.0) + energy
        self._mixed += _energy(mixed)
        self._expected += sum(energies) / len(energies) ** 2


def _energy(samples: Samples) -> float:
    """Return the energy of what can be heard: an offset, as of a bad converter, does not cancel out with the sound."""
    import numpy as np

    energy = float(np.dot(samples, samples))
    offset = samples.mean() if len(samples) else samples.dtype.type(0)
    if len(samples) * float(offset) ** 2 < _SMALL_OFFSET * energy:  # spares another copy
        return energy
    return float(np.dot(varying := samples - offset, varying))


def _mixed(block: Samples) -> Samples:
    """Return the mean of the channels; for two several times as fast as numpy's, which is for any number."""
    if block.shape[1] == 2:
        return (block[:, 0] + block[:, 1]) * block.dtype.type(0.5)
    mean: Samples = block.mean(axis=1, dtype="float32")
    return mean


def _valid(block: Samples) -> Samples:
    """Return samples within full scale, with zeros for NaN and infinity."""
    import numpy as np

    if not block.size or (block.min() >= -1.0 and block.max() <= 1.0):  # false where there is a NaN
        return block
    return np.clip(np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0), -1.0, 1.0)
