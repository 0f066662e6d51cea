"""The result of `musicflamingo check` in a sidecar, and whether it is of the captions and values that are there now."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from musicflamingo_cli.audio.tags import SIDECAR_KEYS
from musicflamingo_cli.sidecars.captions import (
    CHECK_KEY,
    MEASURED_KEY,
    SAMPLES_KEY,
    SHORT_KEY,
    SUMMARY_KEY,
    captions_in,
    is_edited,
    is_of_tiny_model,
    is_text,
    provenance_of,
)
from musicflamingo_cli.sidecars.segments import segments_of
from musicflamingo_cli.types import KEY_PREFIX

SHORT, SUMMARY = "short", "summary"  # names beside the presets
_DEFAULT = "full"  # the caption of a segment that a summary is made from, where there is one
VERSION = 1  # of the rules: results of another version are outdated
STATED_KEYS = ("language", "is_instrumental", "instrumental", "time_signature", "timesignature", "meter")
_NOT_ABOUT_THE_TRACK = ("lyrics", "transcription")  # presets whose text is what is sung


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What `check` found: the ``score`` from 0 to 1, the ``reasons`` for doubt, the presets with a contradiction."""

    score: float
    reasons: tuple[str, ...]
    contradicted: tuple[str, ...]


def descriptions(info: Mapping[str, Any]) -> dict[str, str]:
    """Return the captions that describe the track, by preset, whoever made them; not lyrics and transcriptions."""
    captions = {key.removeprefix(KEY_PREFIX): text for key, text in captions_in(info).items()}
    return {
        preset: text
        for preset, text in captions.items()
        if preset not in _NOT_ABOUT_THE_TRACK and text.strip() and is_text(text)
    }


def basis_of(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a check of this data is computed from: hashes of the captions and of the values known."""
    names = [MEASURED_KEY, SAMPLES_KEY, *(name for names in SIDECAR_KEYS.values() for name in names), *STATED_KEYS]
    known = {name: info[name] for name in names if name in info}
    if isinstance(measured := known.get(MEASURED_KEY), dict):  # whose file gets another identity where `tags` writes
        known[MEASURED_KEY] = {name: value for name, value in measured.items() if name != "audio"}
    return {
        "version": VERSION,
        "captions": {preset: _digest(text) for preset, text in sorted(descriptions(info).items())},
        "values": _digest(json.dumps(known, sort_keys=True)),
    }


def check_result(info: Mapping[str, Any]) -> CheckResult | None:
    """Return the stored result; None where there is none, or where captions or values have changed since."""
    found = info.get(CHECK_KEY)
    if not isinstance(found, dict) or found.get("basis") != basis_of(info):
        return None
    score = found.get("score")
    if not isinstance(score, (int, float)) or not 0 <= score <= 1:
        return None
    reasons, contradicted = found.get("reasons"), found.get("contradicted")
    return CheckResult(
        score=float(score),
        reasons=tuple(map(str, reasons)) if isinstance(reasons, list) else (),
        contradicted=tuple(map(str, contradicted)) if isinstance(contradicted, list) else (),
    )


def has_outdated_short(info: Mapping[str, Any]) -> bool:
    """Return whether there is a short version, but of other captions than now, and no person wrote it."""
    made = provenance_of(info, SHORT)
    if SHORT_KEY not in info or is_edited(made):
        return False
    made_from, now = made.get("made_from"), basis_of(info)["captions"]
    return not (isinstance(made_from, dict) and made_from and made_from.items() <= now.items())


def segment_descriptions(info: Mapping[str, Any], *, of_tiny_model: bool) -> dict[str, str]:
    """Return a description of each segment that is not silent, by its time; none where one of them has none.

    ``of_tiny_model``: the tiny model's captions count, too.
    """
    found: dict[str, str] = {}
    for segment in (each for each in segments_of(info) if not each.is_silent):
        own = segment.as_info()
        texts = {
            preset: text
            for preset, text in descriptions(own).items()
            if not text.startswith("{") and (of_tiny_model or not is_of_tiny_model(provenance_of(own, preset)))
        }
        if not texts:
            return {}
        found[str(segment.span)] = texts.get(_DEFAULT) or " ".join(texts.values())
    return found


def digests_of(texts: Mapping[str, str]) -> dict[str, str]:
    """Return what a text is recorded to be made from: a hash of each of these, by name."""
    return {name: _digest(text) for name, text in sorted(texts.items())}


def has_outdated_summary(info: Mapping[str, Any]) -> bool:
    """Return whether there is a summary, but of other segments or captions than now, and no person wrote it."""
    made = provenance_of(info, SUMMARY)
    if SUMMARY_KEY not in info or is_edited(made):
        return False
    return made.get("made_from") != digests_of(segment_descriptions(info, of_tiny_model=is_of_tiny_model(made)))


def has_outdated_check(info: Mapping[str, Any]) -> bool:
    """Return whether there is a result, but of other captions or values than now."""
    return CHECK_KEY in info and check_result(info) is None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
