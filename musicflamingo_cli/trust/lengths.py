"""The length of a track as a text states it."""

from __future__ import annotations

import re
from collections.abc import Iterator

_WORDS = {
    word: number
    for number, word in enumerate(
        ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"], 1
    )
} | {"fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "forty-five": 45, "sixty": 60, "ninety": 90}
_NUMBER = rf"(?:\d+(?:\.\d+)?|{'|'.join(sorted(_WORDS, key=len, reverse=True))})"
_TIME = (
    rf"(?<![\d:.])(?:(?P<clock>\d{{1,2}}):(?P<rest>[0-5]\d)(?![\d:])"
    rf"|(?P<minutes>{_NUMBER})(?P<half> and a half)?[ -]min(?:ute)?s?\b"
    rf"(?:,? (?:and )?(?P<more>{_NUMBER})[ -]sec(?:ond)?s?\b)?"
    rf"|(?P<seconds>{_NUMBER})[ -](?:sec(?:ond)?s?\b|s\b))"
)
_ABOUT = (
    r"(?:a |an |for |of |is |at |only |just |about |around |roughly |approximately |nearly |some |almost |under"
    r" |over )*"
)
_BEFORE = re.compile(
    rf"\b(?:lasts?|lasting|runs?|running(?: for| time)?|(?:duration|length)(?: of [\w ]{{1,20}}?)?|spans?|spanning"
    rf"|clock(?:s|ing) in at)\s*[:=]?\s*{_ABOUT}$",
    re.IGNORECASE,
)
_AFTER = re.compile(
    r"[ -]*(?:long\b|in length|in duration|duration\b|running time|(?:\w+ ){0,2}?"
    r"(?:loop|clip|excerpt|snippet|track|song|piece|jingle|recording|sample|epic|composition|instrumental)\b)",
    re.IGNORECASE,
)
_TIME_PATTERN = re.compile(_TIME, re.IGNORECASE)
_MAY_HAVE_ONE = re.compile(r"\d:[0-5]\d|[ -](?:min(?!or)|sec|s\b)", re.IGNORECASE)  # quick, as most sentences have none
_CONTEXT = 60  # characters before a time that are looked at


def lengths_in(sentence: str) -> Iterator[tuple[float, int, int]]:
    """Yield lengths in seconds with their limits in the text; positions in a track (`at 1:04`) are none."""
    if not _MAY_HAVE_ONE.search(sentence):
        return
    for match in _TIME_PATTERN.finditer(sentence):
        before = sentence[max(0, match.start() - _CONTEXT) : match.start()]
        if _BEFORE.search(before) or _AFTER.match(sentence, match.end()):
            yield _seconds(match), match.start(), match.end()
            return  # what follows is a place in it


def _seconds(match: re.Match[str]) -> float:
    if match["clock"]:
        return 60.0 * int(match["clock"]) + int(match["rest"])
    if match["seconds"]:
        return _number(match["seconds"])
    return 60.0 * (_number(match["minutes"]) + (0.5 if match["half"] else 0.0)) + _number(match["more"] or "0")


def _number(text: str) -> float:
    return float(_WORDS[text.lower()]) if text.lower() in _WORDS else float(text)
