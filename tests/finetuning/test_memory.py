"""The estimate of a training's memory, and what is offered where it does not suffice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from musicflamingo_cli.choices import Quantization
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.finetuning.memory import estimate, require_memory
from musicflamingo_cli.finetuning.plan import Plan
from musicflamingo_cli.llamacpp.memory import Memory
from musicflamingo_cli.models.model import Checkpoint

GB = 10**9
# Music Flamingo's: Qwen2.5-7B and its encoder, in bf16.
CONFIG = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 151672,
}
CHECKPOINT = Checkpoint(
    folder=Path("x"),
    name="nvidia/x",
    model_type="audioflamingo3",
    context_length=1,
    max_seconds=1200.0,
    size=int(16.5 * GB),
)
PLAN = Plan(model="x", identity="", tracks=(), examples=())


def gpu(gigabytes: float) -> Memory:
    return Memory(int(gigabytes * GB), int(gigabytes * GB), "a GPU")


def test_what_needs_more_is_estimated_as_more() -> None:
    usual = estimate(PLAN, CHECKPOINT, CONFIG, 180, in_bf16=True)
    # At rank 16, as peft counts them: 40 million numbers for seven matrices a layer, and the output layer's.
    assert usual.trained == pytest.approx((40_370_176 + 16 * (3584 + 151672)) * 16, rel=1e-6)
    assert 17 * GB < usual.total < 28 * GB
    assert estimate(PLAN, CHECKPOINT, CONFIG, 1200, in_bf16=True).example > 3 * usual.example
    assert estimate(PLAN, CHECKPOINT, CONFIG, 180, in_bf16=False).weights == 2 * usual.weights
    four_bits = replace(PLAN, quantize=Quantization.NF4)
    assert estimate(four_bits, CHECKPOINT, CONFIG, 180, in_bf16=True).total < 13 * GB


@pytest.mark.parametrize(
    ("free", "seconds", "hint"),
    [
        (24, 1200, "--max-seconds 60"),
        (12, 180, "--quantize nf4"),
        (11.5, 1200, "--quantize nf4 --max-seconds 60"),
        (4, 180, "more memory"),
    ],
)
def test_a_refusal_says_what_would_fit(free: float, seconds: float, hint: str) -> None:
    with pytest.raises(ConfigError, match=r"needs about [\d.]+ GB .* are free") as caught:
        require_memory(PLAN, CHECKPOINT, CONFIG, seconds, gpu(free))
    assert hint in caught.value.hint


def test_enough_memory_is_no_error() -> None:
    assert require_memory(PLAN, CHECKPOINT, CONFIG, 180, gpu(80)).total < 80 * GB
