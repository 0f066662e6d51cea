"""The tempo of a recording, with its confidence and the tempi an octave away."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tempo:
    """A measured tempo in beats per minute.

    ``confidence``: from 0 to 1, how far it stands out from unrelated tempi; it does not tell half from double.
    ``alternatives``: the other tempi that fit as beats (half, double, a third, triple), the likelier first.
    """

    bpm: float
    confidence: float
    alternatives: tuple[float, ...] = ()
