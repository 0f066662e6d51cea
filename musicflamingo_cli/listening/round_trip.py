"""Which claims of a caption come back when the music made from it is measured and captioned again.

An indication of what a caption carries, not a score of truth: the generator may miss what a caption says, and the
captioner may miss what the generator made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from musicflamingo_cli.trust.claims import Claim, Field, claims_in
from musicflamingo_cli.trust.verdicts import are_related, match_names

FIELDS = (Field.TEMPO, Field.KEY, Field.INSTRUMENT)
_TOLERANCE = 0.04  # of a tempo
_OCTAVES = (1.0, 2.0, 0.5)


class Result(StrEnum):
    """Whether a claim came back."""

    CAME_BACK = "came back"
    LOST = "lost"
    UNKNOWN = "unknown"  # nothing measured, nothing said


@dataclass(frozen=True, slots=True)
class Returned:
    """A claim of the caption that a clip was made from, and whether it came back. ``detail``: what came instead."""

    field: Field
    value: str
    result: Result
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """What came back. ``captioner``: the model that captioned the clip. ``preset``: what it was asked.

    ``caption``: its answer; empty with a ``failure``. ``bpm``, ``key``: measured; None where they are not sure.
    """

    captioner: str
    preset: str
    caption: str
    bpm: float | None = None
    key: str | None = None
    claims: tuple[Returned, ...] = ()
    failure: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the value in the clip's JSON file (docs/listen.md)."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> RoundTrip | None:
        """Return what ``as_json`` wrote; None for anything else."""
        try:
            claims = tuple(
                Returned(Field(each["field"]), str(each["value"]), Result(each["result"]), str(each["detail"]))
                for each in value["claims"]
            )
            return cls(**{**value, "claims": claims})
        except (TypeError, KeyError, ValueError):
            return None


def returned_claims(caption: str, bpm: float | None, key: str | None, again: str) -> Iterator[Returned]:
    """Yield the tempi, keys and instruments that ``caption`` claims, each value once, with what came back.

    ``bpm`` and ``key`` are measured, None where that is not sure. Then, as instruments always, they are what the new
    caption ``again`` claims (empty: there is none).
    """
    new = [claim for claim in claims_in(again) if claim.field in FIELDS]
    seen: set[tuple[Field, str]] = set()
    for claim in claims_in(caption):
        if claim.field not in FIELDS or (claim.field, claim.value) in seen:
            continue
        seen.add((claim.field, claim.value))
        said = [each for each in new if each.field == claim.field]
        match claim.field:
            case Field.TEMPO if bpm:
                is_back, detail = _is_near(claim, bpm), f"measured {bpm:.1f} BPM"
            case Field.KEY if key:
                is_back, detail = match_names(claim.value, key), f"measured {key}"
                detail += "" if is_back or not are_related(claim.value, key) else ", a related key"
            case Field.INSTRUMENT if again:
                is_back, detail = any(each.value == claim.value for each in said), ""
            case Field.TEMPO if said:
                is_back = any(_is_near(claim, (each.low + each.high) / 2) for each in said)
                detail = f"captioned {said[0].value} BPM"
            case Field.KEY if said:
                is_back, detail = (
                    any(match_names(claim.value, each.value) for each in said),
                    f"captioned {said[0].value}",
                )
            case _:
                yield Returned(claim.field, claim.value, Result.UNKNOWN)
                continue
        yield Returned(claim.field, claim.value, Result.CAME_BACK if is_back else Result.LOST, detail)


def _is_near(claim: Claim, bpm: float) -> bool:
    """Return whether a tempo is the claimed one within 4 %, or an octave from it."""
    return any(
        claim.low * ratio * (1 - _TOLERANCE) <= bpm <= claim.high * ratio * (1 + _TOLERANCE) for ratio in _OCTAVES
    )


@dataclass(slots=True)
class Count:
    """How many claims came back, were lost, or are unknown."""

    back: int = 0
    lost: int = 0
    unknown: int = 0

    def add(self, result: Result) -> None:
        """Count a claim."""
        self.back += result is Result.CAME_BACK
        self.lost += result is Result.LOST
        self.unknown += result is Result.UNKNOWN

    @property
    def share(self) -> float | None:
        """The share that came back of those that are known; None where none is."""
        known = self.back + self.lost
        return self.back / known if known else None

    def __str__(self) -> str:
        """Return `3 of 4`, with the unknown ones; a dash where there are no claims."""
        if not self.back + self.lost + self.unknown:
            return "—"
        unknown = f", {self.unknown} unknown" if self.unknown else ""
        return f"{self.back} of {self.back + self.lost}{unknown}"


@dataclass(slots=True)
class PresetCount:
    """What came back of the captions of one preset, over a sample.

    ``chance``: of the claims of another track's caption, compared with the same clips.
    """

    preset: str
    clips: int = 0
    chance: Count = field(default_factory=lambda: Count())
    fields: dict[Field, Count] = field(default_factory=lambda: {each: Count() for each in FIELDS})

    @property
    def total(self) -> Count:
        """All fields together."""
        counts = self.fields.values()
        return Count(
            sum(each.back for each in counts), sum(each.lost for each in counts), sum(each.unknown for each in counts)
        )

    def as_json(self) -> dict[str, Any]:
        """Return its row of `listen --json`."""
        return {
            "preset": self.preset,
            "clips": self.clips,
            "fields": {name: asdict(count) for name, count in self.fields.items()},
            "came_back": self.total.back,
            "share": self.total.share,
            "share_by_chance": self.chance.share,
        }


def count_by_preset(trips: Iterable[tuple[str, str, RoundTrip]]) -> Sequence[PresetCount]:
    """Return what came back by preset; the one whose captions carried most claims a clip first.

    ``trips``: preset, what was read of the caption, and what came back of it.
    """
    by_preset: dict[str, list[tuple[str, RoundTrip]]] = {}
    for preset, caption, trip in trips:
        by_preset.setdefault(preset, []).append((caption, trip))
    counts = [_count(preset, found) for preset, found in by_preset.items()]
    return sorted(counts, key=lambda each: (-each.total.back / each.clips, each.preset))


def _count(preset: str, found: Sequence[tuple[str, RoundTrip]]) -> PresetCount:
    count = PresetCount(preset, len(found))
    for number, (caption, trip) in enumerate(found):
        for claim in trip.claims:
            count.fields[claim.field].add(claim.result)
        other = found[number - 1][0]  # of the track before it; of the last one for the first
        if other != caption:
            for claim in returned_claims(other, trip.bpm, trip.key, trip.caption):
                count.chance.add(claim.result)
    return count
