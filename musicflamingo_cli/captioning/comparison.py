"""Several engines and models caption the same tracks: which of them says what, and how far they agree."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from musicflamingo_cli.captioning.captioner import open_captioner
from musicflamingo_cli.choices import EngineName
from musicflamingo_cli.config import Settings
from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.errors import ConfigError, FailureKind, ModelError, SidecarError, ToolMissingError, suggestion
from musicflamingo_cli.models.model import Model
from musicflamingo_cli.models.resolve import resolve_model
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.text.agreement import Agreement, agreement, marked_words
from musicflamingo_cli.text.facts import Facts, facts_in
from musicflamingo_cli.types import Failure, Outcome, Track, Workload

logger = logging.getLogger(__name__)

_AUTO_MODEL = "auto"


@dataclass(frozen=True, slots=True)
class SideName:
    """An engine and a model as the user names them; either may be `auto`. ``lora``: an adapter's folder, if any."""

    engine: EngineName
    model: str
    lora: Path | None = None

    @classmethod
    def parse(cls, text: str) -> SideName:
        """Read `ENGINE:MODEL`, `ENGINE` or `MODEL`, and `+ADAPTER` after any of them. Raises ConfigError.

        A model may contain colons and slashes, and a path a plus sign.

        >>> SideName.parse("server:owner/name-GGUF:Q6_K")
        SideName(engine=<EngineName.SERVER: 'server'>, model='owner/name-GGUF:Q6_K', lora=None)
        >>> SideName.parse("native:Q6_K+mine").lora
        PosixPath('mine')
        """
        before, plus, adapter = text.rpartition("+")
        if plus and adapter and not Path(text.partition(":")[2] or text).exists():
            return replace(cls.parse(before or _AUTO_MODEL), lora=Path(adapter))
        first, colon, rest = text.partition(":")
        if first in list(EngineName):
            return cls(EngineName(first), rest or _AUTO_MODEL)
        if colon and "/" not in first and not Path(text).exists():
            raise ConfigError(f"--with {text}: no engine {first!r}{suggestion(first, list(EngineName))}")
        return cls(EngineName.AUTO, text or _AUTO_MODEL)


@dataclass(frozen=True, slots=True)
class Side:
    """An engine and a model that were found. ``engine``: the one that runs, where the user named `auto`."""

    engine: str
    model: Model
    settings: Settings

    @property
    def model_name(self) -> str:
        """The model's name, as in `caption --json`, and `+` and its adapter's."""
        return f"{self.model.name}+{self.model.adapter.name}" if self.model.adapter else self.model.name


@dataclass(frozen=True, slots=True)
class SideCaption:
    """What one side answered to one preset: a text, or a failure.

    ``seconds``: from the question to the answer, None for a failure. ``tokens``: of the answer, None where the engine
    does not say.
    """

    side: Side
    text: str = ""
    seconds: float | None = None
    tokens: int | None = None
    failure: Failure | None = None

    @property
    def facts(self) -> Facts:
        """What the text names: the model's claims."""
        return facts_in(self.text)

    def as_json(self) -> dict[str, Any]:
        """Return what `compare --json` prints for a side (docs/compare.md)."""
        facts = self.facts
        return {
            "engine": self.side.engine,
            "model": self.side.model_name,
            "text": self.text or None,
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "tokens": self.tokens,
            "failure": self.failure and {"reason": self.failure.reason, "hint": self.failure.hint},
            "claims": {
                "tempo": facts.tempo,
                "key": facts.key or None,
                "genres": facts.genres,
                "instruments": facts.instruments,
            },
        }


@dataclass(frozen=True, slots=True)
class PresetComparison:
    """The answers of all sides to one preset. The first one is what the others are compared with."""

    captions: tuple[SideCaption, ...]

    def agreement(self, index: int) -> Agreement | None:
        """Return how a side agrees with the first one, or None where one of them failed."""
        first, other = self.captions[0], self.captions[index]
        if first.failure or other.failure:
            return None
        return agreement(first.facts, other.facts)

    def counterpart(self, index: int) -> SideCaption:
        """Return what a side is shown beside: the first side, or for the first one the second."""
        return self.captions[0 if index else 1]

    def marked(self, index: int) -> Iterator[tuple[str, bool]]:
        """Yield a side's text in runs; True marks words that differ from its counterpart's, if that has a text."""
        text, other = self.captions[index].text, self.counterpart(index).text
        return marked_words(text, other) if other else iter([(text, False)])

    def as_json(self) -> dict[str, Any]:
        """Return what `compare --json` prints for a preset."""
        found = [self.agreement(index) for index in range(1, len(self.captions))]
        return {
            "sides": [caption.as_json() for caption in self.captions],
            "agreement": [each and asdict(each) for each in found],
        }


@dataclass(frozen=True, slots=True)
class TrackComparison:
    """The answers of all sides about one track, by preset."""

    track: Path
    presets: Mapping[str, PresetComparison]

    @property
    def has_failures(self) -> bool:
        """Whether any side gave no caption."""
        return any(caption.failure for preset in self.presets.values() for caption in preset.captions)

    def as_json(self) -> dict[str, Any]:
        """Return the object that `compare --json` prints for a track."""
        return {
            "track": str(self.track),
            "presets": {name: preset.as_json() for name, preset in self.presets.items()},
        }


def find_sides(names: Sequence[SideName], settings: Settings, workload: Workload) -> list[Side]:
    """Return the sides, each checked to have its model and its engine; no model is loaded yet.

    ``settings`` apply to all, but for engine and model. Raises ConfigError, ModelError and ToolMissingError.
    """
    found = []
    for name in names:
        own = replace(settings, engine=name.engine, model=name.model, mmproj=None, lora=name.lora)
        model = resolve_model(own)
        with open_captioner(own, workload, model) as captioner:
            found.append(Side(captioner.engine.name, model, own))
    return found


def ask_all(
    tracks: Sequence[tuple[Path, Sequence[Preset]]], sides: Sequence[Side], workload: Workload
) -> list[TrackComparison]:
    """Ask all sides about all tracks, one side after another, since a GPU holds one model. Nothing is saved.

    ``tracks``: audio files with their presets. A side that fails has failures, and the others are still asked.
    """
    outcomes = [_ask(side, tracks, workload) for side in sides]
    return [
        TrackComparison(path, {preset.name: _comparison(preset.name, sides, about) for preset in presets})
        for (path, presets), *about in zip(tracks, *outcomes, strict=True)
    ]


def _ask(side: Side, tracks: Sequence[tuple[Path, Sequence[Preset]]], workload: Workload) -> list[Outcome]:
    """Return one side's outcome for each track."""
    done: list[Outcome] = []
    try:
        with open_captioner(side.settings, workload, side.model) as captioner:
            for path, presets in tracks:
                logger.info("%s with %s: %s", side.engine, side.model_name, path)
                track = track_for(path)
                done.append(captioner.caption(track, presets, _read(track), save=False))
    except (ToolMissingError, ModelError) as error:  # it concerns all tracks that are left
        failure = Failure(preset="", kind=FailureKind.ENGINE, reason=str(error), hint=error.hint)
        done += [Outcome(track_for(path), failures=(failure,)) for path, _ in tracks[len(done) :]]
    return done


def _read(track: Track) -> Mapping[str, Any]:
    """Return the sidecar's data, for the prompts' variables; none where it cannot be read."""
    try:
        return read_sidecar(track.sidecar)
    except SidecarError as error:
        logger.warning("%s", Failure.for_track(error).line(track.audio))
        return {}


def _comparison(preset: str, sides: Sequence[Side], about: Sequence[Outcome]) -> PresetComparison:
    return PresetComparison(tuple(_caption(preset, side, each) for side, each in zip(sides, about, strict=True)))


def _caption(preset: str, side: Side, outcome: Outcome) -> SideCaption:
    """Return what a side answered to a preset; a failure without a preset is one of all."""
    for caption in outcome.captions:
        if caption.preset == preset:
            answer = caption.answer
            return SideCaption(side=side, text=caption.text, seconds=answer.seconds, tokens=answer.answer_tokens)
    failure = next(each for each in outcome.failures if each.preset in (preset, ""))
    return SideCaption(side=side, failure=failure)
