"""The finished adapter as a folder: the trained matrices, what they were trained on, a card for people."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from musicflamingo_cli._version import __version__
from musicflamingo_cli.finetuning.plan import Plan, Split
from musicflamingo_cli.models.adapters import ADAPTER, BASE_CONFIG
from musicflamingo_cli.models.catalog import load_catalog
from musicflamingo_cli.models.checkpoints import CONFIG
from musicflamingo_cli.models.fingerprint import fingerprint
from musicflamingo_cli.models.model import PEFT_CONFIG, WEIGHTS, Checkpoint

CARD = "README.md"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Result:
    """What a training came to. Losses are means over examples; ``losses``: of each epoch, training and validation.

    ``first``: the validation loss of the base model; ``best``: of the adapter, from ``best_epoch`` (counted from 0).
    """

    first: float
    best: float
    best_epoch: int
    losses: tuple[tuple[float, float], ...]

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Result:
        """Return what the worker's last event says."""
        losses = tuple((float(train), float(validation)) for train, validation in event["losses"])
        return cls(float(event["first"]), float(event["best"]), int(event["best_epoch"]), losses)


def write_adapter(
    part: Path, trained: Path, plan: Plan, checkpoint: Checkpoint, result: Result, versions: Mapping[str, str]
) -> None:
    """Fill the folder ``part`` with an adapter from the worker's matrices in ``trained``. Raises OSError."""
    part.mkdir()
    for name in (PEFT_CONFIG, WEIGHTS):
        shutil.copyfile(trained / name, part / name)
    (part / BASE_CONFIG).parent.mkdir()
    shutil.copyfile(checkpoint.folder / CONFIG, part / BASE_CONFIG)
    record = record_of(plan, checkpoint, result, versions)
    (part / ADAPTER).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (part / CARD).write_text(card(record), encoding="utf-8")


def record_of(plan: Plan, checkpoint: Checkpoint, result: Result, versions: Mapping[str, str]) -> dict[str, Any]:
    """Return what adapter.json says. No path of this machine is in it: adapters are given to others."""
    published = load_catalog().checkpoint(checkpoint.name)
    return {
        "format": _FORMAT,
        "base": {
            "name": checkpoint.name,
            "model_type": checkpoint.model_type,
            "fingerprint": fingerprint(checkpoint),
            "weights": plan.identity,
            "licence": published.licence if published else None,
            "tiny": checkpoint.is_tiny,
        },
        "projector": plan.settings.projector,
        "settings": {**asdict(plan.settings), "excerpt": asdict(plan.excerpt), "quantize": plan.quantize},
        "tracks": {split.value: sorted(track.name for track in plan.tracks if track.split == split) for split in Split},
        "examples": {split.value: len(plan.of(split)) for split in Split},
        "presets": dict(sorted(Counter(example.preset for example in plan.examples).items())),
        "loss": {
            "base": round(result.first, 5),
            "best": round(result.best, 5),
            "best_epoch": result.best_epoch + 1,
            "epochs": [{"train": round(train, 5), "validation": round(other, 5)} for train, other in result.losses],
        },
        "versions": {"musicflamingo": __version__, **versions},
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def card(record: Mapping[str, Any]) -> str:
    """Return the card of an adapter: what was trained on what, and what its licence depends on."""
    base, loss, tracks, examples = record["base"], record["loss"], record["tracks"], record["examples"]
    licence = base["licence"] or "see the base model's own card"
    presets = ", ".join(f"{name} ({count})" for name, count in record["presets"].items())
    parts = "the language model and the projector" if record["projector"] else "the language model"
    return f"""---
base_model: {base["name"]}
library_name: peft
tags: [music, captioning, lora]
---

# A LoRA adapter for {base["name"]}

Made by musicflamingo {record["versions"]["musicflamingo"]}. It changes {parts} of the base model; the base model's
weights are not included.

| | |
|---|---|
| trained on | {len(tracks["train"])} tracks, {examples["train"]} captions |
| validated on | {len(tracks["validation"])} other tracks, {examples["validation"]} captions |
| questions | {presets} |
| rank, highest learning rate | {record["settings"]["rank"]}, {record["settings"]["rate"]:g} |
| validation loss, before and after | {loss["base"]:.4f}, {loss["best"]:.4f} (epoch {loss["best_epoch"]}) |

The captions were approved or edited by a person unless `--all` was given. Their tracks are listed in `adapter.json`.
A lower loss does not say that the captions are better: compare them with
`musicflamingo compare DIR --lora THIS_FOLDER`.

## Licence

- The base model's weights: {licence}. An adapter is a derived work of them: the same terms apply to it, and to what is
  done with its captions.
- The audio and the captions that it was trained on are not included. Their own licences decide whether it may be given
  to others: state them here before you publish it.

## Use

    musicflamingo batch DIR --model {base["name"]} --lora THIS_FOLDER
"""
