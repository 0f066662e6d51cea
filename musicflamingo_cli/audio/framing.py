"""Overlapping frames of a stream of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]


class Framer:
    """Cuts a stream into frames of ``size`` samples, one every ``hop``; what does not fill one waits for more."""

    def __init__(self, size: int, hop: int) -> None:
        self._size, self._hop = size, hop
        self._rest: Samples | None = None

    def frames(self, samples: Samples) -> Samples:
        """Return the frames that ``samples`` (mono) complete, of the shape (frames, size)."""
        import numpy as np

        if self._rest is not None:
            samples = np.concatenate([self._rest, samples])
        count = max(0, (len(samples) - self._size) // self._hop + 1)
        self._rest = samples[count * self._hop :].copy()
        if not count:
            return np.zeros((0, self._size), np.float32)
        return np.lib.stride_tricks.sliding_window_view(samples, self._size)[: count * self._hop : self._hop]
