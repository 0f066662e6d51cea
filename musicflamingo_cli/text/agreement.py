"""How far two captions agree: in the tempo, key, genres and instruments that they name, and word by word."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from musicflamingo_cli.text.facts import Facts

TOLERANCE = 0.02  # of a tempo
_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_PUNCTUATION = ".,;:!?()[]\"'“”‘’…–—-*"  # around words
_SHIFTS = {"#": 1, "b": -1, "": 0}


class Match(StrEnum):
    """How what the second caption names relates to what the first one names."""

    SAME = "same"
    HALF = "half"  # the second tempo is half the first
    DOUBLE = "double"
    DIFFERENT = "different"
    ONLY_FIRST = "only the first"  # names one
    ONLY_SECOND = "only the second"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class Overlap:
    """The terms that both captions name, and those that only one names, in order of appearance."""

    shared: tuple[str, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]

    @property
    def total(self) -> int:
        """How many different terms the two name together."""
        return len(self.shared) + len(self.only_first) + len(self.only_second)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a second caption agrees with a first one."""

    tempo: Match
    key: Match
    genres: Overlap
    instruments: Overlap


def agreement(first: Facts, second: Facts) -> Agreement:
    """Compare what two captions name."""
    return Agreement(
        tempo=match_tempi(first.tempo, second.tempo),
        key=match_keys(first.key, second.key),
        genres=overlap(first.genres, second.genres),
        instruments=overlap(first.instruments, second.instruments),
    )


def match_tempi(first: float | None, second: float | None) -> Match:
    """Compare two tempi in beats per minute; up to 2 % apart they are the same.

    >>> match_tempi(140.0, 70.5)
    <Match.HALF: 'half'>
    """
    if first is None or second is None:
        return _one_sided(first is not None, second is not None)
    for match, factor in ((Match.SAME, 1.0), (Match.HALF, 0.5), (Match.DOUBLE, 2.0)):
        expected = first * factor
        if abs(second - expected) <= TOLERANCE * max(second, expected):
            return match
    return Match.DIFFERENT


def match_keys(first: str, second: str) -> Match:
    """Compare two keys as ``facts.key_of`` returns them.

    Enharmonic keys are the same (`C# minor`, `Db minor`); relative and parallel ones are different. A key without a
    mode (`G`) is the same as any with that tonic.

    >>> match_keys("C# minor", "Db minor")
    <Match.SAME: 'same'>
    """
    if not first or not second:
        return _one_sided(bool(first), bool(second))
    (tonic, mode), (other_tonic, other_mode) = tonic_and_mode(first), tonic_and_mode(second)
    is_same = tonic == other_tonic and (mode == other_mode or not mode or not other_mode)
    return Match.SAME if is_same else Match.DIFFERENT


def overlap(first: tuple[str, ...], second: tuple[str, ...]) -> Overlap:
    """Compare two lists of terms, each without repetitions."""
    return Overlap(
        shared=tuple(term for term in first if term in second),
        only_first=tuple(term for term in first if term not in second),
        only_second=tuple(term for term in second if term not in first),
    )


def marked_words(text: str, other: str) -> Iterator[tuple[str, bool]]:
    """Split a text into runs of words and of the space between them; True marks words that ``other`` lacks there.

    Case and punctuation do not count. The runs put together are the text.

    >>> list(marked_words("A slow waltz.", "A fast waltz"))
    [('A ', False), ('slow', True), (' ', False), ('waltz.', False)]
    """
    words, others = (re.findall(r"\s*\S+\s*", each) for each in (text, other))
    matcher = difflib.SequenceMatcher(None, _plain(words), _plain(others), autojunk=False)
    for tag, low, high, *_ in matcher.get_opcodes():
        run = "".join(words[low:high])
        if tag == "equal":
            yield run, False
        elif run:
            marked = run.rstrip()
            yield marked, True
            yield run[len(marked) :], False


def _plain(words: list[str]) -> list[str]:
    """Return what words are compared by; a sharp or flat is not punctuation."""
    return [word.strip().casefold().strip(_PUNCTUATION) for word in words]


def _one_sided(has_first: bool, has_second: bool) -> Match:
    if has_first == has_second:
        return Match.NEITHER
    return Match.ONLY_FIRST if has_first else Match.ONLY_SECOND


def tonic_and_mode(key: str) -> tuple[int, str]:
    """Return the tonic in semitones above C, from 0 to 11, and the mode, which may be empty."""
    tonic, _, mode = key.partition(" ")
    return (_SEMITONES[tonic[0]] + _SHIFTS[tonic[1:]]) % 12, mode
