"""What a sidecar's data says about its captions, and how each was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from musicflamingo_cli.audio.tags import TAGS_KEY
from musicflamingo_cli.types import KEY_PREFIX, REASONING_SUFFIX

MODEL_KEY = f"{KEY_PREFIX}model"
PROVENANCE_KEY = f"{KEY_PREFIX}provenance"
APPROVED_KEY = f"{KEY_PREFIX}approved"  # true once a person has approved a track's captions
MEASURED_KEY = f"{KEY_PREFIX}measured"
CHECK_KEY = f"{KEY_PREFIX}check"
SAMPLES_KEY = f"{KEY_PREFIX}samples"  # how far other answers agree
FIELDS_KEY = f"{KEY_PREFIX}fields"  # from the prose of the captions
SHORT_KEY = f"{KEY_PREFIX}short"  # a short version of them
SEGMENTS_KEY = f"{KEY_PREFIX}segments"  # captions of segments, see sidecars/segments.py
SUMMARY_KEY = f"{KEY_PREFIX}summary"  # of the whole, from the captions of its segments
# Computed from audio and captions: a person approves none of it.
DERIVED_KEYS = frozenset([MEASURED_KEY, CHECK_KEY, SAMPLES_KEY, FIELDS_KEY, SHORT_KEY, SEGMENTS_KEY, SUMMARY_KEY])
EXCLUDED_KEY = f"{KEY_PREFIX}excluded"  # true where a person keeps a track out of exports
NOTE_KEY = f"{KEY_PREFIX}note"  # a person's, about the track
MARKS = frozenset([APPROVED_KEY, EXCLUDED_KEY, NOTE_KEY, TAGS_KEY, *DERIVED_KEYS])  # they change no caption
_LENGTHS = ("audio_seconds", "source_seconds", "start", "fraction")  # of the provenance
_LONGEST = 1e9  # seconds, 30 years
TINY_MODEL_ONLY = "captions of the tiny model only"  # which are not real: it knows no real music


def caption_key(preset: str) -> str:
    """Return the sidecar key of a preset's caption."""
    return f"{KEY_PREFIX}{preset}"


def reasoning_key(preset: str) -> str:
    """Return the sidecar key of the reasoning that a caption follows from."""
    return f"{KEY_PREFIX}{preset}{REASONING_SUFFIX}"


def provenance_of(info: Mapping[str, Any], preset: str) -> Mapping[str, Any]:
    """Return how a preset's caption was made; empty where that is not recorded.

    Lengths that are no numbers of seconds are left out, whoever wrote them.
    """
    all_made = info.get(PROVENANCE_KEY)
    made = all_made.get(preset) if isinstance(all_made, dict) else None
    if not isinstance(made, dict):
        return {}
    if wrong := [key for key in _LENGTHS if key in made and not _is_length(made[key])]:
        return {key: value for key, value in made.items() if key not in wrong}
    return made


def _is_length(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 <= value < _LONGEST


def is_of_tiny_model(provenance: Mapping[str, Any]) -> bool:
    """Return whether a caption is of the tiny model (`noise` marked one with random weights), as it wrote it."""
    return bool(provenance.get("toy") or provenance.get("noise")) and not is_edited(provenance)


def is_edited(provenance: Mapping[str, Any]) -> bool:
    """Return whether a person wrote or changed a caption: only a person may replace it."""
    return provenance.get("edited") is True


def is_approved(info: Mapping[str, Any], preset: str) -> bool:
    """Return whether a person approved a preset's caption, or all of the track."""
    return info.get(APPROVED_KEY) is True or provenance_of(info, preset).get("approved") is True


def is_protected(info: Mapping[str, Any], preset: str) -> bool:
    """Return whether a preset has a caption that a person edited."""
    return has_caption(info, preset) and is_edited(provenance_of(info, preset))


def captions_in(info: Mapping[str, Any]) -> dict[str, str]:
    """Return all captions of a sidecar's data by key, those of presets that are not known included."""
    return {
        key: value
        for key, value in info.items()
        if key.startswith(KEY_PREFIX)
        and key not in MARKS
        and key != MODEL_KEY
        and not key.endswith(REASONING_SUFFIX)
        and isinstance(value, str)
    }


def without_edited(keys: Mapping[str, Any], info: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return those of new ``keys`` that replace nothing that a person edited in a sidecar with ``info``."""
    return _without(keys, [preset for preset in _presets_in(keys) if is_protected(info, preset)])


def without_changed(keys: Mapping[str, Any], before: Mapping[str, Any], now: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return those of new ``keys`` whose captions are in a sidecar ``now`` as they were ``before``."""
    changed = [each for each in _presets_in(keys) if now.get(caption_key(each)) != before.get(caption_key(each))]
    return _without(keys, changed)


def _presets_in(keys: Mapping[str, Any]) -> list[str]:
    return [key.removeprefix(KEY_PREFIX) for key in captions_in(keys)]


def _without(keys: Mapping[str, Any], presets: Sequence[str]) -> Mapping[str, Any]:
    """Return ``keys`` without what belongs to these presets; nothing where no caption is left."""
    if not presets:
        return keys
    theirs = {key(preset) for preset in presets for key in (caption_key, reasoning_key)}
    kept = {key: value for key, value in keys.items() if key not in theirs}
    if isinstance(made := kept.get(PROVENANCE_KEY), Mapping):
        kept[PROVENANCE_KEY] = {preset: each for preset, each in made.items() if preset not in presets}
    return kept if captions_in(kept) else {}


def has_caption(info: Mapping[str, Any], preset: str) -> bool:
    """Return whether a preset has a caption, whoever made it."""
    caption = info.get(caption_key(preset))
    return isinstance(caption, str) and bool(caption.strip())


def has_real_caption(info: Mapping[str, Any], preset: str) -> bool:
    """Return whether a preset has a caption that is not the tiny model's."""
    return has_caption(info, preset) and not is_of_tiny_model(provenance_of(info, preset))


def real_captions(info: Mapping[str, Any], presets: Sequence[str]) -> dict[str, str]:
    """Return the captions that may be used, by preset: not the tiny model's, and only what is valid text."""
    found = {}
    for preset in presets:
        caption = info.get(caption_key(preset))
        if has_real_caption(info, preset) and isinstance(caption, str) and is_text(caption):
            found[preset] = caption
    return found


def has_tiny_captions(info: Mapping[str, Any], presets: Sequence[str]) -> bool:
    """Return whether the tiny model made the caption of one of these presets."""
    return any(is_of_tiny_model(provenance_of(info, preset)) for preset in presets)


def is_text(text: str) -> bool:
    """Return whether it can be written as UTF-8: no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
