"""Is an adapter better? What the base model and the adapted one claim of tracks that it was not trained on.

Both are compared with the captions that a person approved, in what they claim: tempo, key, genres, instruments.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from musicflamingo_cli.captioning.comparison import TrackComparison
from musicflamingo_cli.dataset.tracks import find_tracks
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.finetuning.examples import Choice
from musicflamingo_cli.finetuning.plan import Split
from musicflamingo_cli.models.model import Adapter
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.captions import caption_key
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.text.agreement import Match, match_keys, match_tempi
from musicflamingo_cli.text.facts import Facts, facts_in
from musicflamingo_cli.types import Track

_WORD = re.compile(r"[^\W\d_]{3,}")
_MOST_WORDS = 20


class Kind(StrEnum):
    """What a claim is about."""

    TEMPO = "tempo"
    KEY = "key"
    GENRE = "genre"
    INSTRUMENT = "instrument"


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of an approved caption, and whether each of the two models makes it, too."""

    track: Path
    preset: str
    kind: Kind
    value: str
    base: bool
    adapted: bool


@dataclass(frozen=True, slots=True)
class Score:
    """Claims of one kind. ``extra_…``: genres or instruments that a model names and the approved caption does not."""

    total: int
    base: int
    adapted: int
    extra_base: int
    extra_adapted: int


@dataclass(frozen=True, slots=True)
class NewWord:
    """A word of the approved captions that the base model lacks. Counts are of captions with it."""

    word: str
    approved: int
    base: int
    adapted: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result. ``failed``: captions that the adapter did not give.

    ``lost``: claims that the base model made and the adapted one does not; ``gained``: the reverse. ``loss_base``,
    ``loss_adapted``: over the validation captions when it was trained.
    """

    tracks: int
    captions: int
    failed: int
    scores: Mapping[Kind, Score]
    lost: Sequence[Claim]
    gained: Sequence[Claim]
    words: Sequence[NewWord]
    loss_base: float
    loss_adapted: float

    @property
    def is_better(self) -> bool:
        """Whether the loss fell, every caption was given, and of the claims that were compared no kind got worse."""
        kept = all(score.adapted >= score.base for score in self.scores.values())
        return self.loss_adapted < self.loss_base and kept and not self.failed and self._total > 0

    @property
    def _total(self) -> int:
        return sum(score.total for score in self.scores.values())

    @property
    def verdict(self) -> str:
        """The result as one line."""
        base, adapted = (sum(getattr(score, side) for score in self.scores.values()) for side in ("base", "adapted"))
        counts = f"{adapted} of {self._total} claims agree with the adapter, {base} without ({len(self.lost)} lost,"
        advice = "better" if self.is_better else "not recommended"
        failed = f"; it gave no caption {self.failed} times" if self.failed else ""
        return f"{advice}: {counts} {len(self.gained)} gained){failed}"

    def as_json(self) -> dict[str, Any]:
        """Return what `compare --lora --json` prints at its end (docs/finetune.md)."""
        return {
            "tracks": self.tracks,
            "captions": self.captions,
            "failed": self.failed,
            "better": self.is_better,
            "claims": {
                kind.value: {
                    "approved": score.total,
                    "base": score.base,
                    "adapter": score.adapted,
                    "extra_base": score.extra_base,
                    "extra_adapter": score.extra_adapted,
                }
                for kind, score in self.scores.items()
            },
            "lost": [_as_json(claim) for claim in self.lost],
            "gained": [_as_json(claim) for claim in self.gained],
            "words": [
                {"word": each.word, "approved": each.approved, "base": each.base, "adapter": each.adapted}
                for each in self.words
            ],
            "loss": {"base": self.loss_base, "adapter": self.loss_adapted},
        }


def _as_json(claim: Claim) -> dict[str, str]:
    return {"track": str(claim.track), "preset": claim.preset, "kind": claim.kind.value, "value": claim.value}


@dataclass(frozen=True, slots=True)
class Approved:
    """A track that the adapter was not trained on, with its approved captions by preset."""

    track: Track
    presets: Sequence[Preset]
    captions: Mapping[str, str]


def validation_tracks(datasets: Sequence[Path], adapter: Adapter, presets: Sequence[Preset]) -> list[Approved]:
    """Return the tracks of the datasets that the adapter was validated on and that have approved captions.

    Raises ConfigError where there are none.
    """
    names = adapter.record.get("tracks", {})
    held_out = set(names.get(Split.VALIDATION.value, ()))
    choice = Choice(presets=presets, validation=0.0, takes_tiny=adapter.record["base"].get("tiny") is True)
    found = []
    for root in datasets:
        base = root if root.is_dir() else root.parent
        for item in find_tracks(root):
            if isinstance(item, Track) and item.audio.relative_to(base).as_posix() in held_out:
                info = read_sidecar(item.sidecar)
                chosen = [preset for preset in presets if choice.takes(info, preset.name)]
                captions = {preset.name: str(info[caption_key(preset.name)]) for preset in chosen}
                if chosen:
                    found.append(Approved(item, chosen, captions))
    if not found:
        raise ConfigError(
            f"none of the {len(held_out)} validation tracks of {adapter.name} is there with an approved caption",
            "name the dataset that it was trained on",
        )
    return found


def evaluate(compared: Sequence[TrackComparison], approved: Sequence[Approved], adapter: Adapter) -> Evaluation:
    """Compare answers with approved captions. Of each comparison, the first side is the base, the second the adapter's.

    A preset that the base failed to answer is left out; where the adapter fails, it makes no claims.
    """
    claims: list[Claim] = []
    extra: dict[Kind, list[int]] = {kind: [0, 0] for kind in Kind}
    texts: list[tuple[str, str, str]] = []
    failed = 0
    for track, known in zip(compared, approved, strict=True):
        for preset, text in known.captions.items():
            base, adapted = track.presets[preset].captions[:2]
            if base.failure:
                continue
            failed += adapted.failure is not None
            texts.append((text, base.text, adapted.text))
            expected = facts_in(text)
            for side, facts in enumerate((base.facts, adapted.facts)):
                extra[Kind.GENRE][side] += len(set(facts.genres) - set(expected.genres))
                extra[Kind.INSTRUMENT][side] += len(set(facts.instruments) - set(expected.instruments))
            claims += _claims(track.track, preset, expected, base.facts, adapted.facts)
    loss = adapter.record.get("loss", {})
    return Evaluation(
        tracks=len(compared),
        captions=len(texts),
        failed=failed,
        scores={kind: _score([each for each in claims if each.kind == kind], extra[kind]) for kind in Kind},
        lost=[claim for claim in claims if claim.base and not claim.adapted],
        gained=[claim for claim in claims if claim.adapted and not claim.base],
        words=_new_words(texts),
        loss_base=float(loss.get("base", 0.0)),
        loss_adapted=float(loss.get("best", 0.0)),
    )


def _claims(track: Path, preset: str, expected: Facts, base: Facts, adapted: Facts) -> Iterator[Claim]:
    """Yield the approved caption's claims."""
    sides = (base, adapted)
    if expected.tempo is not None:
        agrees = [match_tempi(expected.tempo, side.tempo) is Match.SAME for side in sides]
        yield Claim(track, preset, Kind.TEMPO, f"{expected.tempo:g} BPM", *agrees)
    if expected.key:
        agrees = [match_keys(expected.key, side.key) is Match.SAME for side in sides]
        yield Claim(track, preset, Kind.KEY, expected.key, *agrees)
    for genre in expected.genres:
        yield Claim(track, preset, Kind.GENRE, genre, *(genre in side.genres for side in sides))
    for instrument in expected.instruments:
        yield Claim(track, preset, Kind.INSTRUMENT, instrument, *(instrument in side.instruments for side in sides))


def _score(claims: Sequence[Claim], extra: Sequence[int]) -> Score:
    return Score(
        total=len(claims),
        base=sum(claim.base for claim in claims),
        adapted=sum(claim.adapted for claim in claims),
        extra_base=extra[0],
        extra_adapted=extra[1],
    )


def _new_words(texts: Sequence[tuple[str, str, str]]) -> list[NewWord]:
    """Return the words that approved captions use at least twice as often as the base model, the commonest first."""
    approved, base, adapted = (
        Counter(word for each in texts for word in set(_WORD.findall(each[side].casefold()))) for side in range(3)
    )
    found = [
        NewWord(word, count, base[word], adapted[word])
        for word, count in approved.items()
        if count >= 2 and count >= 2 * base[word]
    ]
    return sorted(found, key=lambda each: (each.base - each.approved, each.word))[:_MOST_WORDS]
