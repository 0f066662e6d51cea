"""What speaks against a track's captions: the stored result of `check`, and where in a caption it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musicflamingo_cli.sidecars.checks import check_result
from musicflamingo_cli.trust.check import check_captions
from musicflamingo_cli.trust.claims import Field
from musicflamingo_cli.trust.known import Known
from musicflamingo_cli.trust.measured import measured_of
from musicflamingo_cli.trust.verdicts import KEY_CONFIDENCE, TEMPO_CONFIDENCE, Verdict

_MOST, _LONGEST = 20, 300  # reasons that are shown, and characters of each


@dataclass(frozen=True, slots=True)
class Mark:
    """A passage of a caption, from ``start`` to ``end`` in characters, why it is doubtful, and what it is about."""

    start: int
    end: int
    reason: str
    field: Field


def doubt_of(info: Mapping[str, Any]) -> float | None:
    """Return how doubtful a track's captions are, from 0 to 1, by its check; None where there is no current one."""
    result = check_result(info)
    return None if result is None else min(1.0, max(0.0, 1.0 - result.score))


def reasons_of(info: Mapping[str, Any]) -> list[str]:
    """Return why the check found a track doubtful, as text."""
    result = check_result(info)
    return [reason[:_LONGEST] for reason in result.reasons[:_MOST]] if result else []


def marks_in(caption: str, preset: str, known: Known) -> list[Mark]:
    """Return the passages of a caption that what is known of the track contradicts."""
    checked = check_captions({preset: caption}, known).claims
    return [
        Mark(start=each.claim.start, end=each.claim.end, reason=each.reason()[:_LONGEST], field=each.claim.field)
        for each in sorted(checked, key=lambda each: each.claim.start)
        if each.verdict == Verdict.CONTRADICTED
    ]


def measured_json(info: Mapping[str, Any], audio: Path) -> dict[str, Any] | None:
    """Return the measured values that the page shows beside the claimed ones; None where nothing was measured."""
    measured = measured_of(info, audio)
    if measured is None:
        return None
    tempo, key = measured.tempo, measured.key
    return {
        "tempo": tempo
        and {
            "bpm": round(tempo.bpm, 1),
            "alternatives": [round(each, 1) for each in tempo.alternatives],
            "sure": tempo.confidence >= TEMPO_CONFIDENCE,
        },
        "key": key and {"name": key.name, "sure": key.confidence >= KEY_CONFIDENCE},
        "lufs": measured.lufs,
        "seconds": measured.seconds,
    }
