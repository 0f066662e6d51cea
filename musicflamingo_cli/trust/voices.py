"""Who sings, and in which language, as a sentence states it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum


class Voice(StrEnum):
    """The vocals of a track."""

    NONE = "none"
    MALE = "male"
    FEMALE = "female"
    SEVERAL = "several"
    PRESENT = "present"  # it is not said who sings


_SUNG = r"(?:vocals?|vocalists?|voices?|singers?|singing|lyrics|lyrical|rapp(?:er|ing|ed)|raps?|vocal element)"
_WIND = r"(?! (?:sax|saxophone|flute|recorder|clarinet|trombone|horn|drum|guitar|ukulele|banjo|clef))"
_MALE = re.compile(
    rf"\b(?:male|(?:young |old )?m[ae]n|baritone|tenor|countertenor|boys?|bass singer|frontman"
    rf"|he (?:\w+ly )?(?:sings|raps|whispers|croons|shouts|screams)"
    rf"|his (?:\w+ )?(?:voice|vocals?|falsetto|singing|delivery|verses|lyrics))\b{_WIND}",
    re.IGNORECASE,
)
_FEMALE = re.compile(
    rf"\b(?:female|wom[ae]n|girls?|(?:mezzo-)?soprano|alto|contralto|diva|songstress|frontwoman"
    rf"|she (?:\w+ly )?(?:sings|raps|whispers|croons|shouts|screams)"
    rf"|her (?:\w+ )?(?:voice|vocals?|falsetto|singing|delivery|verses|lyrics))\b{_WIND}",
    re.IGNORECASE,
)
_SEVERAL = re.compile(
    r"\b(?:choirs?|chorale|chorus of voices|duets? (?:of|between|with|for)|several (?:voices|singers|vocalists)"
    r"|(?:group|gang|ensemble|layered|massed) (?:vocals|voices)|(?:boy|girl) (?:band|group)|(?:male|female) group"
    r"|vocal (?:group|ensemble|quartet|trio|duo)|voices (?:chant|sing|answer|join|blend|alternate))\b",
    re.IGNORECASE,
)
_PRESENT = re.compile(rf"\b(?:{_SUNG}|sung|sings?|vocal (?:chops?|hook|line|sample)s?)\b", re.IGNORECASE)
_INSTRUMENTAL = re.compile(
    r"\binstrumental\b(?! (?:sections?|breaks?|passages?|interludes?|parts?|layers?|textures?|arrangements?|backing"
    r"|bridges?|solos?|hooks?|intros?|outros?|palette|elements?|accompaniment|support|bed|timbres?))",
    re.IGNORECASE,
)
_DENIABLE = re.compile(rf"\b{_SUNG}\b", re.IGNORECASE)

_LANGUAGES = (
    "English|French|German|Spanish|Italian|Portuguese|Japanese|Korean|Chinese|Mandarin|Cantonese|Russian|Arabic|Hindi"
    "|Punjabi|Tamil|Telugu|Bengali|Urdu|Turkish|Greek|Polish|Dutch|Swedish|Norwegian|Danish|Finnish|Icelandic|Hebrew"
    "|Persian|Farsi|Thai|Vietnamese|Indonesian|Tagalog|Swahili|Yoruba|Zulu|Latin|Czech|Hungarian|Romanian|Ukrainian"
    "|Serbian|Croatian|Bulgarian|Irish|Gaelic|Welsh|Catalan|Creole"
)
LANGUAGE_CODES = {  # ISO 639-1, as other tools write languages
    "Arabic": "ar",
    "Chinese": "zh",
    "English": "en",
    "French": "fr",
    "German": "de",
    "Hindi": "hi",
    "Italian": "it",
    "Japanese": "ja",
    "Korean": "ko",
    "Polish": "pl",
    "Portuguese": "pt",
    "Russian": "ru",
    "Spanish": "es",
    "Swedish": "sv",
    "Turkish": "tr",
}
_CHINESE = ("Mandarin", "Cantonese")
_ANY_LANGUAGE = re.compile(rf"\b(?:{_LANGUAGES})\b")  # quick, as most sentences name none
_LANGUAGE = re.compile(
    rf"\b(?i:sung|sings?|singing|rapped|raps|rapping|rap|vocals?|voices?|lyrics|words|verses|sonero|performed|delivered)\b"
    rf"[^.;\x00]{{0,60}}?\bin (?P<after>{_LANGUAGES})\b"
    rf"|\b(?P<before>{_LANGUAGES})(?:[ -]language|[ -]speaking)?"
    rf" (?:\w+ )?(?:lyrics|vocals?|verses|words|lines|singing|rap|lead vocals?|text)\b"
    rf"|\b(?P<named>{_LANGUAGES})-language\b",
)

_MAY_BE_ABOUT_VOICES = re.compile(  # quick: every expression above needs one of these
    r"vo[ci]|s[iu]ng|lyric|rap|male|m[ae]n\b|boy|girl|\b(?:he|she|his|her)\b|baritone|tenor|alto|soprano|diva|songstress"
    r"|front|choi?r|duet|instrumental|language"
)


def is_about_voices(sentence: str) -> bool:
    """Return whether a sentence may say something about vocals or language; cheap."""
    return bool(_MAY_BE_ABOUT_VOICES.search(sentence.lower()) or _ANY_LANGUAGE.search(sentence))


def voices_in(sentence: str, kept: str, is_of_part: bool) -> Iterator[tuple[Voice, int, int]]:
    """Yield the surest statement of a sentence about its vocals, with its limits; or none.

    ``kept``: the sentence with blanks (NUL) in place of what it denies. ``is_of_part``: it speaks of a part of the
    track only, so that silent voices there say nothing about the track.
    """
    several = _SEVERAL.search(kept)
    male, female = _MALE.search(kept), _FEMALE.search(kept)
    if several or (male and female):
        match = several or male
        assert match
        yield Voice.SEVERAL, match.start(), match.end()
    elif match := male or female:
        yield Voice.MALE if male else Voice.FEMALE, match.start(), match.end()
    elif match := _PRESENT.search(kept) or (_ANY_LANGUAGE.search(kept) and _LANGUAGE.search(kept)) or None:
        yield Voice.PRESENT, match.start(), match.end()
    elif not is_of_part:
        denied = (each for each in _DENIABLE.finditer(sentence) if kept[each.start()] == "\x00")
        if match := _INSTRUMENTAL.search(kept) or next(denied, None):
            yield Voice.NONE, match.start(), match.end()


def languages_in(kept: str) -> Iterator[tuple[str, int, int]]:
    """Yield the languages that a sentence says are sung, with their limits."""
    for match in _LANGUAGE.finditer(kept) if _ANY_LANGUAGE.search(kept) else ():
        group = next(name for name in ("after", "before", "named") if match[name])
        yield "Chinese" if match[group] in _CHINESE else match[group], match.start(group), match.end(group)
