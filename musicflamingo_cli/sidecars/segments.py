"""The captions of a track's segments in its sidecar (`music_flamingo_segments`), and which of them are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from musicflamingo_cli.audio.segments import Cutting, Span
from musicflamingo_cli.sidecars.captions import (
    PROVENANCE_KEY,
    SEGMENTS_KEY,
    caption_key,
    has_real_caption,
    is_edited,
    provenance_of,
    reasoning_key,
)

SEGMENTS = "segments"  # the name in the provenance, which records how the track was cut
_LONGEST = 1e9  # seconds


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment with its captions by preset, and how each was made. ``is_silent``: it gets no captions."""

    span: Span
    captions: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    reasoning: Mapping[str, str] = field(default_factory=dict)
    is_silent: bool = False

    def as_info(self) -> dict[str, Any]:
        """Return it as a sidecar's data: what reads the captions of a track then reads those of a segment."""
        return {
            **{caption_key(preset): text for preset, text in self.captions.items()},
            **{reasoning_key(preset): text for preset, text in self.reasoning.items()},
            PROVENANCE_KEY: dict(self.provenance),
        }

    def as_json(self) -> dict[str, Any]:
        """Return it as an element of the sidecar's list (docs/sidecars.md)."""
        found: dict[str, Any] = {"start": self.span.start, "end": self.span.end, "captions": dict(self.captions)}
        if self.reasoning:
            found["reasoning"] = dict(self.reasoning)
        if self.is_silent:
            found["silent"] = True
        return {**found, "provenance": dict(self.provenance)} if self.provenance else found

    def with_captions(
        self, captions: Mapping[str, str], provenance: Mapping[str, Any], reasoning: Mapping[str, str]
    ) -> Segment:
        """Return it with further captions, which replace those of the same presets."""
        kept = {preset: text for preset, text in self.reasoning.items() if preset not in captions}
        return Segment(
            span=self.span,
            captions={**self.captions, **captions},
            provenance={**self.provenance, **provenance},
            reasoning={**kept, **reasoning},
        )


def segments_of(info: Mapping[str, Any]) -> list[Segment]:
    """Return the segments in a sidecar's data, in their order; entries that are none are left out."""
    found = info.get(SEGMENTS_KEY)
    segments = map(_segment, found) if isinstance(found, list) else ()
    return [segment for segment in segments if segment is not None]


def _segment(value: Any) -> Segment | None:
    if not isinstance(value, dict):
        return None
    start, end = _seconds(value.get("start")), _seconds(value.get("end"))
    if start is None or end is None or start >= end:
        return None
    made = value.get("provenance")
    return Segment(
        span=Span(start, end),
        captions=_texts(value.get("captions")),
        provenance=made if isinstance(made, dict) else {},
        reasoning=_texts(value.get("reasoning")),
        is_silent=value.get("silent") is True,
    )


def _seconds(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < _LONGEST else None


def _texts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {preset: text for preset, text in value.items() if isinstance(text, str) and text.strip()}


def is_cut_so(info: Mapping[str, Any], cutting: Cutting) -> bool:
    """Return whether the segments in a sidecar's data were cut in this way."""
    wanted = cutting.as_json()
    made = provenance_of(info, SEGMENTS)
    return wanted == {key: made[key] for key in (*wanted, "align", "start", "fraction", "max_seconds") if key in made}


def cut_audio(info: Mapping[str, Any]) -> Any:
    """Return the identity of the audio file that was cut; None where it is not recorded."""
    return provenance_of(info, SEGMENTS).get("audio")


def has_edited_segments(info: Mapping[str, Any]) -> bool:
    """Return whether a person edited a caption of a segment."""
    return any(is_edited(made) for made in _provenances(segments_of(info)))


def has_real_segments(info: Mapping[str, Any]) -> bool:
    """Return whether a segment has a caption that is not the tiny model's."""
    return any(
        has_real_caption(segment.as_info(), preset) for segment in segments_of(info) for preset in segment.captions
    )


def _provenances(segments: Iterable[Segment]) -> Iterable[Mapping[str, Any]]:
    return (made for segment in segments for made in segment.provenance.values() if isinstance(made, Mapping))


def keys_with(
    info: Mapping[str, Any], spans: Sequence[Span], segment: Segment, record: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the keys that set ``segment`` in a sidecar with ``info``, of a track that is cut into ``spans``.

    Segments that are there with the same ends stay; others go, as does the silence of another audio file. ``record``:
    how the track is cut.
    """
    is_other = _hash_of(cut_audio(info)) != _hash_of(record.get("audio"))
    kept = (each for each in segments_of(info) if not (each.is_silent and is_other))
    known = {each.span: each for each in kept} | {segment.span: segment}
    segments = [known.get(span) or Segment(span) for span in spans]
    return {SEGMENTS_KEY: [each.as_json() for each in segments], PROVENANCE_KEY: {SEGMENTS: dict(record)}}


def _hash_of(identity: Any) -> Any:
    return identity.get("hash") if isinstance(identity, Mapping) else None


def segments_with_audio(info: Mapping[str, Any], was: Mapping[str, Any], now: Mapping[str, Any]) -> list[Any] | None:
    """Return the list of segments where what is recorded of the audio file ``was`` holds for the file ``now``.

    None where there is nothing to change.
    """
    segments = info.get(SEGMENTS_KEY)
    if not isinstance(segments, list):
        return None
    changed = [_with_audio(each, was, now) for each in segments]
    return changed if changed != segments else None


def _with_audio(segment: Any, was: Mapping[str, Any], now: Mapping[str, Any]) -> Any:
    made_of = segment.get("provenance") if isinstance(segment, dict) else None
    if not isinstance(made_of, dict):
        return segment
    moved = {
        preset: {**made, "audio": now}
        if isinstance(made, dict) and _hash_of(made.get("audio")) == was["hash"]
        else made
        for preset, made in made_of.items()
    }
    return {**segment, "provenance": moved}
