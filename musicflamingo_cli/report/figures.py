"""The figures of a report or of one of its pages: totals and distributions, counted track by track."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from musicflamingo_cli.report.contents import CONTRADICTED, Entry, Source
from musicflamingo_cli.report.survey import SHARED_CAPTION, UNUSUAL_LENGTH, Survey, digest


@dataclass(slots=True)
class Figures:
    """Counts of tracks, of captions by their tokens, and of tracks by what their captions name.

    ``failures``: kind to number of tracks. ``flags``: flag to number of tracks.
    """

    source: Source
    survey: Survey
    tracks: int = 0
    seconds: float = 0.0
    complete: int = 0
    problems: int = 0
    checked: int = 0
    coverage: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    tokens: Counter[int] = field(default_factory=Counter)
    tempi: Counter[float] = field(default_factory=Counter)
    keys: Counter[str] = field(default_factory=Counter)
    genres: Counter[str] = field(default_factory=Counter)
    instruments: Counter[str] = field(default_factory=Counter)
    moods: Counter[str] = field(default_factory=Counter)
    _texts: dict[tuple[str, int], str] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        """Count a track."""
        self.tracks += 1
        self.seconds += entry.seconds
        self.complete += len(entry.captions) == len(self.source.presets)
        self.problems += bool(entry.problem)
        self.checked += entry.check is not None
        self.coverage.update(entry.captions.keys())
        self.failures.update(entry.kinds)
        self.flags.update(entry.flags)
        self.tokens.update(entry.tokens.values())
        facts = entry.facts
        self.tempi.update([facts.tempo] if facts.tempo else [])
        self.keys.update([facts.key] if facts.key else [])
        self.genres.update(facts.genres)
        self.instruments.update(facts.instruments)
        self.moods.update(facts.moods)
        if SHARED_CAPTION in entry.flags:
            for preset, text in entry.captions.items():
                if (key := (preset, digest(text))) in self.survey.most_shared:
                    self._texts.setdefault(key, text)

    @property
    def hours(self) -> float:
        """The length of all tracks in hours."""
        return self.seconds / 3600

    @property
    def captioned(self) -> dict[str, int]:
        """For each preset the number of tracks that have its caption."""
        return {preset: self.coverage[preset] for preset in self.source.presets}

    @property
    def most_shared(self) -> list[tuple[str, str, int]]:
        """Captions that several tracks have, as (preset, caption, number of tracks), the most frequent first."""
        most = self.survey.most_shared
        return [(key[0], self._texts[key], number) for key, number in most.items() if key in self._texts]

    def as_json(self) -> dict[str, Any]:
        """Return the figures for --json."""
        return {
            "dataset": str(self.source.root),
            "tracks": self.tracks,
            "complete": self.complete,
            "skipped": self.survey.skipped,
            "hours": round(self.hours, 3),
            "presets": self.captioned,
            "failures": dict(self.failures),
            "shared_captions": self.survey.shared,
            "checked": self.checked,
            "contradicted": self.flags[CONTRADICTED],
            "outliers": self.flags[UNUSUAL_LENGTH],
        }
