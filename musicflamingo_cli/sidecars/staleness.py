"""What a sidecar says about its captions: there, missing, or made by something else than would make them now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars import merge as sidecar
from musicflamingo_cli.types import Sampling

_TOLERANCE = 0.1  # seconds: clips end a little before a multiple of 30 s
CAPTIONED, MISSING, STALE = "captioned", "missing", "stale"


@dataclass(frozen=True, slots=True)
class Maker:
    """What would make a caption now; a field that is None is not compared.

    ``retries``: answers that were asked for again carry a later seed and a higher repeat penalty.
    """

    is_toy: bool = False
    model: str | None = None  # the language model's file name
    projector: str | None = None
    sampling: Sampling | None = None
    retries: int = 0
    version: str | None = None  # of this product
    hearing: Mapping[str, Any] | None = None  # which part of a track is heard: start, fraction
    max_seconds: float | None = None


def state_of(info: Mapping[str, Any], preset: Preset, maker: Maker) -> str:
    """CAPTIONED, MISSING (the tiny model's words count as none for a real one) or STALE.

    What a person has approved is not stale, whatever made it; nor is a real model's caption where a toy would follow.
    """
    made = provenance_of(info, preset.name)
    is_real = has_real(info, preset.name)
    if not is_real and not (maker.is_toy and is_there(info, preset.name)):
        return MISSING
    if info.get(sidecar.APPROVED_KEY) is True or made.get("approved") is True or (maker.is_toy and is_real):
        return CAPTIONED
    return STALE if _is_stale(made, preset, maker) else CAPTIONED


def provenance_of(info: Mapping[str, Any], preset: str) -> Mapping[str, Any]:
    """How a preset's caption was made; empty where nothing is known of it."""
    all_made = info.get(sidecar.PROVENANCE_KEY)
    made = all_made.get(preset) if isinstance(all_made, dict) else None
    return made if isinstance(made, dict) else {}


def is_toys(made: Mapping[str, Any]) -> bool:
    """Whether a caption is of a model that knows no real music (`noise` was the mark of one with random weights)."""
    return bool(made.get("toy") or made.get("noise"))


def is_there(info: Mapping[str, Any], preset: str) -> bool:
    """Whether a preset has a caption, whoever made it."""
    caption = info.get(sidecar.caption_key(preset))
    return isinstance(caption, str) and bool(caption.strip())


def has_real(info: Mapping[str, Any], preset: str) -> bool:
    """Whether a preset has a caption that is not the tiny model's."""
    return is_there(info, preset) and not is_toys(provenance_of(info, preset))


def missing(info: Mapping[str, Any], presets: Sequence[Preset], maker: Maker) -> list[Preset]:
    return [preset for preset in presets if state_of(info, preset, maker) == MISSING]


def outdated(info: Mapping[str, Any], presets: Sequence[Preset], maker: Maker) -> list[Preset]:
    """Those that are missing or stale."""
    return [preset for preset in presets if state_of(info, preset, maker) != CAPTIONED]


def older_than(info: Mapping[str, Any], presets: Sequence[Preset], moment: str) -> list[Preset]:
    """Those whose caption was not made since ``moment`` (UTC, ISO 8601, milliseconds)."""
    return [preset for preset in presets if str(provenance_of(info, preset.name).get("time", "")) < moment]


def _is_stale(made: Mapping[str, Any], preset: Preset, maker: Maker) -> bool:
    """Whether something else made it; a caption of unknown origin was made by something else."""
    compared = [(maker.model, "model"), (maker.projector, "mmproj"), (maker.version, "version")]
    if any(expected is not None and made.get(key) != expected for expected, key in compared):
        return True
    if maker.model is not None and made.get("template") != preset.template_hash:
        return True
    if maker.hearing is not None and any(made.get(key) != value for key, value in maker.hearing.items()):
        return True
    if maker.max_seconds is not None and not _was_heard_as_far(made, maker.max_seconds):
        return True
    return maker.sampling is not None and not _was_sampled_so(made, maker.sampling, maker.retries)


def _was_sampled_so(made: Mapping[str, Any], sampling: Sampling, retries: int) -> bool:
    was = tuple(made.get(key) for key in ("temperature", "top_p", "repeat_penalty", "seed"))
    asked = (sampling.again(attempt) for attempt in range(retries + 1))
    return was in [(s.temperature, s.top_p, s.repeat_penalty, s.seed) for s in asked]


def _was_heard_as_far(made: Mapping[str, Any], max_seconds: float) -> bool:
    """Whether as much of the track was heard as ``max_seconds`` would have it."""
    heard, source = made.get("audio_seconds"), made.get("source_seconds")
    if not isinstance(heard, (int, float)):
        return False
    if isinstance(source, (int, float)):
        left = source - (made.get("start") or 0.0)
        # All that follows the start was heard, or a part of it, as the header has it: that may promise more.
        there = heard if abs(left - heard) < _TOLERANCE else left * (made.get("fraction") or 1.0)
    else:  # all of it was heard, or it was cut and nobody knows how much there is
        there = max_seconds if made.get("cut") else heard
    return bool(abs(min(there, max_seconds) - heard) < _TOLERANCE)
