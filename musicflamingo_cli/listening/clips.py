"""The clips that were made: a WAV file, and beside it a JSON file with the caption and how the clip was made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from musicflamingo_cli._version import __version__
from musicflamingo_cli.config import GenerationSettings
from musicflamingo_cli.errors import FailureKind
from musicflamingo_cli.listening.round_trip import RoundTrip
from musicflamingo_cli.listening.sources import Source
from musicflamingo_cli.models.generators import Generator
from musicflamingo_cli.system.identity import file_identity
from musicflamingo_cli.system.temporary import owner
from musicflamingo_cli.types import Failure

MADE_BY = "musicflamingo listen"  # identifies our JSON files: no other is replaced
_LARGEST_JSON = 4 << 20  # bytes


@dataclass(slots=True)
class MadeClip:
    """A clip of a source, or why there is none. Mutable: its round trip comes later.

    ``tokens``: T5 tokens of the caption. ``read``: how many of its characters the text encoder got. ``samples``: a
    channel. ``is_kept``: it was there already.
    """

    source: Source
    wav: Path
    request: Mapping[str, Any] = field(default_factory=dict)
    tokens: int = 0
    read: int = 0
    samples: int = 0
    rate: int = 0
    channels: int = 0
    is_kept: bool = False
    failure: Failure | None = None
    round_trip: RoundTrip | None = None

    @property
    def caption_read(self) -> str:
        """What the text encoder got of the caption."""
        return (self.source.caption or "")[: self.read]

    @property
    def cut_off(self) -> str:
        """What it did not get."""
        return (self.source.caption or "")[self.read :]

    @property
    def json_file(self) -> Path:
        """The JSON file beside the clip."""
        return self.wav.with_name(f"{self.wav.name.removesuffix('.wav')}.json")

    def as_json(self) -> dict[str, Any]:
        """Return what the JSON file holds (docs/listen.md)."""
        return {
            "made_by": MADE_BY,
            "version": __version__,
            **self.request,
            "edited": self.source.is_edited,
            "approved": self.source.is_approved,
            "tokens": self.tokens,
            "cut_off": self.cut_off,
            "clip": self.wav.name,
            "samples": self.samples,
            "rate": self.rate,
            "channels": self.channels,
            "round_trip": self.round_trip and self.round_trip.as_json(),
        }

    def save(self) -> None:
        """Write the JSON file, completely or not at all. Raises OSError."""
        temporary = self.json_file.with_name(f".musicflamingo-{owner()}.json")
        try:
            text = json.dumps(self.as_json(), indent=2, ensure_ascii=False)
            temporary.write_bytes(text.encode("utf-8", "backslashreplace") + b"\n")
            os.replace(temporary, self.json_file)
        finally:
            temporary.unlink(missing_ok=True)


def request_for(source: Source, model: Generator, settings: GenerationSettings, melody: bool) -> dict[str, Any]:
    """Return what decides how a clip sounds, and whose caption it is: a clip with the same values is not made again."""
    values = asdict(settings)
    for name in ("generator", "at_once"):
        del values[name]
    hears = melody or settings.start_seconds > 0
    return {
        "track": str(source.track.audio.absolute()).encode("utf-8", "backslashreplace").decode(),
        "audio": file_identity(source.track.audio) if hears else None,
        "preset": source.preset,
        "caption": source.caption,
        "model": model.name,
        "model_identity": model.identity,
        "licence": model.licence or None,
        "settings": {**values, "melody": melody},
    }


def is_of_another_track(clip: MadeClip) -> bool:
    """Return whether the clip's place holds one that was made for another track of the same name."""
    found = _read(clip.json_file)
    return found.get("made_by") == MADE_BY and found.get("track") != clip.request.get("track")


def existing(clip: MadeClip) -> MadeClip | None:
    """Return the clip that is there already; None where it has to be made, or replaces another of ours.

    With a failure where a file is in its place that is not ours.
    """
    if not os.path.lexists(clip.wav) and not os.path.lexists(clip.json_file):
        return None
    found = _read(clip.json_file)
    if found.get("made_by") != MADE_BY:
        reason = f"{clip.wav.name} or its JSON file exists and is another file"
        failure = Failure(
            preset=clip.source.preset, kind=FailureKind.OTHER, reason=reason, hint="name another folder with --out"
        )
        return MadeClip(clip.source, clip.wav, clip.request, failure=failure)
    if any(found.get(name) != value for name, value in clip.request.items()) or not clip.wav.is_file():
        return None
    numbers = [found.get(name) for name in ("tokens", "samples", "rate", "channels")]
    cut = found.get("cut_off")
    if not all(isinstance(each, int) and each >= 0 for each in numbers) or not isinstance(cut, str):
        return None
    tokens, samples, rate, channels = (int(each or 0) for each in numbers)
    return MadeClip(
        source=clip.source,
        wav=clip.wav,
        request=clip.request,
        tokens=tokens,
        read=len(clip.source.caption or "") - len(cut),
        samples=samples,
        rate=rate,
        channels=channels,
        is_kept=True,
        round_trip=RoundTrip.from_json(found.get("round_trip")),
    )


def _read(file: Path) -> dict[str, Any]:
    """Return a JSON file's object; empty where there is none that we could have written."""
    try:
        if not file.is_file() or file.stat().st_size > _LARGEST_JSON:
            return {}
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
