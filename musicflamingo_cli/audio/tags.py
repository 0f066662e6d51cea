"""Metadata of a track: the tags of its file (mutagen) and keys of its sidecar."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from musicflamingo_cli.types import KEY_PREFIX

TAGS_KEY = f"{KEY_PREFIX}tags_backup"  # in a sidecar: what the command `tags` replaced in the audio file
# The first key that has a value wins; the sidecar's curated values take precedence over the file's tags.
SIDECAR_KEYS = {
    "title": ("title", "track_metadata_title"),
    "artist": ("artists", "artist", "track_metadata_artist"),
    "album": ("album", "track_metadata_album"),
    "year": ("release_year", "track_metadata_year", "year"),
    "genre": ("genres", "genre", "track_metadata_genre"),
    "bpm": ("bpm", "tempo"),
    "key": ("key", "musical_key"),
    "label": ("label", "track_metadata_label"),
}
# mutagen's "easy" names (EasyID3, Vorbis comments, EasyMP4); `organization` holds the label.
_TAG_KEYS = {
    "title": ("title",),
    "artist": ("artist", "albumartist"),
    "album": ("album",),
    "year": ("date", "year", "originaldate"),
    "genre": ("genre",),
    "bpm": ("bpm",),
    "key": ("initialkey", "key"),
    "label": ("label", "organization", "publisher"),
}


def describe(audio: Path, sidecar: Mapping[str, Any], seconds: float) -> dict[str, str]:
    """Return the prompt variables of a track as text; unknown ones are absent.

    ``sidecar`` is the sidecar's data, ``seconds`` the track's length. Tags that cannot be read count as unknown.
    """
    values = stated(audio, sidecar)
    values["duration"] = f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
    if sentence := _metadata_sentence(values):
        values["metadata"] = sentence
    return values


def stated(audio: Path, sidecar: Mapping[str, Any]) -> dict[str, str]:
    """Return what the sidecar's data and the file's tags say, by name (`title`, `bpm`, …); unknown ones are absent.

    Tempo and key that the command `tags` wrote are left out for those that it replaced: they may be a caption's.
    """
    tags = _without_ours(_read_tags(audio), sidecar.get(TAGS_KEY))
    values: dict[str, str] = {}
    for name in SIDECAR_KEYS:
        if text := _first(name, sidecar, SIDECAR_KEYS[name]) or _first(name, tags, _TAG_KEYS[name]):
            values[name] = text
    return values


def _without_ours(tags: Mapping[str, Any], backup: Any) -> Mapping[str, Any]:
    """Return a file's tags with the tempo and key as they were before ``backup`` was made, where they are ours now."""
    fields, written = (backup.get(part) if isinstance(backup, dict) else None for part in ("fields", "written"))
    if not isinstance(fields, dict) or not isinstance(written, dict):
        return tags
    values = dict(tags)
    for name in ("bpm", "key"):
        for key in _TAG_KEYS[name]:
            if name in written and key in values and values[key] == written[name]:
                values[key] = fields.get(name)
    return values


def _metadata_sentence(values: Mapping[str, str]) -> str:
    """Return the variable `metadata`: year, label and genre as a sentence; empty where all are unknown."""
    parts = []
    if "year" in values:
        parts.append(f"released in {values['year']}")
    if "label" in values:
        parts.append(f"on the label {values['label']}")
    if "genre" in values:
        parts.append(f"filed under {values['genre']}")
    return f"This track was {', '.join(parts)}." if parts else ""


def _read_tags(audio: Path) -> Mapping[str, Any]:
    """Return the file's tags by mutagen's easy names; an empty mapping where there are none or they are broken."""
    import mutagen
    from mutagen.easyid3 import EasyID3

    EasyID3.RegisterTextKey("initialkey", "TKEY")
    try:
        file = mutagen.File(audio, easy=True)
        tags = file.tags if file is not None else None
        return _plain_id3(tags) if hasattr(tags, "getall") else dict(tags or {})
    except Exception:  # mutagen raises struct and index errors for broken tags; captions do not need tags
        return {}


def _plain_id3(frames: Any) -> Mapping[str, Any]:
    """Return ID3 frames by mutagen's easy names, which it does not provide for WAV and AIFF."""
    names = {"TIT2": "title", "TPE1": "artist", "TALB": "album", "TDRC": "date", "TCON": "genre", "TBPM": "bpm"}
    names |= {"TKEY": "initialkey", "TPUB": "publisher"}
    return {name: list(map(str, frames[frame].text)) for frame, name in names.items() if frame in frames}


def _first(name: str, values: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    """Return the first valid value among the keys as text; empty where there is none."""
    return next(filter(None, (_valid(name, _as_text(values.get(key))) for key in keys)), "")


def _as_text(value: Any) -> str:
    """Return a text, number or list of these as text; empty for anything else."""
    if isinstance(value, (list, tuple)):
        return ", ".join(filter(None, map(_as_text, value)))
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e12 else ""  # NaN and infinity compare false
    return str(value).strip() if isinstance(value, (str, int)) else ""


def _valid(name: str, text: str) -> str:
    """Return a year as four digits, a tempo as a whole number, other text as it is; empty where invalid."""
    if name == "year":
        return text[:4] if re.match(r"[12]\d{3}(?!\d)", text) else ""
    if name == "bpm":
        try:
            return f"{round(float(text))}" if float(text) > 0 else ""
        except (ValueError, OverflowError):
            return ""
    return text
