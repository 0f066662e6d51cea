"""Tempo, key and words for genre, instruments and mood, as captions name them: for exports, reports and their tables.

What is found is what the model said, not what was measured.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from musicflamingo_cli.config import data_file

_TEMPO = re.compile(r"\b(\d{2,3}(?:\.\d+)?)[ -]*(?:BPM\b|beats per minute)", re.IGNORECASE)
# "A minor detail" is no key: a bare A is one only where a key is spoken of.
_KEY = re.compile(
    r"(?:\b([B-G])|\b(A)(?=[ -]?(?:[#b♯♭]|sharp|flat))|(?<=\bin )(A)|(?<=\bof )(A)|(?<=\bis )(A)|(?<=[Kk]ey: )(A))"
    r"[ -]?(#|b|♯|♭|sharp|flat)?[ -]*(major|minor|maj|min)\b"
)
_DENIED = re.compile(r"\b(?:no|not|without|lacks?|lacking|absence of|instead of)\b[^.;,]*", re.IGNORECASE)
SLOWEST, FASTEST = 30, 300  # beats per minute; what lies outside is no tempo


@dataclass(frozen=True, slots=True)
class Words:
    """What a caption names; ``tempo`` in beats per minute, ``key`` as `F# minor`; empty where it names none."""

    tempo: float | None
    key: str
    genres: tuple[str, ...]
    instruments: tuple[str, ...]
    moods: tuple[str, ...]


def words_of(caption: str) -> Words:
    """The words of one caption, each once, in the order in which they are named.

    >>> words_of("A dark techno track at 128 BPM in F# minor with synths, a kick drum and a synth bass.")
    Words(tempo=128.0, key='F# minor', genres=('techno',), instruments=('synth', 'kick drum', 'bass'), moods=('dark',))
    """
    said = _DENIED.sub(" ", caption)
    rest = _vocabulary()["genres"][0].sub(" ", said)  # drum and bass is no bass
    return Words(
        tempo_of(caption),
        key_of(caption),
        tuple(_named(said, "genres")),
        tuple(_named(rest, "instruments")),
        tuple(_named(rest, "moods")),
    )


def tempo_of(caption: str) -> float | None:
    """The first tempo that a caption names, in beats per minute."""
    tempi = (float(match[1]) for match in _TEMPO.finditer(caption))
    return next((tempo for tempo in tempi if SLOWEST <= tempo <= FASTEST), None)


def key_of(caption: str) -> str:
    """The first key that a caption names, as `C# minor` or `Eb major`; empty where it names none."""
    match = _KEY.search(caption)
    if match is None:
        return ""
    letter = next(filter(None, match.groups()[:6]))
    accidental = {"sharp": "#", "♯": "#", "flat": "b", "♭": "b"}.get(match[7] or "", match[7] or "")
    return f"{letter}{accidental} {'major' if match[8].startswith('maj') else 'minor'}"


def _named(caption: str, kind: str) -> Iterator[str]:
    pattern, counted_as = _vocabulary()[kind]
    yield from dict.fromkeys(counted_as[match[0].lower()] for match in pattern.finditer(caption))


@functools.cache
def _vocabulary() -> dict[str, tuple[re.Pattern[str], dict[str, str]]]:
    """For each kind of word: what matches any of them, and what each is counted as."""
    import yaml

    kinds = yaml.safe_load(data_file("configs", "words.yaml").read_text(encoding="utf-8"))
    return {kind: _compiled(entries) for kind, entries in kinds.items()}


def _compiled(entries: list[str | dict[str, str]]) -> tuple[re.Pattern[str], dict[str, str]]:
    counted_as: dict[str, str] = {}
    for entry in entries:
        for word, name in (entry if isinstance(entry, dict) else {entry: entry}).items():
            counted_as[str(word).lower()] = str(name)
    longest_first = sorted(counted_as, key=lambda word: (-len(word), word))
    one_of = "|".join(map(re.escape, longest_first))
    return re.compile(rf"(?<![\w-])(?:{one_of})(?![\w-])", re.IGNORECASE), counted_as
