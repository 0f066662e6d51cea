"""One track in full, as the page shows it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from musicflamingo_cli.audio import tags
from musicflamingo_cli.audio.clip import measure
from musicflamingo_cli.errors import SidecarError, TrackError
from musicflamingo_cli.review.corrections import corrections_of
from musicflamingo_cli.review.doubts import marks_in, measured_json, reasons_of
from musicflamingo_cli.review.edits import base_of
from musicflamingo_cli.review.library import Entry, Library
from musicflamingo_cli.sidecars.captions import (
    APPROVED_KEY,
    EXCLUDED_KEY,
    NOTE_KEY,
    caption_key,
    captions_in,
    has_caption,
    is_edited,
    is_of_tiny_model,
    provenance_of,
)
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.text.facts import key_of, tempo_of
from musicflamingo_cli.text.t5_tokens import TokenCounter
from musicflamingo_cli.trust.known import Known, known_of
from musicflamingo_cli.types import KEY_PREFIX

_LONGEST_VALUE = 2000  # characters of one value of a provenance


def detail(library: Library, entry: Entry, counter: TokenCounter) -> dict[str, Any]:
    """Return everything about a track that the page shows; a problem instead of captions where there are none."""
    problem, info = "", {}
    try:
        info = read_sidecar(entry.track.sidecar)
    except SidecarError as error:
        problem = f"{error} - {error.hint}"
    try:
        seconds = measure(entry.track.audio).seconds
    except TrackError as error:
        seconds, problem = 0.0, problem or f"{error} - {error.hint}"
    named = [key.removeprefix(KEY_PREFIX) for key in captions_in(info)]
    presets = list(dict.fromkeys([*library.presets, *named]))
    note = info.get(NOTE_KEY)
    known = known_of(info, entry.track.audio, presets)
    corrections = corrections_of(info, known)
    return {
        **entry.row(),
        "file": shown_path(entry.track.audio),
        "seconds": round(seconds, 2),
        "problem": problem or entry.problem,
        "approved": info.get(APPROVED_KEY) is True,
        "excluded": info.get(EXCLUDED_KEY) is True,
        "note": note if isinstance(note, str) else "",
        "noteBase": base_of(note),
        "measured": measured_json(info, entry.track.audio),
        "known": _known(entry, info, seconds),
        "reasons": reasons_of(info),
        "corrections": list(dict.fromkeys(change for each in corrections.values() for change in each.changes)),
        "captions": [caption_json(info, preset, counter, known) for preset in presets],
    }


def caption_json(info: Mapping[str, Any], preset: str, counter: TokenCounter, known: Known) -> dict[str, Any]:
    """Return one preset's caption and how it was made."""
    text = info.get(caption_key(preset))
    text = text if has_caption(info, preset) and isinstance(text, str) else ""
    made = provenance_of(info, preset)
    return {
        "preset": preset,
        "text": text,
        "base": base_of(info.get(caption_key(preset))),
        "tokens": counter.count(text) if text else 0,
        "tempo": tempo_of(text),
        "key": key_of(text),
        "marks": [[mark.start, mark.end, mark.reason, mark.field] for mark in marks_in(text, preset, known)],
        "approved": bool(text) and (info.get(APPROVED_KEY) is True or made.get("approved") is True),
        "edited": is_edited(made),
        "tiny": is_of_tiny_model(made),
        "provenance": {str(key): _shortened(value) for key, value in made.items()},
    }


def shown_path(path: Path) -> str:
    """Return a path as text that JSON can hold."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _known(entry: Entry, info: Mapping[str, Any], seconds: float) -> dict[str, str]:
    """Return what tags and other tools say of the track."""
    values = tags.describe(entry.track.audio, info, seconds)
    return {
        name: _shortened(values[name]) for name in ("title", "artist", "year", "genre", "bpm", "key") if name in values
    }


def _shortened(value: Any) -> str:
    text = value if isinstance(value, str) else str(value)
    return text.encode("utf-8", "replace").decode()[:_LONGEST_VALUE]
