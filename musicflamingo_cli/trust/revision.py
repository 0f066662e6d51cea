"""Captions without what is contradicted: its sentences removed, or its tempo and key replaced by known ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from musicflamingo_cli.text.cleaning import sentence_limits
from musicflamingo_cli.trust.check import CheckedClaim, TrackCheck
from musicflamingo_cli.trust.claims import Claim, Field
from musicflamingo_cli.trust.known import Known
from musicflamingo_cli.trust.verdicts import Verdict

SURE_TEMPO, SURE_KEY = (
    0.12,
    0.2,
)  # confidences from which a measurement may replace a claim; twice those that contradict

_PLAIN_RANGE = re.compile(r"\d[\d.]*\s*[-–—]\s*\d[\d.]*")  # not "120 and 125", whose "between" would be left
_ARTICLE = re.compile(r"\b(an?)([ ~≈]+)$", re.IGNORECASE)
_VOWEL = re.compile(r"8|1[18](?!\d)|[AEF]", re.IGNORECASE)  # "an 88", "an 18", "an F": spoken with a vowel first
# A sentence that begins so refers to the one before it.
_CONNECTIVE = re.compile(r"(?:However|Nevertheless|Nonetheless|Still|Yet|But|And|Instead|In contrast|By contrast),?\s+")
_OCTAVES = (0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class Revision:
    """A caption as it may be used: empty where nothing is left. ``changes``: what was changed, for a person."""

    text: str
    changes: tuple[str, ...] = ()


def revise(preset: str, caption: str, check: TrackCheck, known: Known, *, strike: bool, correct: bool) -> Revision:
    """Return a preset's caption without its contradicted claims.

    ``correct``: replace a contradicted tempo or key by the known one, where that is sure. ``strike``: remove the
    sentences of contradicted claims that are not replaced.
    """
    claims = [each for each in check.claims if each.preset == preset]
    wrong = [each.claim for each in claims if each.verdict == Verdict.CONTRADICTED]
    replaced = _replacements(caption, claims, known) if correct else {}
    struck = _sentences_of([claim for claim in wrong if claim not in replaced], caption) if strike else []
    edits = [(first, last, "") for first, last in struck]
    changes = [f"removed: {caption[first:last].strip()}" for first, last in struck]
    for claim, text in replaced.items():
        if not any(first <= claim.start < last for first, last in struck):
            edits.append((claim.start, claim.end, text))
            changes.append(f"{claim.field} {caption[claim.start : claim.end]} -> {text}")
    return Revision(_edited(caption, sorted(edits, reverse=True)), tuple(changes)) if edits else Revision(caption)


def _sentences_of(claims: Sequence[Claim], caption: str) -> list[tuple[int, int]]:
    """Return the limits of the sentences with these claims."""
    return [
        (first, last) for first, last in sentence_limits(caption) if any(first <= each.start < last for each in claims)
    ]


def _replacements(caption: str, claims: Sequence[CheckedClaim], known: Known) -> dict[Claim, str]:
    """Return what takes the place of each contradicted tempo and key that can be replaced."""
    found: dict[Claim, str] = {}
    tempi = [each for each in claims if each.claim.field == Field.TEMPO]
    bpm = sure_tempo(known)
    # Where another tempo of the caption is right, two equal ones would be left: "at 95 BPM, felt at 95 BPM".
    if bpm and tempi and all(each.verdict == Verdict.CONTRADICTED for each in tempi):
        first = tempi[0].claim
        for claim in (each.claim for each in tempi):
            ratio = claim.low / first.low
            if ratio in _OCTAVES and _is_plain_number(claim, caption):
                found[claim] = f"{round(bpm * ratio)}"
    key = sure_key(known)
    for each in claims:
        if key and each.claim.field == Field.KEY and each.verdict == Verdict.CONTRADICTED:
            found[each.claim] = key
    return found


def sure_tempo(known: Known) -> float | None:
    """Return the tempo that may be written for a track, in BPM: a stated one, or one measured with high confidence."""
    if known.tempo:
        return known.tempo.bpm
    tempo = known.measured.tempo if known.measured else None
    return tempo.bpm if tempo and tempo.confidence >= SURE_TEMPO else None


def sure_key(known: Known) -> str | None:
    """Return the key that may be written for a track: a stated one, or one measured with high confidence."""
    if known.key:
        return known.key.name
    key = known.measured.key if known.measured else None
    return key.name if key and key.confidence >= SURE_KEY else None


def _is_plain_number(claim: Claim, caption: str) -> bool:
    return claim.low == claim.high or bool(_PLAIN_RANGE.fullmatch(caption, claim.start, claim.end))


def _edited(caption: str, edits: Sequence[tuple[int, int, str]]) -> str:
    """Apply edits, the last one first; the text after a removed sentence does not refer to it."""
    for first, last, text in edits:
        before, after = caption[:first], caption[last:]
        if text:
            before = _ARTICLE.sub(lambda match, text=text: _article(match, text), before)  # type: ignore[misc]
        elif connective := _CONNECTIVE.match(after.lstrip()):
            rest = after.lstrip()[connective.end() :]
            after = rest[:1].upper() + rest[1:]
        caption = f"{before}{text}{after}"
    return " ".join(caption.split())


def _article(match: re.Match[str], word: str) -> str:
    article = "an" if _VOWEL.match(word) else "a"
    return f"{article.capitalize() if match[1][0].isupper() else article}{match[2]}"
