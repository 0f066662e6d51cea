"""What is trained on what, as one value that the command makes and the worker process reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from musicflamingo_cli.types import Excerpt


class Split(StrEnum):
    """What an example is used for."""

    TRAIN = "train"
    VALIDATION = "validation"


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How an adapter is trained.

    ``rate``: the highest learning rate; it rises over the first steps, then falls. ``rank``: of the matrices.
    ``batch``: examples before each change of the weights. ``patience``: epochs without a lower validation loss after
    which training ends. ``projector``: train that, too. ``validation``: the share of tracks that is only validated on.
    """

    rate: float = 1e-4
    rank: int = 16
    epochs: int = 10
    batch: int = 8
    patience: int = 2
    dropout: float = 0.05
    projector: bool = False
    validation: float = 0.1
    seed: int = 42
    cache_gb: float = 20.0  # of audio features, on disk


# From the lowest to the highest that a person may choose: beyond, a 7B model forgets what it knew, or learns nothing.
LIMITS: dict[str, tuple[float, float]] = {
    "rate": (1e-6, 2e-3),
    "rank": (1, 256),
    "epochs": (1, 1000),
    "batch": (1, 1024),
    "patience": (1, 1000),
    "validation": (0.01, 0.5),
    "cache_gb": (0.1, 1e6),
}


@dataclass(frozen=True, slots=True)
class Example:
    """A question about a track, and the answer to learn. ``track``: its number in the plan's tracks."""

    track: int
    preset: str
    question: str
    system: str
    answer: str


@dataclass(frozen=True, slots=True)
class TrackPlan:
    """A track of the training. ``path``: its audio; ``name``: relative to its dataset; ``audio``: its identity."""

    path: str
    name: str
    dataset: str
    audio: str
    split: Split


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole training. ``model``: the checkpoint's folder; ``identity``: of its weights."""

    model: str
    identity: str
    tracks: Sequence[TrackPlan]
    examples: Sequence[Example]
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    excerpt: Excerpt = field(default_factory=Excerpt)
    features: str = ""  # the folder of encoded audio
    device: str | None = None
    quantize: str = "none"
    threads: int | None = None

    def of(self, split: Split) -> list[Example]:
        """Return the examples of a split."""
        return [each for each in self.examples if self.tracks[each.track].split == split]

    @property
    def digest(self) -> str:
        """What identifies the training's result: not where it runs."""
        values = {**self.as_json(), "features": "", "device": "", "threads": None}
        values["settings"] = {**values["settings"], "cache_gb": 0}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def read(cls, file: Path) -> Plan:
        """Return the plan that ``write`` wrote."""
        values = json.loads(file.read_text(encoding="utf-8"))
        values["tracks"] = [TrackPlan(**{**each, "split": Split(each["split"])}) for each in values["tracks"]]
        values["examples"] = [Example(**each) for each in values["examples"]]
        values["settings"] = TrainingSettings(**values["settings"])
        values["excerpt"] = Excerpt(**values["excerpt"])
        return cls(**values)

    def write(self, file: Path) -> None:
        """Write it as JSON."""
        file.write_text(json.dumps(self.as_json(), indent=1) + "\n", encoding="utf-8")
