"""The worker halves its batches where memory runs out, and one clip's error costs that clip only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from musicflamingo_cli.config import GenerationSettings
from musicflamingo_cli.engines.messages import Notice
from musicflamingo_cli.listening.messages import BatchRequest, ClipOrder, Made
from musicflamingo_cli.listening.model import Caption
from musicflamingo_cli.listening.worker import NO_MEMORY, Worker

pytestmark = pytest.mark.slow  # torch takes seconds to import


class Misbehaving:
    """A model that holds ``most`` clips at once, and fails where a caption is `bad`."""

    rate, channels = 32_000, 1

    def __init__(self, most: int) -> None:
        import torch

        self.device = torch.device("cpu")
        self._most = most
        self.batches: list[int] = []

    def make(
        self, orders: Sequence[ClipOrder], settings: GenerationSettings, on_step: Callable[[float], None]
    ) -> list[np.ndarray]:
        import torch

        self.batches.append(len(orders))
        if len(orders) > self._most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if any(order.text == "bad" for order in orders):
            raise ValueError("the model's audio is not finite")
        return [np.zeros((10, 1), np.float32) for _ in orders]

    def caption(self, text: str) -> Caption:
        return Caption((), len(text), len(text))


def answers(model: Any, tmp_path: Path, *texts: str) -> list[Any]:
    ours, theirs = Pipe()
    orders = [ClipOrder(number, text, str(tmp_path / f"{number}.wav")) for number, text in enumerate(texts)]
    ours.send(BatchRequest(orders, GenerationSettings()))
    worker = Worker(model, theirs)
    worker._make_all(theirs.recv())
    received = []
    while ours.poll():
        received.append(ours.recv())
    return received


def test_a_lack_of_memory_halves_the_batch(tmp_path: Path) -> None:
    model = Misbehaving(most=2)
    received = answers(model, tmp_path, *"abcdefg")
    assert model.batches == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert [each.text for each in received if isinstance(each, Notice)] == [
        "not enough memory for 7 clips at once; making 3 at a time",
        "not enough memory for 3 clips at once; making 1 at a time",
    ]
    made = [each for each in received if isinstance(each, Made)]
    assert [(each.number, each.error, each.samples) for each in made] == [(n, "", 10) for n in range(7)]
    assert soundfile.info(tmp_path / "6.wav").frames == 10


def test_a_clip_that_fits_nowhere_fails_alone(tmp_path: Path) -> None:
    received = answers(Misbehaving(most=0), tmp_path, "a", "b")
    assert [each.error for each in received if isinstance(each, Made)] == [NO_MEMORY, NO_MEMORY]


def test_an_error_costs_only_its_clip(tmp_path: Path) -> None:
    received = answers(Misbehaving(most=9), tmp_path, "a", "bad", "c")
    assert [each.error for each in received if isinstance(each, Made)] == [
        "",
        "ValueError: the model's audio is not finite",
        "",
    ]
    assert not (tmp_path / "1.wav").exists()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (made,) = answers(Misbehaving(most=9), tmp_path / "missing", "a")
    assert made.error.startswith("cannot write the clip")
