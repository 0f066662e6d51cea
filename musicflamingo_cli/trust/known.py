"""What is known of a track besides its captions: the measurement, values of other tools in the sidecar, and tags."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musicflamingo_cli.audio import tags
from musicflamingo_cli.audio.key import TONICS, Key
from musicflamingo_cli.audio.tempo import Tempo
from musicflamingo_cli.sidecars.captions import provenance_of
from musicflamingo_cli.text.facts import FASTEST, SLOWEST, TermKind, key_of, terms_in
from musicflamingo_cli.trust.measured import Measured, measured_of
from musicflamingo_cli.trust.voices import Voice

_CAMELOT = re.compile(r"\s*(1[0-2]|[1-9])\s*([AB])\s*", re.IGNORECASE)  # `8A`, as DJ programs write keys
_SURE = 1.0  # the confidence of what a person or another tool states


@dataclass(frozen=True, slots=True)
class Known:
    """What a track is known to be. The fields after ``measured`` are stated by other tools; empty where they say none.

    ``voice``: a value of ``Voice``. ``lengths``: of the track and of what the model got of it, in seconds.
    """

    measured: Measured | None = None
    tempo: Tempo | None = None
    key: Key | None = None
    genres: tuple[str, ...] = ()
    metre: str = ""
    language: str = ""
    voice: str = ""
    lengths: tuple[float, ...] = ()


def known_of(info: Mapping[str, Any], audio: Path, presets: Iterable[str] = ()) -> Known:
    """Return what is known of the track ``audio``, whose sidecar holds ``info``.

    A measurement of another file is left out. ``presets``: whose provenance tells how much of it the model got.
    """
    measured = measured_of(info, audio)
    stated = tags.stated(audio, info)
    bpm = float(stated.get("bpm", 0))
    return Known(
        measured=measured,
        tempo=Tempo(bpm=bpm, confidence=_SURE) if SLOWEST <= bpm <= FASTEST else None,
        key=Key(name=name, confidence=_SURE) if (name := _key(stated.get("key", ""))) else None,
        genres=tuple(term.name for term in terms_in(stated.get("genre", "")) if term.kind == TermKind.GENRE),
        metre=_metre(info),
        language=_text(info.get("language")),
        voice=Voice.NONE if info.get("is_instrumental") is True or info.get("instrumental") is True else "",
        lengths=tuple(sorted(_lengths(info, measured, presets))),
    )


def _key(stated: str) -> str:
    """A stated key (`Am`, `F# minor`, `8A`) as `A minor`; empty where it is none."""
    if match := _CAMELOT.fullmatch(stated):
        tonic = (int(match[1]) - 8) * 7  # each step up is a fifth; 8B is C major
        is_minor = match[2] in "Aa"
        return f"{TONICS[(tonic + (9 if is_minor else 0)) % 12]} {'minor' if is_minor else 'major'}"
    return key_of(f"in the key of {stated}") if stated else ""


def _metre(info: Mapping[str, Any]) -> str:
    for name in ("time_signature", "timesignature", "meter"):
        text = _text(info.get(name))
        if re.fullmatch(r"\d{1,2}/\d{1,2}", text):
            return text
    return ""


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) and value.strip().casefold() != "unknown" else ""


def _lengths(info: Mapping[str, Any], measured: Measured | None, presets: Iterable[str]) -> set[float]:
    """The length of the track and those of what the model got of it; none where the track's is not known."""
    whole, heard = {measured.seconds} if measured else set(), set()
    for made in (provenance_of(info, preset) for preset in presets):
        if "audio_seconds" not in made:
            continue
        heard.add(float(made["audio_seconds"]))
        if "source_seconds" in made:
            whole.add(float(made["source_seconds"]))
        elif not any(key in made for key in ("cut", "start", "fraction")):
            whole.add(float(made["audio_seconds"]))
    return whole | heard if whole else set()
