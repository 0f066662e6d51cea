"""Tempo, key, genres, instruments and moods that captions name, for exports, reports and comparisons.

These are statements of the model, not measurements. What a caption denies ("no drums") it does not name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from musicflamingo_cli.paths import data_file

SLOWEST, FASTEST = 30, 300  # beats per minute; other numbers are not taken for a tempo
_CONTEXT = 80  # characters before a tempo or key that are looked at
_LONGEST_SUBJECT = 400  # characters of a sentence before "are absent" that are looked at
_WIDEST_RANGE = 1.2  # "between 120 and 125 BPM" is one tempo, "from 70 to 140 BPM" is not

_NUMBER = r"(?<![\d.,:/])(\d{2,3}(?:\.\d+)?)(?![\d:/%])"
_RANGE = rf"{_NUMBER}(?:\s*(?:-|–|—|to|and|or)\s*{_NUMBER})?"
_UNIT = r"(?:b\.?p\.?m\b|beats[ -](?:per|a)[ -]minute)"
_LEAD = (
    r"\b(?:BPM|tempo|quarter[ -]note)\b(?: (?:of|is|at|set|sits|to|in|the|a|an|exactly|around|about|near"
    r"|approximately|roughly|between|steady|fixed))*\s*[:=~≈(]?\s*[~≈]?"
)
_TEMPO = re.compile(rf"{_RANGE}[\s-]*{_UNIT}|{_LEAD}{_RANGE}", re.IGNORECASE)

_ACCIDENTAL = r"[ -]?(?:sharp|flat)\b|[ -]?[#♯♭]|b(?![a-z])"
_KEY = re.compile(
    rf"(?<![\w#♯♭'’&])(?P<letter>[A-G])(?P<accidental>{_ACCIDENTAL})?[ -]*(?:(?:natural|harmonic|melodic)[ -])?"
    r"(?P<mode>major|minor|maj|min|ionian|dorian|phrygian|lydian|mixolydian|aeolian|locrian)\b"
    r"(?![ -]*(?:chord|triad|seventh|ninth|\d))",
    re.IGNORECASE,
)
# "The key of G", "Key: F#m", "in Am".
_SHORT_KEY = re.compile(
    rf"(?:\b[Kk]ey(?: signature)?(?: of| is| in|:| =| -|)\s|\b[Ii]n )(?P<letter>[A-G])(?P<accidental>{_ACCIDENTAL})?"
    r"(?P<mode>m)?(?![\w#♯♭'’])"
)
_BEFORE_A_KEY = re.compile(
    r"\b(?:key|tonality|tonal cent(?:er|re))(?: (?:signature|of|is|in|the|likely|probably|clearly|appears|seems|to|be"
    r"|around))*\s*[:=–-]?\s*$",
    re.IGNORECASE,
)
# "Chords of A minor, F and C": in such a list keys are chords, unless one is called a key or is what the music is in.
_CHORDS_BEFORE = re.compile(r"\bchords?\b[^.;:()]*$", re.IGNORECASE)
_IN = re.compile(r"\bin(?: the)?\s+$", re.IGNORECASE)
_MODES = {"maj": "major", "ionian": "major", "min": "minor", "m": "minor", "aeolian": "minor", None: ""}
_SIGNS = {"sharp": "#", "♯": "#", "flat": "b", "♭": "b"}

# A denial holds in the rest of its clause, and in a whole list: "without drums, bass or vocals".
_NEW_CLAUSE = (
    r"\b(?:but|however|while|whereas|although|though|yet|except|only|with|featuring|because|as|it|there (?:is|are)"
    r"|and (?:the|there)"
    r"|leaves|leaving|lets|letting|makes|making|gives|giving)\b"
)
_CLAUSE = rf"(?:(?!{_NEW_CLAUSE})[^.;,:!?()—])*"
_PHRASE = rf"(?!{_NEW_CLAUSE})[\w'’&/-]+(?: (?!{_NEW_CLAUSE})[\w'’&/-]+){{0,3}}"
_DENIAL = (
    r"\b(?:no|not|never|neither|without|lacks?|lacking|devoid of|free of|absence of|lack of|instead of|rather than"
    r"|excluding|cannot|(?<!not )unlike|\w+n['’]t)\b(?! (?:only|just|merely|simply|unlike|(?:a )?doubt))"
)
_END_OF_LIST = rf"(?:(?: {_PHRASE})? (?:or|nor) {_CLAUSE}| and {_PHRASE}(?=[.;,!?)]|$))"
_DENIED = re.compile(rf"{_DENIAL}(?:(?: {_PHRASE},){{1,8}}{_END_OF_LIST}|{_CLAUSE})", re.IGNORECASE)
_DENIED_BEFORE = re.compile(  # "not in the key of", but not the drums of "no drums at 90 BPM"
    rf"{_DENIAL}(?: (?:in|at|to|of|be|the|an?|sound|feel|seem|run|reach|like|exactly|really|strictly|about|around"
    r"|usual|typical|tempo|key))*\s*$",
    re.IGNORECASE,
)
# "Drums and bass are absent."
_ABSENT = re.compile(
    r"\b(?:is|are|remains?) (?:\w+ly )?(?:absent|missing|not (?:present|used|heard|audible|featured|included))\b",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(rf"[.;:!?()—]|{_NEW_CLAUSE}", re.IGNORECASE)
_CLAUSE_END = re.compile(rf"[.;,:!?()—]|{_NEW_CLAUSE}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a caption names: ``tempo`` in beats per minute or None, ``key`` as `F# minor`; empty where it names none."""

    tempo: float | None
    key: str
    genres: tuple[str, ...]
    instruments: tuple[str, ...]
    moods: tuple[str, ...]


class TermKind(StrEnum):
    """The kinds of terms in configs/words.yaml."""

    GENRE = "genres"
    INSTRUMENT = "instruments"
    MOOD = "moods"


@dataclass(frozen=True, slots=True)
class Term:
    """A genre, instrument or mood and where a text mentions it: ``text[start:end]``."""

    kind: TermKind
    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class TempoMention:
    """A tempo from ``low`` to ``high`` beats per minute (often the same), and where a text mentions its numbers."""

    low: float
    high: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class KeyMention:
    """A key as ``key_of`` returns it, and where a text mentions it."""

    name: str
    start: int
    end: int


def facts_in(caption: str) -> Facts:
    """Return what one caption names; each term once, in order of appearance, without denied ones.

    >>> facts_in("A dark techno track at 128 BPM in F# minor with synths, a kick drum and a synth bass.")
    Facts(tempo=128.0, key='F# minor', genres=('techno',), instruments=('synth', 'kick drum', 'bass'), moods=('dark',))
    """
    named: dict[TermKind, dict[str, None]] = {kind: {} for kind in TermKind}
    for term in terms_in(affirmed(caption)):
        named[term.kind][term.name] = None
    return Facts(
        tempo=tempo_of(caption),
        key=key_of(caption),
        genres=tuple(named[TermKind.GENRE]),
        instruments=tuple(named[TermKind.INSTRUMENT]),
        moods=tuple(named[TermKind.MOOD]),
    )


def tempo_of(caption: str) -> float | None:
    """Return the first tempo that a caption names, in beats per minute, or None.

    The tempo of a narrow range (`between 120 and 125 BPM`) is its middle, that of a wide one its first number.
    """
    mention = next(tempi_in(caption), None)
    if mention is None:
        return None
    return (mention.low + mention.high) / 2 if is_one_tempo(mention) else mention.low


def is_one_tempo(mention: TempoMention) -> bool:
    """Return whether a range is so narrow that it means one tempo, not a change."""
    return mention.high <= _WIDEST_RANGE * mention.low


def tempi_in(caption: str) -> Iterator[TempoMention]:
    """Yield the tempi that a caption names, in order, without denied ones."""
    for match in _TEMPO.finditer(caption):
        groups = [group for group, number in enumerate(match.groups(), 1) if number]
        groups = [group for group in groups if SLOWEST <= float(match[group]) <= FASTEST]
        if groups and _is_affirmed(match):
            tempi = [float(match[group]) for group in groups]
            if tempi[-1] < tempi[0]:  # it slows down: the first counts
                del tempi[1:], groups[1:]
            yield TempoMention(tempi[0], tempi[-1], match.start(groups[0]), match.end(groups[-1]))


def key_of(caption: str) -> str:
    """Return the key that a caption names, as `C# minor`, `D dorian`, or `G` without a mode; empty where there is none.

    It is spelt as in the caption. What is called a key counts before other mentions (chords, modulations).
    """
    mentions = keys_in(caption)
    return mentions[0].name if mentions else ""


def keys_in(caption: str) -> list[KeyMention]:
    """Return the key that a caption names (see ``key_of``), once for each place where it does."""
    named = list(_keys_in(caption))
    called = [match for match in named if _is_called_key(match)]
    short = [match for match in _SHORT_KEY.finditer(caption) if _is_affirmed(match) and _is_key(match)]
    mentions = [_mention(match) for match in (*called, *short, *named)]
    return list({each.start: each for each in mentions if each.name == mentions[0].name}.values())


def _mention(match: re.Match[str]) -> KeyMention:
    sign = (match["accidental"] or "").strip(" -").lower()
    mode = match["mode"] and match["mode"].lower()
    name = f"{match['letter'].upper()}{_SIGNS.get(sign, sign)} {_MODES.get(mode, mode)}".rstrip()
    return KeyMention(name, match.start("letter"), match.end())


def _keys_in(caption: str) -> Iterator[re.Match[str]]:
    """Yield the keys with a mode that a caption names; `a minor detail` and `A minor detail` are none."""
    for match in _KEY.finditer(caption):
        if _is_affirmed(match) and not _is_article(match) and not _is_chord(match):
            yield match


def _is_chord(match: re.Match[str]) -> bool:
    """Return whether a key is one of the chords that the text before it begins to list."""
    before = _before(match)
    return bool(_CHORDS_BEFORE.search(before)) and not _IN.search(before) and not _is_called_key(match)


def _is_article(match: re.Match[str]) -> bool:
    """Return whether the letter of a key is the word `a`, which has a capital where it begins a sentence."""
    if match["letter"] not in "Aa" or match["accidental"] or "-" in match[0] or _is_called_key(match):
        return False
    before = _before(match).rstrip()
    return match["letter"] == "a" or not before or before[-1] in ".!?"


def _is_key(match: re.Match[str]) -> bool:
    """Return whether a short key is one: after a mere `in` it needs the `m` of a minor key."""
    return bool(match["mode"]) or not match[0].lower().startswith("in ")


def _is_affirmed(match: re.Match[str]) -> bool:
    return not _DENIED_BEFORE.search(_before(match))


def _is_called_key(match: re.Match[str]) -> bool:
    return bool(_BEFORE_A_KEY.search(_before(match)))


def _before(match: re.Match[str]) -> str:
    """Return the text before a match, as much of it as can concern it: so the time is linear in a text's length."""
    return match.string[max(0, match.start() - _CONTEXT) : match.start()]


def affirmed(caption: str) -> str:
    """Return a caption with blanks in place of what it denies: as long as before, so that positions stay."""
    pieces, position = [], 0
    for match in _ABSENT.finditer(caption):
        first = max(position, match.start() - _LONGEST_SUBJECT)
        subject = caption[first : match.start()]
        end = _SENTENCE_END if re.search(r", (?:and|or) [^,]*$", subject) else _CLAUSE_END
        start = first + max((found.end() for found in end.finditer(subject)), default=0)
        pieces += [caption[position:start], _blank(match.end() - start)]
        position = match.end()
    caption = "".join([*pieces, caption[position:]])
    return _DENIED.sub(lambda match: _blank(len(match[0])), caption)


def _blank(length: int) -> str:
    """Return a text of this length that no expression reads on across: denials end at it."""
    return "\x00" * length


def terms_in(text: str) -> Iterator[Term]:
    """Yield the terms that a text mentions, in order. Of terms that overlap, the longest counts."""
    pattern, counted_as = _vocabulary()
    for match in pattern.finditer(lower_case(text)):  # several times faster than a pattern that ignores case
        kind, name = counted_as[match[0]]
        yield Term(kind, name, match.start(), match.end())


def lower_case(text: str) -> str:
    """Return a text in lower case, as long as before: letters that would become two stay."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in text)


@functools.cache
def _vocabulary() -> tuple[re.Pattern[str], dict[str, tuple[TermKind, str]]]:
    """Return a pattern that matches any term, and kind and name of each match."""
    import yaml

    kinds = yaml.safe_load(data_file("configs", "words.yaml").read_text(encoding="utf-8"))
    counted_as: dict[str, tuple[TermKind, str]] = {}
    for kind, entries in kinds.items():
        for entry in entries:  # terms, or mappings of terms to the name they count as
            for word, name in (entry if isinstance(entry, dict) else {entry: entry}).items():
                counted_as[str(word).lower()] = (TermKind(kind), str(name))
    longest_first = sorted(counted_as, key=lambda word: (-len(word), word))
    one_of = "|".join(map(re.escape, longest_first))
    return re.compile(rf"(?<![\w-])(?:{one_of})(?![\w-])"), counted_as
