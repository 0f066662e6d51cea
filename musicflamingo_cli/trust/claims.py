"""What a caption claims of its track, typed, each claim with its place in the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from musicflamingo_cli.text.facts import TermKind, affirmed, keys_in, lower_case, tempi_in, terms_in
from musicflamingo_cli.trust import voices
from musicflamingo_cli.trust.lengths import lengths_in


class Field(StrEnum):
    """What a claim is about."""

    TEMPO = "tempo"
    KEY = "key"
    METRE = "metre"
    LENGTH = "length"
    GENRE = "genre"
    INSTRUMENT = "instrument"
    ABSENT = "absent"  # an instrument that is denied
    VOCALS = "vocals"
    LANGUAGE = "language"
    MOOD = "mood"


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim at ``caption[start:end]``.

    ``value``: `120` or `80-120` (BPM), `F# minor`, `3/4`, seconds, a term of configs/words.yaml, a value of
    ``voices.Voice``, or a language. ``low`` and ``high``: a tempo's limits in BPM, a length in seconds; else 0.
    """

    field: Field
    value: str
    start: int
    end: int
    low: float = 0.0
    high: float = 0.0


_OF_TERMS = {TermKind.GENRE: Field.GENRE, TermKind.INSTRUMENT: Field.INSTRUMENT, TermKind.MOOD: Field.MOOD}

_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+")
# A claim about a part of a track is none about the track: "the intro has no drums".
_PART = re.compile(
    r"\b(?:intro|introduction|outro|verses?|choruse?s?|refrain|bridge|breakdown|break|drop|section|passage|interlude"
    r"|bars?|until|at first|initially|at the end|beginning|opening|ending|coda|halfway|moments?|before|after)\b",
    re.IGNORECASE,
)

# Of text in lower case, which is faster than a pattern that ignores case.
_METRE = re.compile(
    r"(?<![\d/.])(?P<number>[2-9]|1[0-9])/(?P<unit>2|4|8|16)(?![\d/]|\s+of\b)"
    r"|\b(?P<name>common[ -]time|cut[ -]time|alla breve|four[ -]four|waltz[ -]time|three[ -](?:four|quarter)"
    r"|triple (?:meter|metre|time)|six[ -]eight)\b",
)
_METRE_NAMES = {
    "common time": "4/4",
    "four four": "4/4",
    "cut time": "2/2",
    "alla breve": "2/2",
    "six eight": "6/8",
}  # all others are 3/4
# Beats and genres that are in four, so that a tempo 3/2 times another cannot mean the same music.
_QUADRUPLE = re.compile(
    r"\b(?:4/4|common[ -]time|four[ -]four|four[ -](?:on|to)[ -]the[ -]floor|back[ -]?beat|two and four|2 and 4"
    r"|half[ -]time drums|breakbeat|techno|house|trance|disco|drum and bass|dubstep|edm|eurodance|hip[ -]hop)\b",
)
_OTHER_METRE = re.compile(r"\b(?:3/4|6/8|9/8|12/8|5/4|7/8|waltz|triplets?|swing|swung|shuffle)\b")


def claims_in(caption: str) -> list[Claim]:
    """Return what a caption claims, in the order of the text.

    >>> [(claim.field.value, str(claim.value)) for claim in claims_in("House in A minor at 124 BPM; no vocals.")]
    [('genre', 'house'), ('key', 'A minor'), ('tempo', '124'), ('absent', 'vocals'), ('vocals', 'none')]
    """
    kept = affirmed(caption)
    found = [*_tempi(caption), *_key(caption), *_metre(kept), *_terms(caption, kept)]
    for first, last in sentence_spans(caption):
        for seconds, start, end in lengths_in(caption[first:last]):
            if not _PART.search(caption, first, first + start):  # "the intro lasts 20 seconds"
                found.append(Claim(Field.LENGTH, f"{seconds:g}", first + start, first + end, seconds, seconds))
        if not voices.is_about_voices(caption[first:last]):
            continue
        is_of_part = bool(_PART.search(caption, first, last))
        for voice, start, end in voices.voices_in(caption[first:last], kept[first:last], is_of_part):
            found.append(Claim(Field.VOCALS, voice, first + start, first + end))
        for language, start, end in voices.languages_in(kept[first:last]):
            found.append(Claim(Field.LANGUAGE, language, first + start, first + end))
    return sorted(_without_repeats(found), key=lambda claim: claim.start)


def is_quadruple(caption: str) -> bool:
    """Return whether a caption says that its music is in 4/4, by name or by its beat, and in nothing else."""
    lower = caption.lower()
    return bool(_QUADRUPLE.search(lower)) and not _OTHER_METRE.search(lower)


def sentence_spans(caption: str) -> Iterator[tuple[int, int]]:
    """Yield the limits of the sentences (and of parts between semicolons), without the space between them."""
    start = 0
    for match in _SENTENCE_END.finditer(caption):
        if start < match.start():
            yield start, match.start()
        start = match.end()
    if start < len(caption):
        yield start, len(caption)


def _tempi(caption: str) -> Iterator[Claim]:
    for mention in tempi_in(caption):
        value = f"{mention.low:g}" if mention.low == mention.high else f"{mention.low:g}-{mention.high:g}"
        yield Claim(Field.TEMPO, value, mention.start, mention.end, mention.low, mention.high)


def _key(caption: str) -> Iterator[Claim]:
    """The key; not those of modulations and chords."""
    for mention in keys_in(caption):
        yield Claim(Field.KEY, mention.name, mention.start, mention.end)


def _metre(kept: str) -> Iterator[Claim]:
    """The first metre: later ones are those of single bars or parts."""
    if match := _METRE.search(lower_case(kept)):
        value = f"{match['number']}/{match['unit']}"
        if match["name"]:
            value = _METRE_NAMES.get(match["name"].replace("-", " "), "3/4")
        yield Claim(Field.METRE, value, match.start(), match.end())


def _terms(caption: str, kept: str) -> Iterator[Claim]:
    """Genres, instruments and moods that are affirmed, and instruments that are denied for the whole track."""
    for term in terms_in(kept):
        yield Claim(_OF_TERMS[term.kind], term.name, term.start, term.end)
    if "\x00" not in kept:
        return
    for first, last in sentence_spans(caption):
        if "\x00" not in kept[first:last] or _PART.search(caption, first, last):
            continue
        for term in terms_in(caption[first:last]):
            if term.kind == TermKind.INSTRUMENT and kept[first + term.start] == "\x00":
                yield Claim(Field.ABSENT, term.name, first + term.start, first + term.end)


def _without_repeats(claims: list[Claim]) -> Iterator[Claim]:
    """Each value of a field once, but every tempo and key: one that is repeated is replaced in each place."""
    seen: set[tuple[Field, str]] = set()
    for claim in claims:
        if claim.field in (Field.TEMPO, Field.KEY) or (claim.field, claim.value) not in seen:
            seen.add((claim.field, claim.value))
            yield claim
