"""How a track is cut into segments: where each begins and ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from musicflamingo_cli.choices import Alignment

SHORTEST, LONGEST = 2.0, 1800.0  # seconds of a segment that may be asked for
_LEAST_REST = 5.0  # seconds: a shorter rest at a track's end is left out, if it is also less than half a segment
_DIGITS = 3  # of seconds


@dataclass(frozen=True, slots=True)
class Cutting:
    """Segments of ``seconds`` each, one every ``hop`` seconds. ``align``: their ends are moved to the nearest beat.

    ``start``, ``fraction``, ``max_seconds``: the part of the track that is cut (see Excerpt).
    """

    seconds: float
    hop: float
    align: Alignment | None = None
    start: float = 0.0
    fraction: float = 1.0
    max_seconds: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what tells one cutting from another, as the sidecar records it."""
        found: dict[str, Any] = {"seconds": self.seconds, "hop": self.hop}
        if self.align is not None:
            found["align"] = str(self.align)
        if self.start:
            found["start"] = self.start
        if self.fraction < 1:
            found["fraction"] = self.fraction
        if self.max_seconds is not None:
            found["max_seconds"] = self.max_seconds
        return found


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A segment's place in its track, in seconds."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """The length."""
        return self.end - self.start

    def frames(self, rate: int) -> tuple[int, int]:
        """Return the first sample frame at ``rate`` Hz, and the one after the last. Neighbours share theirs."""
        return round(self.start * rate), round(self.end * rate)

    def __str__(self) -> str:
        return f"{_clock(self.start)}-{_clock(self.end)}"


def spans_of(begin: float, end: float, cutting: Cutting, snap: Callable[[float], float] | None = None) -> list[Span]:
    """Return the segments of the part of a track from ``begin`` to ``end`` (seconds), in order; at least one.

    The last one may be shorter; a rest of less than 5 s and of less than half a segment is left out. ``snap`` moves a
    cut; the part's own ends stay, and of two segments that it gives one beginning the first is taken.

    >>> [str(span) for span in spans_of(0.0, 65.0, Cutting(30.0, 30.0))]
    ['0:00-0:30', '0:30-1:00', '1:00-1:05']
    """
    begin, end = round(begin, _DIGITS), round(end, _DIGITS)
    least = min(_LEAST_REST, cutting.seconds / 2)
    found: list[Span] = []
    number = 0
    while not found or found[-1].end < end:
        start = begin + number * cutting.hop
        stop = min(start + cutting.seconds, end)
        if number and stop - start < least:
            break
        cut = [place if place in (begin, end) or snap is None else snap(place) for place in (start, stop)]
        span = Span(*(round(min(end, max(begin, place)), _DIGITS) for place in cut))
        if not found or span.start - found[-1].start > cutting.hop / 2:  # else both begin at the same beat
            found.append(span)
        number += 1
    return found


def _clock(seconds: float) -> str:
    """Seconds as `1:05`, or `1:05.25` where they are not whole."""
    minutes, rest = divmod(round(float(seconds), _DIGITS), 60)
    return f"{minutes:.0f}:{rest:02.0f}" if rest.is_integer() else f"{minutes:.0f}:{rest:06.3f}".rstrip("0")
