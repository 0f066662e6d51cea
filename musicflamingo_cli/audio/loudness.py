"""Levels of a recording: integrated loudness, the share of silence, the stereo width."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from musicflamingo_cli.audio.framing import Framer

if TYPE_CHECKING:
    import av
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}  # by number of channels; others are mixed to mono
_ABSOLUTE_GATE = -70.0  # LUFS: EBU R 128 does not count what is softer, and FFmpeg's filter returns it where all is
_SILENCE = 1e-6  # power of 0.1 s below which it is silent: -60 dB of full scale


class Loudness:
    """Integrated loudness by EBU R 128, measured by FFmpeg's filter `ebur128`. ``rate``: of the samples, in Hz."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._channels = 0
        self._filter: av.filter.Graph | None = None
        self._position = 0
        self._last: list[av.AudioFrame | av.VideoFrame] = []  # two frames that the filter returned

    def add(self, block: Samples) -> None:
        """Take the next block, of the shape (frames, channels), with as many channels as the first."""
        import av
        import numpy as np

        if not len(block):
            return
        if self._filter is None:
            self._channels = block.shape[1] if block.shape[1] in _LAYOUTS else 1
            self._filter = _filter(self._rate, _LAYOUTS[self._channels])
        if block.shape[1] != self._channels:
            block = block.mean(axis=1, keepdims=True)
        packed = np.ascontiguousarray(block, np.float32).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=_LAYOUTS[self._channels])
        frame.sample_rate, frame.time_base, frame.pts = self._rate, Fraction(1, self._rate), self._position
        self._position += len(block)
        self._filter.push(frame)
        self._read()

    def lufs(self) -> float | None:
        """Return the loudness of all samples so far; None where nothing is louder than -70 LUFS. No more may follow."""
        if self._filter is not None:
            self._filter.push(None)
            self._read()
        found = [frame.metadata["lavfi.r128.I"] for frame in self._last if "lavfi.r128.I" in frame.metadata]
        lufs = float(found[-1]) if found else _ABSOLUTE_GATE  # a frame of less than 0.1 s, at the end, has none
        return round(lufs, 2) if lufs > _ABSOLUTE_GATE else None

    def _read(self) -> None:
        """Take the filter's results, one for each 0.1 s; the last holds the loudness of all."""
        import av

        assert self._filter is not None
        while True:
            try:
                self._last = [*self._last[-1:], self._filter.pull()]
            except (av.BlockingIOError, av.EOFError):
                return


def _filter(rate: int, layout: str) -> av.filter.Graph:
    import av

    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=rate, format="flt", layout=layout, time_base=Fraction(1, rate))
    measuring = graph.add("ebur128", "framelog=quiet:metadata=1")
    sink = graph.add("abuffersink")
    source.link_to(measuring)
    measuring.link_to(sink)
    graph.configure()
    return graph


class Levels:
    """The share of silence and the stereo width of blocks at ``rate`` Hz."""

    def __init__(self, rate: int) -> None:
        self._step = max(1, rate // 10)
        self._framer: Framer | None = None
        self._frames = self._silent = 0
        self._sum = self._difference = 0.0  # energy of left and right added, and of one taken from the other

    def add(self, block: Samples) -> None:
        """Take the next block, of the shape (frames, channels), with as many channels as the first."""
        import numpy as np

        size = self._step * block.shape[1]
        if self._framer is None:
            self._framer = Framer(size, size)
        frames = self._framer.frames(block.reshape(-1))
        self._frames += len(frames)
        self._silent += int((np.einsum("ij,ij->i", frames, frames) < _SILENCE * size).sum())
        left, right = block[:, 0], block[:, min(1, block.shape[1] - 1)]
        both, cross = float(np.dot(left, left) + np.dot(right, right)), 2 * float(np.dot(left, right))
        self._sum += both + cross
        self._difference += max(0.0, both - cross)

    @property
    def silence(self) -> float:
        """The share of tenths of a second that are silent, from 0 to 1."""
        return round(self._silent / self._frames, 4) if self._frames else 0.0

    @property
    def width(self) -> float | None:
        """The energy of the difference of left and right among that of sum and difference; None for silence.

        It is 0 for mono, 0.5 for unrelated channels, 1 for opposed ones.
        """
        total = self._sum + self._difference
        return round(self._difference / total, 4) if total > 0 else None
