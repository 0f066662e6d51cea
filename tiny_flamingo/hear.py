"""Stage one, ``python -m tiny_flamingo.hear``: the encoder learns what sounds when, and what the song is.

Pieces of 8 s first (attention over 400 positions, seven times as many songs a second), then whole windows of
30 s padded with silence, as llama.cpp feeds them. Every frame has a truth of its own (notes and hits), so the
first layers learn in minutes what the labels of a whole song would teach them in days.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tiny_flamingo import data
from tiny_flamingo.learning import Learner
from tiny_flamingo.model import POSITIONS, Heads, config, encoder_of, hear, keep_positions_clean, new_model

STEPS = {"piece": 3600, "window": 1500}
BATCH = {"piece": 24, "window": 12}
RATE = {"piece": 1.5e-3, "window": 6e-4}
SCORE_WEIGHT = {"piece": 4.0, "window": 2.0}  # windows know their notes from the pieces
LATE = {"structure": 2.0, "dynamics": 2.0}  # heard in whole windows only; what is slow to learn there weighs more
LABEL_WEIGHT = {"piece": dict.fromkeys(LATE, 0.0), "window": {**LATE, "drums": 4.0}}
FIRST_LAYERS = 4  # see seed.py for the fifth
SHAPE = {"piece": data.PIECE, "window": data.WINDOW}


class Ears(nn.Module):
    """The encoder and its heads."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.tower = encoder_of(new_model(config(8, audio_token=7, end=6, pad=5, encoder_layers=layers)))
        self.heads = Heads()

    def forward(self, mel: Tensor, first: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
        middle, output = hear(self.tower, mel, first)
        return self.heads.score(middle), self.heads.split(output)


def losses(ears: Ears, batch: list[Tensor], stage: str) -> tuple[Tensor, dict[str, float]]:
    mel, score, labels = batch
    room = POSITIONS - mel.shape[-1] // 2 if stage == "window" else 0  # short songs sound anywhere in a window
    rows, guesses = ears(mel, int(torch.randint(0, room + 1, ())))
    rare = torch.ones(score.shape[-1])
    rare[24:] = 4.0  # an onset is short
    total = SCORE_WEIGHT[stage] * F.binary_cross_entropy_with_logits(rows, score, pos_weight=rare)
    right = {"score": total.item()}
    for index, (name, logits) in enumerate(guesses.items()):
        weight = LABEL_WEIGHT[stage].get(name, 1.0)
        if not weight:
            continue
        truth = labels[:, index]
        logits = logits[:, 4::8]  # every token is to know; an eighth of them are asked
        loss = F.cross_entropy(logits.flatten(0, 1), truth.repeat_interleave(logits.shape[1]))
        total = total + weight * loss
        right[name] = float((logits.softmax(-1).mean(1).argmax(-1) == truth).float().mean())
    return total, right


def load_ears(checkpoint: Path) -> Ears:
    """The encoder and heads of a checkpoint, of this stage or another, with as many layers as they have."""
    weights = torch.load(checkpoint)["ears"]
    names = [name.split(".") for name in weights]
    ears = Ears(1 + max(int(parts[2]) for parts in names if parts[:2] == ["tower", "layers"]))
    ears.load_state_dict(weights)
    return ears


def begin(folder: Path, stage: str, start: Path | None) -> Ears:
    """What a run begins with: ``start``'s weights, else for windows what it learned from pieces, else random ones."""
    start = start or (folder / "piece.pt" if stage == "window" else None)
    return load_ears(start) if start else Ears(FIRST_LAYERS)


def batches(stage: str, run: int, step: int, steps: int, short: int) -> Iterator[list[Tensor]]:
    """A stage's batches; among whole windows, ``short`` batches of short songs after each."""
    share, size = 1 + short, BATCH[stage]
    done = -(-step // share)
    whole = data.batches(SHAPE[stage], run, done, steps, size)
    others = data.batches(data.SHORT, run + 1, step - done, steps, size) if short else iter(())
    for each in range(step, steps):
        yield next(others if each % share else whole)


def train(folder: Path, stage: str, run: int, steps: int, rate: float, start: Path | None, short: int) -> None:
    torch.manual_seed(0)
    checkpoint = folder / f"{stage}.pt"
    ears = load_ears(checkpoint) if checkpoint.exists() else begin(folder, stage, start)
    keep_positions_clean(ears.tower)
    learner = Learner(ears, "ears", checkpoint, rate, steps, decay=0.02)
    average: dict[str, float] = {}
    started = time.monotonic()
    for batch in batches(stage, run, learner.step, steps, short):
        loss, right = losses(ears, batch, stage)
        learner.learn(loss)
        keep_positions_clean(ears.tower)
        for name, value in {"loss": loss.item(), **right}.items():
            average[name] = 0.98 * average.get(name, value) + 0.02 * value
        if learner.step % 50 == 0:
            words = " ".join(f"{name} {value:.3f}" for name, value in average.items())
            print(f"{stage} {learner.step} {time.monotonic() - started:.0f}s {words}", flush=True)
        learner.save_sometimes()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("stage", choices=list(STEPS))
    options.add_argument("folder", type=Path)
    options.add_argument("--steps", type=int)
    options.add_argument("--rate", type=float, help="the highest learning rate")
    options.add_argument("--start", type=Path, help="begin with the weights of this checkpoint")
    options.add_argument("--run", type=int, default=0, help="each has songs of its own (0 to 9)")
    options.add_argument("--short", type=int, default=0, help="batches of short songs after each of whole windows")
    options.add_argument("--threads", type=int, default=2)
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    steps, rate = chosen.steps or STEPS[chosen.stage], chosen.rate or RATE[chosen.stage]
    train(chosen.folder, chosen.stage, chosen.run, steps, rate, chosen.start, chosen.short)


if __name__ == "__main__":
    main()
