"""Tempo, key, genres, instruments and moods that captions name, for exports and reports.

These are statements of the model, not measurements.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from musicflamingo_cli.paths import data_file

_TEMPO = re.compile(r"\b(\d{2,3}(?:\.\d+)?)[ -]*(?:BPM\b|beats per minute)", re.IGNORECASE)
# "A minor detail" is not a key: a bare A counts only after "in", "of", "is" or "key:".
_KEY = re.compile(
    r"(?:\b([B-G])|\b(A)(?=[ -]?(?:[#b♯♭]|sharp|flat))|(?<=\bin )(A)|(?<=\bof )(A)|(?<=\bis )(A)|(?<=[Kk]ey: )(A))"
    r"[ -]?(#|b|♯|♭|sharp|flat)?[ -]*(major|minor|maj|min)\b"
)
_NEGATED = re.compile(r"\b(?:no|not|without|lacks?|lacking|absence of|instead of)\b[^.;,]*", re.IGNORECASE)
SLOWEST, FASTEST = 30, 300  # beats per minute; other numbers are not taken for a tempo


@dataclass(frozen=True, slots=True)
class Facts:
    """What a caption names: ``tempo`` in beats per minute or None, ``key`` as `F# minor`; empty where it names none."""

    tempo: float | None
    key: str
    genres: tuple[str, ...]
    instruments: tuple[str, ...]
    moods: tuple[str, ...]


def facts_in(caption: str) -> Facts:
    """Return what one caption names; each term once, in order of appearance, without negated ones.

    >>> facts_in("A dark techno track at 128 BPM in F# minor with synths, a kick drum and a synth bass.")
    Facts(tempo=128.0, key='F# minor', genres=('techno',), instruments=('synth', 'kick drum', 'bass'), moods=('dark',))
    """
    affirmed = _NEGATED.sub(" ", caption)
    rest = _vocabulary()["genres"][0].sub(" ", affirmed)  # so that "drum and bass" does not name a bass
    return Facts(
        tempo=tempo_of(caption),
        key=key_of(caption),
        genres=tuple(_named(affirmed, "genres")),
        instruments=tuple(_named(rest, "instruments")),
        moods=tuple(_named(rest, "moods")),
    )


def tempo_of(caption: str) -> float | None:
    """Return the first tempo that a caption names, in beats per minute, or None."""
    tempi = (float(match[1]) for match in _TEMPO.finditer(caption))
    return next((tempo for tempo in tempi if SLOWEST <= tempo <= FASTEST), None)


def key_of(caption: str) -> str:
    """Return the first key that a caption names, as `C# minor` or `Eb major`; empty where it names none."""
    match = _KEY.search(caption)
    if match is None:
        return ""
    letter = next(filter(None, match.groups()[:6]))
    accidental = {"sharp": "#", "♯": "#", "flat": "b", "♭": "b"}.get(match[7] or "", match[7] or "")
    return f"{letter}{accidental} {'major' if match[8].startswith('maj') else 'minor'}"


def _named(caption: str, kind: str) -> Iterator[str]:
    """Yield the terms of a kind (`genres`, `instruments`, `moods`) that a caption names, each once."""
    pattern, counted_as = _vocabulary()[kind]
    yield from dict.fromkeys(counted_as[match[0].lower()] for match in pattern.finditer(caption))


@functools.cache
def _vocabulary() -> dict[str, tuple[re.Pattern[str], dict[str, str]]]:
    """Return for each kind of term a pattern that matches any of them, and the name that each match counts as."""
    import yaml

    kinds = yaml.safe_load(data_file("configs", "words.yaml").read_text(encoding="utf-8"))
    return {kind: _compiled(entries) for kind, entries in kinds.items()}


def _compiled(entries: list[str | dict[str, str]]) -> tuple[re.Pattern[str], dict[str, str]]:
    """Return pattern and names of one kind's entries: terms, or mappings of terms to the name they count as."""
    counted_as: dict[str, str] = {}
    for entry in entries:
        for word, name in (entry if isinstance(entry, dict) else {entry: entry}).items():
            counted_as[str(word).lower()] = str(name)
    longest_first = sorted(counted_as, key=lambda word: (-len(word), word))
    one_of = "|".join(map(re.escape, longest_first))
    return re.compile(rf"(?<![\w-])(?:{one_of})(?![\w-])", re.IGNORECASE), counted_as
