"""What an export takes from the check: tracks that are trusted enough, revised captions, and fields about the music."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musicflamingo_cli.sidecars.captions import is_approved, is_of_tiny_model, provenance_of
from musicflamingo_cli.sidecars.checks import SHORT, check_result
from musicflamingo_cli.trust.check import CheckedClaim
from musicflamingo_cli.trust.claims import Field
from musicflamingo_cli.trust.known import known_of
from musicflamingo_cli.trust.revision import revise
from musicflamingo_cli.trust.scan import check_track
from musicflamingo_cli.trust.verdicts import Verdict, sure_of
from musicflamingo_cli.trust.voices import LANGUAGE_CODES, Voice
from musicflamingo_cli.types import Track

NOT_CHECKED = "not checked, or changed since (run: musicflamingo check)"
NOT_TRUSTED = "below --min-trust"
NOTHING_LEFT = "nothing left after --strike"


@dataclass(frozen=True, slots=True)
class MusicFields:
    """What is known or claimed of a track's music; measured values come before claimed ones.

    ``bpm``: beats per minute, or None. ``key``: `A minor`, ``metre``: `3/4`, ``language``: a name as `English`; empty
    where unknown. ``is_instrumental``: None where unknown.
    """

    bpm: float | None
    key: str
    metre: str
    language: str
    is_instrumental: bool | None

    @property
    def language_code(self) -> str:
        """The language as ISO 639-1, or as it was stated; empty where unknown."""
        return LANGUAGE_CODES.get(self.language, self.language)


def why_not_trusted(info: Mapping[str, Any], least: float) -> str:
    """Return why a track is not trusted; empty where its check is current and its score is ``least`` or more."""
    result = check_result(info)
    if result is None:
        return NOT_CHECKED
    return NOT_TRUSTED if result.score < least else ""


def revised(
    track: Track, info: Mapping[str, Any], captions: Mapping[str, str], *, strike: bool, correct: bool
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Return the captions without what is contradicted, and what was changed, both by preset; see ``trust.revision``.

    Captions of which nothing is left are absent. Those that a person approved stay as they are.
    """
    check = check_track(info, track.audio, also={name: text for name, text in captions.items() if name == SHORT})
    if check is None or not check.contradicted:
        return dict(captions), {}
    known = known_of(info, track.audio)
    found, changes = {}, {}
    for preset, caption in captions.items():
        if is_approved(info, preset):
            found[preset] = caption
            continue
        revision = revise(preset, caption, check, known, strike=strike, correct=correct)
        if revision.text:
            found[preset] = revision.text
        if revision.changes:
            changes[preset] = revision.changes
    return found, changes


def music_fields(info: Mapping[str, Any], audio: Path) -> MusicFields:
    """Return the fields of a track: what other tools state, else the measurement, else what its captions claim."""
    known, check = known_of(info, audio), check_track(info, audio)
    tempo, key = sure_of(known.measured) if known.measured else (None, None)
    tempo, key = known.tempo or tempo, known.key or key
    claims = [each for each in check.claims if not is_of_tiny_model(provenance_of(info, each.preset))] if check else []
    bpm, voice = _claimed(claims, Field.TEMPO).partition("-")[0], known.voice or _claimed(claims, Field.VOCALS)
    return MusicFields(
        bpm=tempo.bpm if tempo else float(bpm) if bpm else None,
        key=key.name if key else _claimed(claims, Field.KEY),
        metre=known.metre or _claimed(claims, Field.METRE),
        language=known.language or ("" if voice == Voice.NONE else _claimed(claims, Field.LANGUAGE)),
        is_instrumental=voice == Voice.NONE if voice else None,
    )


def _claimed(claims: Sequence[CheckedClaim], field: Field) -> str:
    """Return the value that most captions claim and nothing contradicts; empty where there is none."""
    of_field = [each for each in claims if each.claim.field == field]
    values = [each.claim.value for each in of_field if each.verdict != Verdict.CONTRADICTED]
    return Counter(values).most_common(1)[0][0] if values else ""
