"""The key of a recording, with its confidence and the keys that are easily mistaken for it."""

from __future__ import annotations

from dataclasses import dataclass

TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
MODES = ("major", "minor")


@dataclass(frozen=True, slots=True)
class Key:
    """A measured key, as `A minor`; the tonic is one of TONICS.

    ``confidence``: from 0 to 1, the margin over the next key. ``relatives``: the relative key, the parallel one and
    those a fifth above and below, in this order.
    """

    name: str
    confidence: float
    relatives: tuple[str, ...] = ()


def relatives_of(name: str) -> tuple[str, ...]:
    """Return the relative key of `A minor`, the parallel one, and those a fifth above and below."""
    tonic, _, mode = name.partition(" ")
    root, is_major = TONICS.index(tonic), mode == MODES[0]
    other = MODES[is_major]
    return (
        f"{TONICS[(root + (9 if is_major else 3)) % 12]} {other}",
        f"{tonic} {other}",
        f"{TONICS[(root + 7) % 12]} {mode}",
        f"{TONICS[(root + 5) % 12]} {mode}",
    )
