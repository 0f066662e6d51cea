"""The training loop: epochs over the examples, a validation after each, and a state that a killed run continues from.

What is drawn at random depends on the seed and the step alone, so that a continued training repeats what the killed one
would have done. Used in the worker process only.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicflamingo_cli.errors import EngineError
from musicflamingo_cli.finetuning.features import Encoded
from musicflamingo_cli.finetuning.plan import Example, Plan, Split
from musicflamingo_cli.finetuning.student import Student
from musicflamingo_cli.finetuning.worker_files import STATE

if TYPE_CHECKING:
    from torch import Tensor


_WARM_UP = 0.05  # of all steps, while the learning rate rises
_LOWEST = 0.1  # of the highest learning rate, at the end
_LARGEST_GRADIENT = 1.0
_SAVE_SECONDS = 60.0  # between two saved states within an epoch


@dataclass(slots=True)
class Progress:
    """How far a training is. ``step``: of those in ``epoch``; ``waited``: epochs since the best one.

    ``losses``: of each epoch so far, training and validation; ``first``: the validation loss of the base model.
    """

    epoch: int = 0
    step: int = 0
    waited: int = 0
    first: float = math.inf
    best: float = math.inf
    best_epoch: int = 0
    losses: list[tuple[float, float]] = field(default_factory=list)
    running: float = 0.0  # the sum of the epoch's losses so far
    is_done: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What the loop reports after each step, and after each epoch with its validation loss."""

    epoch: int
    step: int
    steps: int  # of an epoch
    loss: float  # mean of the epoch so far
    seconds: float  # of work in this run
    done: float  # share of all steps, from 0 to 1
    validation: float | None = None


class Trainer:
    """Trains a student; ``features``: each track's encoded audio; ``accelerator``: of accelerate, one process or more.

    Each process works on its share of every batch. The gradients of the small trained matrices are added up, so all
    processes take the same steps.
    """

    def __init__(
        self, student: Student, plan: Plan, features: Callable[[int], Encoded], folder: Path, accelerator: Any
    ) -> None:
        import torch

        self._student = student
        self._plan = plan
        self._features = features
        self._folder = folder
        self._accelerator = accelerator
        self._train, self._validation = plan.of(Split.TRAIN), plan.of(Split.VALIDATION)
        self._steps = -(-len(self._train) // plan.settings.batch)
        self._optimizer = torch.optim.AdamW(student.parameters, lr=plan.settings.rate, weight_decay=0.0)
        self._best: dict[str, Tensor] = {}
        self.progress = Progress()

    def run(self, report: Callable[[Report], None]) -> Progress:
        """Train until the validation loss has stopped falling, or all epochs are done; keep the best epoch's matrices.

        Continues from a saved state. ``report`` is called after each step and each epoch.
        """
        self._load()
        progress, settings = self.progress, self._plan.settings
        if math.isinf(progress.first):
            progress.first = self._validated()
        started, saved = time.monotonic(), time.monotonic()
        while not progress.is_done:
            for step, batch in self._batches(progress.epoch, progress.step):
                progress.running += self._learn(step, batch)
                progress.step = step + 1
                report(self._report(started))
                if time.monotonic() - saved > _SAVE_SECONDS:
                    self._save()
                    saved = time.monotonic()
            validation = self._validated()
            report(self._report(started, validation))
            progress.losses.append((progress.running / len(self._train), validation))
            self._note(validation)
            progress.epoch, progress.step, progress.running = progress.epoch + 1, 0, 0.0
            progress.is_done = progress.epoch >= settings.epochs or progress.waited >= settings.patience
            self._save()
            saved = time.monotonic()
        if not self._best:
            raise EngineError("the loss is not a number", "train with a lower --rate")
        self._student.load_state(self._best)
        return progress

    def _note(self, validation: float) -> None:
        progress = self.progress
        if validation < progress.best:
            progress.best, progress.best_epoch, progress.waited = validation, progress.epoch, 0
            self._best = self._student.state()
        else:
            progress.waited += 1

    def _batches(self, epoch: int, first: int) -> Iterator[tuple[int, Sequence[Example]]]:
        """Yield the steps of an epoch from ``first`` on, each with its examples."""
        order = list(self._train)
        random.Random(f"{self._plan.settings.seed} {epoch}").shuffle(order)
        size = self._plan.settings.batch
        for step in range(first, self._steps):
            yield step, order[step * size : (step + 1) * size]

    def _learn(self, step: int, batch: Sequence[Example]) -> float:
        """Take one step; return the sum of the examples' losses."""
        import torch

        accelerator, settings = self._accelerator, self._plan.settings
        number = self.progress.epoch * self._steps + step
        torch.manual_seed(hash((settings.seed, number, accelerator.process_index)) % 2**31)  # of the dropout
        for group in self._optimizer.param_groups:
            group["lr"] = settings.rate * schedule(number, self._steps * settings.epochs)
        self._student.adapted.train()
        total = torch.zeros((), device=self._student.model.device)
        for example in batch[accelerator.process_index :: accelerator.num_processes]:
            loss = self._student.loss(example, self._features(example.track))
            (loss / len(batch)).backward()
            total += loss.detach()
        parameters = self._student.parameters
        if accelerator.num_processes > 1:
            for parameter in parameters:
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = accelerator.reduce(gradient, "sum")
            total = accelerator.reduce(total, "sum")
        torch.nn.utils.clip_grad_norm_(parameters, _LARGEST_GRADIENT)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return float(total)

    def _validated(self) -> float:
        """Return the mean loss over the validation examples."""
        import torch

        accelerator = self._accelerator
        self._student.adapted.eval()
        total = torch.zeros((), device=self._student.model.device)
        with torch.no_grad():
            for example in self._validation[accelerator.process_index :: accelerator.num_processes]:
                total += self._student.loss(example, self._features(example.track))
        if accelerator.num_processes > 1:
            total = accelerator.reduce(total, "sum")
        return float(total) / len(self._validation)

    def _report(self, started: float, validation: float | None = None) -> Report:
        progress, epochs = self.progress, self._plan.settings.epochs
        return Report(
            epoch=progress.epoch,
            step=progress.step,
            steps=self._steps,
            loss=progress.running / min(len(self._train), progress.step * self._plan.settings.batch),
            seconds=time.monotonic() - started,
            done=(progress.epoch * self._steps + progress.step) / (self._steps * epochs),
            validation=validation,
        )

    def _save(self) -> None:
        """Write all that a continued training needs; the file is complete, or the earlier one stays."""
        import torch

        if not self._accelerator.is_main_process:
            return
        part = self._folder / f".{STATE}"
        torch.save(
            {
                "plan": self._plan.digest,
                "progress": asdict(self.progress),
                "matrices": self._student.state(),
                "best": self._best,
                "optimizer": self._optimizer.state_dict(),
            },
            part,
        )
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(self._folder / STATE)

    def _load(self) -> None:
        """Continue from the saved state, if there is one."""
        import torch

        file = self._folder / STATE
        if not file.exists():
            return
        state: Mapping[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        self.progress = Progress(**state["progress"])
        self._best = state["best"]
        self._student.load_state(state["matrices"])
        self._optimizer.load_state_dict(state["optimizer"])


def schedule(step: int, steps: int) -> float:
    """Return the learning rate at a step as a share of the highest: it rises for a while, then falls along a cosine.

    >>> [round(schedule(step, 40), 2) for step in (0, 1, 20, 39)]
    [0.5, 1.0, 0.55, 0.1]
    """
    rising = min(1.0, (step + 1) / max(1, round(_WARM_UP * steps)))
    falling = _LOWEST + (1 - _LOWEST) * 0.5 * (1 + math.cos(math.pi * step / max(1, steps)))
    return rising * falling
