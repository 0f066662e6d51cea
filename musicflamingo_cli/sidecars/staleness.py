"""Which captions are missing, and which are outdated: made with other settings than now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from musicflamingo_cli._version import __version__
from musicflamingo_cli.choices import Quantization
from musicflamingo_cli.config import Settings
from musicflamingo_cli.models.model import Model
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.captions import (
    APPROVED_KEY,
    PROVENANCE_KEY,
    has_caption,
    has_real_caption,
    is_edited,
    provenance_of,
)
from musicflamingo_cli.sidecars.segments import segments_of
from musicflamingo_cli.system.identity import digest, is_replaced
from musicflamingo_cli.types import Sampling

_TOLERANCE = 0.1  # seconds: clips end a little before a multiple of 30 s


class CaptionState(StrEnum):
    """The state of one preset of one track."""

    CAPTIONED = "captioned"
    MISSING = "missing"
    OUTDATED = "outdated"


@dataclass(frozen=True, slots=True)
class CaptionSettings:
    """What a caption would be made with now; a field that is None is not compared.

    ``retries``: answers that were retried carry a later seed and a higher repeat penalty.
    """

    is_tiny: bool = False
    model: str | None = None  # the language model's file name
    projector: str | None = None
    sampling: Sampling | None = None
    retries: int = 0
    version: str | None = None  # of this product
    excerpt: Mapping[str, Any] | None = None  # which part of a track is used: start, fraction
    max_seconds: float | None = None
    quantization: str | None = None  # of a checkpoint's weights
    model_identity: str | None = None  # a hash of parts of its files, and of its adapter's
    lora: str | None = None  # the adapter's name; empty: none


def caption_settings(settings: Settings, model: Model) -> CaptionSettings:
    """Return what these settings and this model would make captions with."""
    return CaptionSettings(
        is_tiny=model.is_tiny,
        model=model.name,
        model_identity=digest(model.files),
        lora=_adapter_name(settings, model),
        projector=model.projector_name,
        sampling=settings.sampling,
        retries=settings.retries,
        version=__version__,
        excerpt={"start": settings.start or None, "fraction": settings.fraction if settings.fraction < 1 else None},
        max_seconds=settings.excerpt(model.max_seconds).max_seconds,
        quantization=settings.quantize,
    )


def _adapter_name(settings: Settings, model: Model) -> str | None:
    """The adapter's name, empty where there is none; None where an endpoint may have one of its own."""
    if settings.lora is not None:
        return settings.lora.resolve().name
    return "" if model.files else None


def state_of(info: Mapping[str, Any], preset: Preset, now: CaptionSettings, audio: Path | None = None) -> CaptionState:
    """Return a preset's state. To a real model, a caption of the tiny model counts as missing.

    ``audio``: the track's file, where it is to be compared with the one that was captioned. A caption without a
    recorded identity of audio or model counts as made from the present ones: it is older than these records.

    An approved or edited caption is never outdated; nor is a real model's where the tiny model would replace it.
    """
    made = provenance_of(info, preset.name)
    is_real = has_real_caption(info, preset.name)
    if not is_real and not (now.is_tiny and has_caption(info, preset.name)):
        return CaptionState.MISSING
    if _is_settled(info, made) or (now.is_tiny and is_real):
        return CaptionState.CAPTIONED
    if _is_outdated(made, preset, now) or (audio is not None and is_replaced(audio, made.get("audio"))):
        return CaptionState.OUTDATED
    return CaptionState.CAPTIONED


def _is_settled(info: Mapping[str, Any], made: Mapping[str, Any]) -> bool:
    """Whether a person decided about a caption, so that it is never outdated."""
    return info.get(APPROVED_KEY) is True or made.get("approved") is True or is_edited(made)


def has_other_audio(info: Mapping[str, Any], presets: Iterable[str], audio: Path) -> bool:
    """Return whether one of the presets, by name, has a caption of an earlier file at the place of ``audio``."""
    known: list[Any] = []
    for preset in presets:
        made = provenance_of(info, preset)
        if has_caption(info, preset) and not _is_settled(info, made) and made.get("audio") not in known:
            known.append(made.get("audio"))  # as a rule that of all presets
    return any(is_replaced(audio, each) for each in known)


def missing(info: Mapping[str, Any], presets: Sequence[Preset], now: CaptionSettings) -> list[Preset]:
    """Return the presets without a caption."""
    return [preset for preset in presets if state_of(info, preset, now) == CaptionState.MISSING]


def outdated(
    info: Mapping[str, Any], presets: Sequence[Preset], now: CaptionSettings, audio: Path | None = None
) -> list[Preset]:
    """Return the presets whose caption is missing or outdated; ``audio``: see ``state_of``."""
    return [preset for preset in presets if state_of(info, preset, now, audio) != CaptionState.CAPTIONED]


class EarlierRuns:
    """The runs that had made captions when a scan read the sidecars, each with the number of its last caption.

    What was made since is known by that, without a clock: machines that share a dataset have clocks of their own.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def add(self, info: Mapping[str, Any]) -> None:
        """Note the runs that made the captions in a sidecar's data, those of segments, too."""
        for each in (info, *(segment.as_info() for segment in segments_of(info))):
            all_made = each.get(PROVENANCE_KEY)
            for made in all_made.values() if isinstance(all_made, dict) else ():
                run, number = _run_of(made)
                self._last[run] = max(number, self._last.get(run, 0))

    def made_since(self, info: Mapping[str, Any], preset: Preset) -> bool:
        """Return whether a preset's caption was made after the scan."""
        run, number = _run_of(provenance_of(info, preset.name))
        return number > self._last.get(run, 0)


def _run_of(made: Any) -> tuple[str, int]:
    """Return the run that made a caption and the caption's number in it; 0 where that is not recorded."""
    run, number = (made.get("run"), made.get("number")) if isinstance(made, dict) else (None, None)
    return (run, number) if isinstance(run, str) and isinstance(number, int) else ("", 0)


def _is_outdated(made: Mapping[str, Any], preset: Preset, now: CaptionSettings) -> bool:
    """Whether it was made with other settings; a caption of unknown origin was."""
    compared = [(now.model, "model"), (now.projector, "mmproj"), (now.version, "version")]
    if any(expected is not None and made.get(key) != expected for expected, key in compared):
        return True
    if now.model_identity is not None and made.get("model_identity", now.model_identity) != now.model_identity:
        return True
    if now.quantization is not None and made.get("quantization", Quantization.NONE) != now.quantization:
        return True
    if now.lora is not None and (made.get("lora") or "") != now.lora:
        return True
    if now.model is not None and made.get("template") != preset.template_hash:
        return True
    if now.excerpt is not None and any(made.get(key) != value for key, value in now.excerpt.items()):
        return True
    if now.max_seconds is not None and not _has_same_length(made, now.max_seconds):
        return True
    return now.sampling is not None and not _has_same_sampling(made, now.sampling, now.retries)


def _has_same_sampling(made: Mapping[str, Any], sampling: Sampling, retries: int) -> bool:
    if made.get("redone") is True:  # for a better answer, with other seeds
        return (made.get("temperature"), made.get("top_p")) == (sampling.temperature, sampling.top_p)
    was = tuple(made.get(key) for key in ("temperature", "top_p", "repeat_penalty", "seed"))
    possible = (sampling.for_retry(attempt) for attempt in range(retries + 1))
    return was in [(s.temperature, s.top_p, s.repeat_penalty, s.seed) for s in possible]


def _has_same_length(made: Mapping[str, Any], max_seconds: float) -> bool:
    """Whether as much of the track was used as ``max_seconds`` would use."""
    heard, source = made.get("audio_seconds"), made.get("source_seconds")
    if not isinstance(heard, (int, float)):
        return False
    if isinstance(source, (int, float)):
        left = source - (made.get("start") or 0.0)
        # All that follows the start was used, or a fraction of the header's length, which may be too long.
        available = heard if abs(left - heard) < _TOLERANCE else left * (made.get("fraction") or 1.0)
    else:  # all of it was used, or it was cut and its whole length is not known
        available = max_seconds if made.get("cut") else heard
    return bool(abs(min(available, max_seconds) - heard) < _TOLERANCE)
