"""How long a batch will still take, from its first tracks on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from musicflamingo_cli.system.disk import file_size

_PRIOR = 0.02  # weight of the prior, in tracks


@dataclass(slots=True)
class _Begun:
    """A track in progress: when the engine began with it, and its size in bytes."""

    since: float
    size: int


class TimeLeft:
    """Estimates the time left, and the audio left, of which only the bytes are known before decoding.

    A track takes ``a + b * seconds of audio`` of a slot's time: the answers take about the same for each, the audio
    does not. Both are fitted to the tracks so far, beginning with the guess that a track of mean length needs as much
    for the one as for the other. How many tracks are in progress at once shows in how fast that work gets done.
    """

    def __init__(self, tracks: int, sizes: Mapping[str, int], clock: Callable[[], float] = time.monotonic) -> None:
        """``sizes``: the bytes of all tracks' audio, by file extension."""
        self.tracks = tracks  # that are not finished
        self._clock = clock
        self._created = clock()
        self._first_began: float | None = None
        self._bytes_left = Counter(sizes)
        self._bytes_heard: Counter[str] = Counter()
        self._seconds_heard: dict[str, float] = {}
        self._begun: dict[Path, _Begun] = {}
        # Sums over the finished tracks: of 1, seconds of audio x, x * x, slot time t, t * x.
        self._count = 0
        self._x = self._xx = self._t = self._tx = 0.0

    def began(self, audio: Path) -> None:
        """Note that the engine has begun with a track; only the first time counts."""
        if audio not in self._begun:
            now = self._clock()
            self._begun[audio] = _Begun(now, file_size(audio))
            if self._first_began is None:
                self._first_began = now

    def ended(self, audio: Path) -> None:
        """Note that a track is no longer in progress, though not finished: it is tried again later."""
        self._begun.pop(audio, None)

    def finished(self, audio: Path, heard: float, seconds: float) -> None:
        """Note a finished track, with the seconds of audio that were used (0: none) and how long it took.

        ``seconds`` counts where it is not known when the engine began with it.
        """
        self.tracks -= 1
        begun = self._begun.pop(audio, None)
        size, kind = (begun.size if begun else file_size(audio)), audio.suffix
        self._bytes_left[kind] -= size
        if not heard:
            return
        self._bytes_heard[kind] += size
        self._seconds_heard[kind] = self._seconds_heard.get(kind, 0.0) + heard
        taken = self._clock() - begun.since if begun else seconds
        self._count += 1
        self._x += heard
        self._xx += heard * heard
        self._t += taken
        self._tx += taken * heard

    @property
    def elapsed(self) -> float:
        """Seconds since the engine began with the first track, the model loaded."""
        return self._clock() - (self._created if self._first_began is None else self._first_began)

    @property
    def heard(self) -> float:
        """Seconds of audio used so far."""
        return self._x

    @property
    def audio_left(self) -> float | None:
        """Estimated seconds of audio of the unfinished tracks; None before any track was heard."""
        if not self._count:
            return None
        return sum(self._seconds_of(left, kind) for kind, left in self._bytes_left.items())

    def seconds(self) -> float | None:
        """Return the estimated time left in seconds; None before the first track is finished."""
        audio = self.audio_left
        if audio is None:
            return None
        base, per_second = self._fitted(audio)
        now = self._clock()
        underway = sum(
            min(now - each.since, base + per_second * self._seconds_of(each.size, path.suffix))
            for path, each in self._begun.items()
        )
        done = base * self._count + per_second * self._x + underway
        left = base * self.tracks + per_second * audio - underway
        return max(0.0, left) * self.elapsed / done if done else None

    def _seconds_of(self, size: int, kind: str) -> float:
        known = self._bytes_heard[kind]
        rate = self._seconds_heard[kind] / known if known else self._x / max(1, self._bytes_heard.total())
        return max(0, size) * rate

    def _fitted(self, audio_left: float) -> tuple[float, float]:
        """Return ``a`` and ``b``, neither of them negative."""
        count, x, xx, t, tx = self._count, self._x, self._xx, self._t, self._tx
        mean = (x + audio_left) / (count + self.tracks)
        aa, ab, bb = count + _PRIOR, x - _PRIOR * mean, xx + _PRIOR * mean * mean
        determinant = aa * bb - ab * ab
        if determinant <= 0:
            return t / count, 0.0
        a, b = (t * bb - tx * ab) / determinant, (tx * aa - t * ab) / determinant
        if b < 0:
            return t / count, 0.0
        return (a, b) if a >= 0 else (0.0, tx / xx)
