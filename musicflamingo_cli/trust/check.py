"""The captions of one track against what is known of it and against one another: verdicts, doubts, a score."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from musicflamingo_cli.audio.key import Key
from musicflamingo_cli.audio.tempo import Tempo
from musicflamingo_cli.trust.claims import Claim, Field, claims_in, is_quadruple
from musicflamingo_cli.trust.known import Known
from musicflamingo_cli.trust.verdicts import (
    Evidence,
    Source,
    Verdict,
    against_genres,
    against_key,
    against_length,
    against_tempo,
    against_voice,
    are_related,
    combined,
    equality,
)
from musicflamingo_cli.trust.voices import LANGUAGE_CODES, Voice

# What is left of the score where a field is contradicted. A wrong tempo is surest, and worst for a trainer.
_CONTRADICTED = {
    Field.TEMPO: 0.4,
    Field.VOCALS: 0.5,
    Field.LANGUAGE: 0.5,
    Field.GENRE: 0.5,
    Field.KEY: 0.6,
    Field.LENGTH: 0.6,
    Field.METRE: 0.7,
}
_NEAR_MISS, _NUMBER_UNKNOWN, _DOUBTED, _SHARED = 0.95, 0.9, 0.8, 0.5  # factors of the score
_NUMBERS = (Field.TEMPO, Field.KEY)
_DOUBTS = {
    Source.PRESET: "another caption disagrees",
    Source.SAMPLES: "other answers disagree",
    Source.HABIT: "said of silence and noise, too",
}


@dataclass(frozen=True, slots=True)
class CheckedClaim:
    """A claim of a preset's caption, its verdict, and what speaks for or against it."""

    preset: str
    claim: Claim
    verdict: Verdict
    evidence: tuple[Evidence, ...] = ()

    @property
    def doubts(self) -> list[Evidence]:
        """What speaks against it without deciding. What is supported is not in doubt."""
        if self.verdict in (Verdict.SUPPORTED, Verdict.OCTAVE, Verdict.RELATIVE):
            return []
        return [each for each in self.evidence if not each.source.decides and each.verdict == Verdict.CONTRADICTED]

    def reason(self) -> str:
        """Return why the claim is doubted, as one line; empty where nothing is against it."""
        what = f"{self.preset}: {self.claim.field} {self.claim.value}"
        if self.verdict == Verdict.CONTRADICTED:
            against = [each for each in self.evidence if each.verdict == Verdict.CONTRADICTED and each.source.decides]
            return f"{what} contradicted: {', '.join(f'{each.source} {each.detail}' for each in against)}"
        if doubts := self.doubts:
            return f"{what} doubtful: {', '.join(f'{_DOUBTS[each.source]} ({each.detail})' for each in doubts)}"
        return ""

    def as_json(self) -> dict[str, Any]:
        """Return the claim for sidecar and --json."""
        evidence = [{"source": each.source, "verdict": each.verdict, "detail": each.detail} for each in self.evidence]
        return {
            "field": self.claim.field,
            "value": self.claim.value,
            "verdict": self.verdict,
            **({"evidence": evidence} if evidence else {}),
        }


@dataclass(frozen=True, slots=True)
class TrackCheck:
    """All claims of a track's captions. ``shared``: preset to the number of other tracks with the same caption."""

    claims: tuple[CheckedClaim, ...]
    shared: Mapping[str, int]

    @property
    def contradicted(self) -> list[str]:
        """The presets with a contradicted claim."""
        return list(dict.fromkeys(each.preset for each in self.claims if each.verdict == Verdict.CONTRADICTED))

    @property
    def score(self) -> float:
        """How far the captions can be trusted, from 0 to 1.

        Each field counts once, with its worst claim: five captions that repeat one wrong tempo are one fault.
        """
        worst: dict[Field, float] = {}
        for each in self.claims:
            worst[each.claim.field] = min(worst.get(each.claim.field, 1.0), _factor(each))
        score = _SHARED if self.shared else 1.0
        for factor in worst.values():
            score *= factor
        return round(score, 3)

    @property
    def reasons(self) -> list[str]:
        """Why the captions are doubted, one line each; contradictions first."""
        shared = [f"{preset}: the same caption on other tracks ({number})" for preset, number in self.shared.items()]
        first = sorted(self.claims, key=lambda each: each.verdict != Verdict.CONTRADICTED)
        return list(dict.fromkeys([*filter(None, (each.reason() for each in first)), *shared]))


def _factor(checked: CheckedClaim) -> float:
    field = checked.claim.field
    if checked.verdict == Verdict.CONTRADICTED:
        return _CONTRADICTED.get(field, 0.7)
    if checked.verdict in (Verdict.OCTAVE, Verdict.RELATIVE):
        return _NEAR_MISS
    factor = _NUMBER_UNKNOWN if field in _NUMBERS and checked.verdict == Verdict.UNKNOWN else 1.0
    return factor * _DOUBTED ** len({each.source for each in checked.doubts})


def check_captions(
    captions: Mapping[str, str],
    known: Known,
    more: Mapping[str, Sequence[Evidence]] | None = None,
    shared: Mapping[str, int] | None = None,
) -> TrackCheck:
    """Check the captions of a track, by preset, and return what was found.

    ``more``: further evidence for the claims of a preset, by `preset/field/value`. ``shared``: see TrackCheck.
    """
    claims = {preset: claims_in(text) for preset, text in captions.items()}
    by_field = _by_field(claims)
    checked = []
    for preset, text in captions.items():
        in_four = is_quadruple(text)
        genres = [claim.value for claim in claims[preset] if claim.field == Field.GENRE]
        for claim in claims[preset]:
            evidence = [
                *_from_measurement(claim, known, in_four),
                *_from_essentia(claim, known, in_four),
                *_from_stated(claim, known, in_four, genres),
                *_from_others(preset, claim, by_field, in_four),
                *(more or {}).get(evidence_key(preset, claim), ()),
            ]
            checked.append(CheckedClaim(preset, claim, combined(evidence), tuple(evidence)))
    return TrackCheck(claims=tuple(checked), shared=shared or {})


def evidence_key(preset: str, claim: Claim) -> str:
    """Return the name of a claim in ``check_captions``' further evidence."""
    return f"{preset}/{claim.field}/{claim.value}"


def _from_measurement(claim: Claim, known: Known, in_four: bool) -> Iterator[Evidence]:
    measured = known.measured
    if claim.field == Field.TEMPO and measured and measured.tempo:
        tempo = measured.tempo
        detail = f"{tempo.bpm:.1f} BPM, confidence {tempo.confidence:.2f}"
        yield Evidence(Source.MEASURED, against_tempo(claim, tempo, in_four, measured.tempi), detail)
    elif claim.field == Field.KEY and measured and measured.key:
        verdict = against_key(claim.value, measured.key, measured.halves)
        yield Evidence(
            Source.MEASURED, verdict, f"{measured.key.name}, confidence {measured.key.confidence:.2f} (likely)"
        )
    elif claim.field == Field.LENGTH and known.lengths:
        detail = " or ".join(f"{each:.0f} s" for each in known.lengths)
        yield Evidence(Source.MEASURED, against_length(claim, known.lengths), detail)


def _from_essentia(claim: Claim, known: Known, in_four: bool) -> Iterator[Evidence]:
    """What essentia measured, where it is installed: it has no confidence, so it contradicts nothing."""
    opinion = known.measured.essentia if known.measured else None
    if claim.field == Field.TEMPO and opinion and opinion.bpm:
        verdict = against_tempo(claim, Tempo(bpm=opinion.bpm, confidence=1.0), in_four)
        detail = f"{opinion.bpm:.1f} BPM"
    elif claim.field == Field.KEY and opinion and opinion.key:
        verdict, detail = against_key(claim.value, Key(name=opinion.key, confidence=1.0)), opinion.key
    else:
        return
    yield Evidence(Source.ESSENTIA, Verdict.UNKNOWN if verdict == Verdict.CONTRADICTED else verdict, detail)


def _from_stated(claim: Claim, known: Known, in_four: bool, genres: Sequence[str]) -> Iterator[Evidence]:
    match claim.field:
        case Field.TEMPO if known.tempo:
            verdict, detail = against_tempo(claim, known.tempo, in_four), f"{known.tempo.bpm:g} BPM"
        case Field.KEY if known.key:
            verdict, detail = against_key(claim.value, known.key), known.key.name
        case Field.GENRE if known.genres:
            # The genres of a caption count together: "trance with a touch of folk" is no folk song.
            is_it = claim.value in known.genres
            verdict = Verdict.SUPPORTED if is_it else against_genres(genres, known.genres)
            verdict = Verdict.UNKNOWN if verdict == Verdict.SUPPORTED and not is_it else verdict
            detail = ", ".join(known.genres)
        case Field.METRE if known.metre:
            verdict, detail = equality(claim.value, known.metre), known.metre
        case Field.LANGUAGE if known.language:
            verdict, detail = _language(claim.value, known.language), known.language
        case Field.VOCALS if known.voice:
            verdict, detail = against_voice(claim.value, known.voice), "instrumental"
        case Field.LANGUAGE if known.voice == Voice.NONE:
            verdict, detail = Verdict.CONTRADICTED, "instrumental"
        case _:
            return
    yield Evidence(Source.STATED, verdict, detail)


def _language(claimed: str, stated: str) -> Verdict:
    """Other tools write names (`English`) or codes (`en`, `en-US`); what is neither says nothing."""
    if claimed.casefold() == stated.casefold():
        return Verdict.SUPPORTED
    names = {name.casefold(): code for name, code in LANGUAGE_CODES.items()}
    code = names.get(stated.casefold()) or re.split("[-_]", stated.casefold())[0]
    if claimed not in LANGUAGE_CODES or code not in LANGUAGE_CODES.values():
        return Verdict.UNKNOWN
    return equality(LANGUAGE_CODES[claimed], code)


_ByField = Mapping[Field, Mapping[str, Sequence[Claim]]]  # and by preset


def _by_field(claims: Mapping[str, Sequence[Claim]]) -> _ByField:
    found: dict[Field, dict[str, list[Claim]]] = {}
    for preset, each in claims.items():
        for claim in each:
            found.setdefault(claim.field, {}).setdefault(preset, []).append(claim)
    return found


_OPPOSITE = {Field.INSTRUMENT: Field.ABSENT, Field.ABSENT: Field.INSTRUMENT}
# The fields of which two captions can say different things.
COMPARED = (Field.TEMPO, Field.KEY, Field.METRE, Field.VOCALS, Field.LANGUAGE, Field.LENGTH)


def _from_others(preset: str, claim: Claim, by_field: _ByField, in_four: bool) -> Iterator[Evidence]:
    """What other captions of the track say: the same model, so it decides nothing."""
    if claim.field not in COMPARED and claim.field not in _OPPOSITE:
        return
    for name, claims in by_field.get(_OPPOSITE.get(claim.field, claim.field), {}).items():
        # An instrument that another caption denies, and the reverse.
        found = [each for each in claims if each.value == claim.value] if claim.field in _OPPOSITE else claims
        if name != preset and found and not any(agrees(claim, each, in_four) for each in found):
            detail = f"{name}: {', '.join(dict.fromkeys(_shown(each) for each in found))}"
            yield Evidence(Source.PRESET, Verdict.CONTRADICTED, detail)


def agrees(claim: Claim, other: Claim, in_four: bool = False) -> bool:
    """Return whether another claim of the same field can be true together with a claim."""
    match claim.field:
        case Field.TEMPO:
            other_tempo = Tempo(bpm=(other.low + other.high) / 2, confidence=1.0)
            return against_tempo(claim, other_tempo, in_four) != Verdict.CONTRADICTED
        case Field.KEY:
            return are_related(claim.value, other.value)
        case Field.VOCALS:
            return against_voice(claim.value, other.value) != Verdict.CONTRADICTED
        case Field.LENGTH:
            return against_length(claim, [other.low]) == Verdict.SUPPORTED
        case Field.METRE | Field.LANGUAGE:
            return claim.value == other.value
    return False


def _shown(claim: Claim) -> str:
    return f"no {claim.value}" if claim.field == Field.ABSENT else claim.value
