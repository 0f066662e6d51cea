"""One claim against what is known of a track: the rules, which gave no false alarm where they were measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from musicflamingo_cli.audio.key import Key
from musicflamingo_cli.audio.tempo import Tempo
from musicflamingo_cli.text.agreement import tonic_and_mode
from musicflamingo_cli.trust.claims import Claim
from musicflamingo_cli.trust.measured import Measured
from musicflamingo_cli.trust.voices import Voice


class Verdict(StrEnum):
    """How a claim stands to what is known."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    OCTAVE = "octave"  # half or double the tempo, another ratio that beats can have, or it fits a half of the track
    RELATIVE = "relative"  # the relative or parallel key, or one a fifth away
    UNKNOWN = "unknown"


class Source(StrEnum):
    """What a claim is compared with. Only the first three decide; the others are of the same model."""

    MEASURED = "measured"
    ESSENTIA = "essentia"  # a second opinion, which can only support
    STATED = "stated"  # by the sidecar's values or the file's tags
    PRESET = "preset"  # another caption of the track
    SAMPLES = "samples"  # other answers to the same prompt
    HABIT = "habit"  # what the model answers about silence and noise

    @property
    def decides(self) -> bool:
        """Whether it can support or contradict a claim; else it only gives doubt."""
        return self in (Source.MEASURED, Source.ESSENTIA, Source.STATED)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one source says of a claim; ``detail`` for a person, such as `95.1 BPM, confidence 0.31`."""

    source: Source
    verdict: Verdict
    detail: str


TEMPO_CONFIDENCE = 0.06  # below it, a measured tempo says nothing
KEY_CONFIDENCE = 0.10
_TOLERANCE = 0.04  # of a tempo
_OCTAVES = (2.0, 0.5, 3.0, 1 / 3)
_TRIPLETS = (1.5, 2 / 3)  # in 6/8 and 3/4; in 4/4 they are other tempi
_LENGTH_TOLERANCE, _SHORTEST_DIFFERENCE = 0.1, 5.0  # share, seconds
_MAJOR_MODES = {"lydian": 5, "mixolydian": 7, "major": 0}  # mode to semitones above its parent scale's tonic
_MINOR_MODES = {"dorian": 2, "phrygian": 4, "locrian": 11, "minor": 9}

# Genres that one record can reasonably be called by. Those of no family agree with all.
_FAMILIES = (
    "ambient|breakbeat|chillout|chiptune|deep house|downtempo|drone|drum and bass|dub|dubstep|EDM|electro|electronic"
    "|electronica|future bass|garage|hardcore|hardstyle|house|IDM|industrial|jungle|minimal|progressive house|psytrance"
    "|synth-pop|synthwave|tech house|techno|trance|trap|trip hop|vaporwave|disco|dance-pop",
    "alternative rock|death metal|grunge|hard rock|hardcore|heavy metal|indie pop|indie rock|industrial|metal|new wave"
    "|post-punk|post-rock|progressive rock|psychedelic rock|punk|rock|shoegaze|ska|thrash metal|blues",
    "acid jazz|blues|funk|gospel|neo-soul|R&B|soul|disco|jazz|hip hop|swing",
    "hip hop|rap|trap|lo-fi|trip hop|R&B",
    "acid jazz|bebop|bossa nova|jazz|swing|blues",
    "classical|opera|orchestral|ambient|new age|drone",
    "acoustic|bluegrass|country|flamenco|folk|blues|world music",
    "bossa nova|flamenco|latin|reggaeton|salsa|samba|world music",
    "dancehall|dub|reggae|ska|reggaeton",
)


def sure_of(measured: Measured) -> tuple[Tempo | None, Key | None]:
    """Return the measured tempo and key, each only where it is sure enough to contradict a claim."""
    tempo, key = measured.tempo, measured.key
    return (
        tempo if tempo and tempo.confidence >= TEMPO_CONFIDENCE else None,
        key if key and key.confidence >= KEY_CONFIDENCE else None,
    )


def against_tempo(claim: Claim, tempo: Tempo, in_four: bool, halves: Sequence[float | None] = ()) -> Verdict:
    """Return how a claimed tempo stands to a known one.

    ``in_four``: the caption says that its music is in 4/4. ``halves``: the tempo of each half of the track.
    """
    if tempo.confidence < TEMPO_CONFIDENCE:
        return Verdict.UNKNOWN
    if _is_within(claim, tempo.bpm):
        return Verdict.SUPPORTED
    ratios = _OCTAVES if in_four else (*_OCTAVES, *_TRIPLETS)
    known = [tempo.bpm, *(each for each in halves if each)]
    fits = any(_is_within(claim, bpm * ratio) for bpm in known for ratio in (1.0, *ratios))
    return Verdict.OCTAVE if fits else Verdict.CONTRADICTED


def _is_within(claim: Claim, bpm: float) -> bool:
    return claim.low * (1 - _TOLERANCE) <= bpm <= claim.high * (1 + _TOLERANCE)


def against_key(claimed: str, key: Key, halves: Sequence[str | None] = ()) -> Verdict:
    """Return how a claimed key stands to a known one; ``halves``: the key of each half of the track."""
    if key.confidence < KEY_CONFIDENCE:
        return Verdict.UNKNOWN
    if match_names(claimed, key.name):
        return Verdict.SUPPORTED
    known = [key.name, *filter(None, halves)]
    return Verdict.RELATIVE if any(are_related(claimed, each) for each in known) else Verdict.CONTRADICTED


def match_names(claimed: str, known: str) -> bool:
    """Return whether two keys are the same, also as `Db minor` and `C# minor`; one without a mode fits both."""
    (tonic, mode), (other, other_mode) = _major_or_minor(claimed), _major_or_minor(known)
    return tonic == other and (not mode or not other_mode or mode == other_mode)


def are_related(claimed: str, known: str) -> bool:
    """Return whether two keys are the same, relative, parallel or a fifth apart, in any reading of their modes."""
    (tonic, mode), (other, other_mode) = _major_or_minor(claimed), _major_or_minor(known)
    apart = (tonic - other) % 12
    is_fifth = apart in (5, 7) and (not mode or not other_mode or mode == other_mode)
    return apart == 0 or is_fifth or bool(_scales(claimed) & _scales(known))


def _major_or_minor(name: str) -> tuple[int, str]:
    tonic, mode = tonic_and_mode(name)
    return tonic, "major" if mode in _MAJOR_MODES else "minor" if mode in _MINOR_MODES else ""


def _scales(name: str) -> set[int]:
    """Return the tonics of the major scales whose notes a key may have."""
    tonic, mode = tonic_and_mode(name)
    shifts = {**_MAJOR_MODES, **_MINOR_MODES}
    return {(tonic - shifts[each]) % 12 for each in ([mode] if mode in shifts else ["major", "minor"])}


def against_length(claim: Claim, lengths: Sequence[float]) -> Verdict:
    """Return how a claimed length stands to those of the track and of what the model got of it, in seconds."""
    if not lengths:
        return Verdict.UNKNOWN
    fits = (abs(claim.low - each) <= max(_SHORTEST_DIFFERENCE, _LENGTH_TOLERANCE * each) for each in lengths)
    return Verdict.SUPPORTED if any(fits) else Verdict.CONTRADICTED


def against_genres(claimed: Sequence[str], stated: Sequence[str]) -> Verdict:
    """Return how all genres of a caption stand to those stated: contradicted where no two are of one family."""
    if set(claimed) & set(stated):
        return Verdict.SUPPORTED
    ours, theirs = list(_families(claimed)), list(_families(stated))
    if not ours or not theirs or not all(ours) or not all(theirs):
        return Verdict.UNKNOWN
    is_same = any(one & other for one in ours for other in theirs)
    return Verdict.UNKNOWN if is_same else Verdict.CONTRADICTED


def _families(genres: Sequence[str]) -> Iterator[set[int]]:
    for genre in genres:
        yield {number for number, members in enumerate(_FAMILIES) if genre in members.split("|")}


def against_voice(claimed: str, stated: str) -> Verdict:
    """Return how a statement about the vocals stands to another one; values of ``Voice``."""
    if claimed == stated:
        return Verdict.SUPPORTED
    if Voice.NONE in (claimed, stated) or {claimed, stated} == {Voice.MALE, Voice.FEMALE}:
        return Verdict.CONTRADICTED
    return Verdict.SUPPORTED if stated == Voice.PRESENT else Verdict.UNKNOWN


def equality(claimed: str, stated: str) -> Verdict:
    """Return whether two plain values are the same."""
    return Verdict.SUPPORTED if claimed.casefold() == stated.casefold() else Verdict.CONTRADICTED


def combined(evidence: Sequence[Evidence]) -> Verdict:
    """Return the verdict of all that decides. What anything supports is never contradicted."""
    found = {each.verdict for each in evidence if each.source.decides}
    if {Verdict.SUPPORTED, Verdict.CONTRADICTED} <= found:
        return Verdict.UNKNOWN  # the sources contradict one another
    for verdict in (Verdict.SUPPORTED, Verdict.OCTAVE, Verdict.RELATIVE, Verdict.CONTRADICTED):
        if verdict in found:
            return verdict
    return Verdict.UNKNOWN
