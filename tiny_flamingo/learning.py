"""What both stages do with a loss: a step of AdamW under one rise and fall of its rate, and a state to go on from."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

_SAVED_EVERY = 250  # steps


class Learner:
    """Trains ``module`` for ``steps`` steps, or goes on from ``checkpoint``, which holds it under ``name``."""

    def __init__(self, module: nn.Module, name: str, checkpoint: Path, rate: float, steps: int, decay: float) -> None:
        self.module, self.checkpoint, self.steps, self.step = module, checkpoint, steps, 0
        optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=decay, betas=(0.9, 0.98))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.05)
        self._optimizer, self._schedule = optimizer, schedule
        self._parts = {name: module, "optimizer": optimizer, "schedule": schedule}
        if checkpoint.exists():
            saved = torch.load(checkpoint)
            self.step = saved["step"]
            for part, state in self._parts.items():
                state.load_state_dict(saved[part])

    def learn(self, loss: Tensor) -> None:
        """One step down the gradient."""
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self._optimizer.step()
        self._schedule.step()
        self.step += 1

    def save_sometimes(self) -> None:
        """Save the state every so often, and after the last step."""
        if self.step % _SAVED_EVERY == 0 or self.step == self.steps:
            save(
                self.checkpoint, {"step": self.step, **{name: part.state_dict() for name, part in self._parts.items()}}
            )


def save(path: Path, state: dict[str, object]) -> None:
    """Write a checkpoint, whole or not at all."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)
