"""Decoded blocks as measurements take them: of one size, of one number of channels, without NaN."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

_FRAMES = 1 << 15  # of a block: few calls, and it stays in the processor's cache

_LARGEST = 1000.0  # 60 dB above full scale


def even(blocks: Iterable[Samples]) -> Iterator[Samples]:
    """Yield blocks of the shape (frames, channels) cut anew: decoders yield some of 26 ms and some of 6 s.

    All have as many channels as the first: a file that goes on with another number is mixed to mono from there on.
    """
    waiting: list[Samples] = []
    frames = channels = 0
    for block in blocks:
        channels = channels or block.shape[1]
        waiting.append(_with_channels(block, channels))
        frames += len(block)
        if frames >= _FRAMES:
            yield from _cut(waiting)
            waiting, frames = [], 0
    if frames:
        yield from _cut(waiting)


def _cut(waiting: list[Samples]) -> Iterator[Samples]:
    import numpy as np

    joined = np.ascontiguousarray(np.concatenate(waiting) if len(waiting) > 1 else waiting[0], np.float32)
    for start in range(0, len(joined), _FRAMES):
        yield _finite(joined[start : start + _FRAMES])


def _with_channels(block: Samples, channels: int) -> Samples:
    import numpy as np

    if block.shape[1] == channels:
        return block
    return np.repeat(block.mean(axis=1, keepdims=True, dtype=np.float32), channels, axis=1)


def _finite(block: Samples) -> Samples:
    """Return samples with zeros for NaN and infinity, and within limits where there are absurd ones."""
    import numpy as np

    flat = block.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.dot(flat, flat)):
            return block
    return np.clip(np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0), -_LARGEST, _LARGEST)
