"""Whether fields and short versions say only what a track's captions, their prose, say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from musicflamingo_cli.text.agreement import Match, match_keys
from musicflamingo_cli.text.facts import affirmed
from musicflamingo_cli.trust.claims import Claim, Field, claims_in

_SHORTEST = 3  # letters: shorter words of the prose, such as "a", name nothing
_TEMPO_TOLERANCE = 0.5  # BPM: a field holds a whole number
_TERMS = ("genre", "language", "subgenres", "mood", "instruments")  # fields that are words of the prose
_CLAIMED_AS = {"time_signature": Field.METRE, "vocals": Field.VOCALS}


def unsupported(text: str, prose: str) -> list[str]:
    """Return what a text claims and the prose does not, as `tempo 120`; empty where it claims nothing new."""
    known = claims_in(prose)
    return [f"{claim.field} {claim.value}" for claim in claims_in(text) if not _is_known(claim, known)]


def kept_fields(fields: Mapping[str, Any], prose: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields that the prose claims, and those dropped since it does not; empty ones are in neither.

    Of a list, single values are dropped.
    """
    kept: dict[str, Any] = {}
    dropped: dict[str, Any] = {}
    for name, value in fields.items():
        if not isinstance(value, list):
            if value:
                (kept if _is_claimed(name, value, prose) else dropped)[name] = value
            continue
        values = [each for each in dict.fromkeys(value) if each]
        for each in values:
            (kept if _is_claimed(name, each, prose) else dropped).setdefault(name, []).append(each)
    return kept, dropped


def _is_claimed(name: str, value: Any, prose: str) -> bool:
    known = claims_in(prose)
    if name == "tempo_bpm":
        claim = Claim(Field.TEMPO, f"{value:g}", 0, 0, value, value)
        return _is_known(claim, known)
    if name == "key":
        return any(each.field == Field.KEY and each.value.casefold() == value.casefold() for each in known)
    if name in _CLAIMED_AS:
        return any(each.field == _CLAIMED_AS[name] and each.value == value for each in known)
    if name in _TERMS:
        return _is_word_of(value, affirmed(prose))
    return bool(claims_in(value)) and not unsupported(value, prose)  # a summary says something, and nothing new


def _is_word_of(value: str, prose: str) -> bool:
    word = value.strip()
    pattern = rf"(?<!\w){re.escape(word)}(?!\w)"
    return len(word) >= _SHORTEST and re.search(pattern, prose, re.IGNORECASE) is not None


def _is_known(claim: Claim, known: Sequence[Claim]) -> bool:
    """Whether one of the prose's claims says the same."""
    for each in known:
        if each.field != claim.field:
            continue
        if claim.field == Field.TEMPO:
            if each.low - _TEMPO_TOLERANCE <= claim.low and claim.high <= each.high + _TEMPO_TOLERANCE:
                return True
        elif each.value == claim.value or (
            claim.field == Field.KEY and match_keys(each.value, claim.value) == Match.SAME
        ):
            return True
    return False
