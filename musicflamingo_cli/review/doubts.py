"""What `measure` and `check` wrote about a track, read leniently: a review works without them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from musicflamingo_cli.sidecars.captions import CHECK_KEY
from musicflamingo_cli.text.facts import facts_in
from musicflamingo_cli.trust.measured import Measured, measured_of

_CONTRADICTED = "contradicted"
_SAME_TEMPO = 0.04  # of the measured tempo
_RELATED = (1, 2, 3, 1 / 2, 1 / 3, 3 / 2, 2 / 3)
_SURE_TEMPO = 0.06  # of the confidence; below, nothing is claimed to be wrong


@dataclass(frozen=True, slots=True)
class Mark:
    """A passage of a caption, from ``start`` to ``end`` in characters, and why it is doubtful."""

    start: int
    end: int
    reason: str


def doubt_of(info: Mapping[str, Any]) -> float | None:
    """Return how doubtful a track's captions are, from 0 to 1, by its check; None where there is no usable one.

    The check's score is a trust from 0 (every claim contradicted) to 1.
    """
    check = info.get(CHECK_KEY)
    score = check.get("score") if isinstance(check, dict) else None
    if not isinstance(score, (int, float)) or isinstance(score, bool) or not math.isfinite(score):
        return None
    return min(1.0, max(0.0, 1.0 - score))


def reasons_of(info: Mapping[str, Any]) -> list[str]:
    """Return why the check found a track doubtful, as text."""
    check = info.get(CHECK_KEY)
    reasons = check.get("reasons") if isinstance(check, dict) else None
    return [str(reason)[:300] for reason in reasons[:20]] if isinstance(reasons, list) else []


def marks_in(info: Mapping[str, Any], preset: str, caption: str) -> list[Mark]:
    """Return the passages of a caption that the check, or the measured tempo, contradicts."""
    marks = list(_checked(info, preset, caption))
    measured = measured_of(info)
    if not marks and measured is not None:
        marks = list(_measured(measured, caption))
    return sorted(marks, key=lambda mark: mark.start)


def _checked(info: Mapping[str, Any], preset: str, caption: str) -> Iterator[Mark]:
    check = info.get(CHECK_KEY)
    claims = check.get("claims") if isinstance(check, dict) else None
    claims = claims.get(preset) if isinstance(claims, dict) else None
    for claim in claims if isinstance(claims, list) else []:
        if not isinstance(claim, dict) or claim.get("verdict") != _CONTRADICTED or not claim.get("value"):
            continue
        found = re.search(rf"(?<!\w){re.escape(str(claim['value']))}(?!\w)", caption, re.IGNORECASE)
        if found:  # the caption may have been edited since
            yield Mark(found.start(), found.end(), _evidence(claim))


def _evidence(claim: Mapping[str, Any]) -> str:
    """What contradicts a claim, as one line."""
    evidence = claim.get("evidence")
    against = [
        f"{each.get('source', '')} {each.get('detail', '')}".strip()
        for each in (evidence if isinstance(evidence, list) else [])
        if isinstance(each, dict) and each.get("verdict") == _CONTRADICTED
    ]
    return ", ".join(against)[:300] or "contradicted"


def _measured(measured: Measured, caption: str) -> Iterator[Mark]:
    tempo, claimed = measured.tempo, facts_in(caption).tempo
    if tempo is None or claimed is None or tempo.confidence < _SURE_TEMPO:
        return
    if any(abs(claimed / (tempo.bpm * factor) - 1) <= _SAME_TEMPO for factor in _RELATED):
        return
    at = caption.find(f"{claimed:g}")
    if at >= 0:
        yield Mark(at, at + len(f"{claimed:g}"), f"measured: {tempo.bpm:.0f} BPM")


def measured_json(info: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the measured values that the page shows beside the claimed ones; None where nothing was measured."""
    measured = measured_of(info)
    if measured is None:
        return None
    return {
        "tempo": measured.tempo and {"bpm": round(measured.tempo.bpm, 1), "confidence": measured.tempo.confidence},
        "key": measured.key and {"name": measured.key.name, "confidence": measured.key.confidence},
        "lufs": measured.lufs,
        "seconds": measured.seconds,
    }
