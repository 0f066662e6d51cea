"""How much memory a training needs, estimated before anything is loaded, and what would need less."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from musicflamingo_cli.choices import Quantization
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.finetuning.plan import Plan
from musicflamingo_cli.llamacpp.memory import Memory
from musicflamingo_cli.models.model import Checkpoint

_GB = 1e9
_TEXT_TOKENS = 1024  # of a question and its answer
_TOKENS_PER_SECOND = 25
_OPTIMIZER = 16  # bytes for each trained number: itself, its gradient and two of AdamW, in float32
_SHORT = 60.0  # seconds of audio that a hint offers
_OVERHEAD = 1_000_000_000  # of torch itself
# Of the weights at bf16, by how they are stored.
_STORED = {Quantization.NONE: 1.0, Quantization.EIGHT_BIT: 0.6, Quantization.INT8: 0.6, Quantization.NF4: 0.4}


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes that a training needs: of the weights, of what is trained, of one example's intermediate results."""

    weights: int
    trained: int
    example: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.trained + self.example + _OVERHEAD

    @property
    def parts(self) -> str:
        """It for a person."""
        return f"weights {_gb(self.weights)}, matrices {_gb(self.trained)}, one track {_gb(self.example)}"


def estimate(plan: Plan, checkpoint: Checkpoint, config: dict[str, Any], seconds: float, in_bf16: bool) -> Estimate:
    """Return what a training needs. ``config``: the checkpoint's text_config; ``seconds``: of the longest clip.

    With gradient checkpointing, one vector a token is kept for each layer, and all of one layer; the scores are only
    of the answer's tokens.
    """
    width, inner = int(config.get("hidden_size", 4096)), int(config.get("intermediate_size", 22016))
    layers, vocabulary = int(config.get("num_hidden_layers", 32)), int(config.get("vocab_size", 151936))
    heads = int(config.get("num_attention_heads", 32))
    key_width = width // heads * int(config.get("num_key_value_heads", heads))
    number = 2 if in_bf16 else 4
    tokens = round(seconds * _TOKENS_PER_SECOND) + _TEXT_TOKENS
    a_layer = (width + width) * 2 + (width + key_width) * 2 + (width + inner) * 3
    trained = plan.settings.rank * (a_layer * layers + width + vocabulary) * _OPTIMIZER
    kept = layers * tokens * width * number
    one_layer = tokens * (8 * width + 6 * inner + 4 * key_width) * number
    scores = _TEXT_TOKENS * vocabulary * 4 * 3
    stored = _STORED[Quantization(plan.quantize)] * (1 if in_bf16 or plan.quantize != Quantization.NONE else 2)
    return Estimate(round(checkpoint.size * stored), trained, kept + one_layer + scores)


def require_memory(
    plan: Plan, checkpoint: Checkpoint, config: dict[str, Any], seconds: float, available: Memory
) -> Estimate:
    """Return the estimate. Raises ConfigError where it is more than what is free, with what would fit."""
    found = estimate(plan, checkpoint, config, seconds, available.is_gpu)
    if found.total <= available.free:
        return found
    where = available.where if available.is_gpu else "main memory"
    raise ConfigError(
        f"training {checkpoint.name} needs about {_gb(found.total)} ({found.parts}), and {_gb(available.free)} of"
        f" {where} are free",
        _hint(plan, checkpoint, config, seconds, available),
    )


def _hint(plan: Plan, checkpoint: Checkpoint, config: dict[str, Any], seconds: float, available: Memory) -> str:
    """Return the smallest change with which it fits."""
    for options, changed, length in _alternatives(plan, seconds, available.is_gpu):
        needed = estimate(changed, checkpoint, config, length, available.is_gpu).total
        if needed <= available.free:
            return f"with {options} it needs about {_gb(needed)}"
    return "train on a machine with more memory, or another model; to try all the same: --no-memory-check"


def _alternatives(plan: Plan, seconds: float, is_gpu: bool) -> Iterator[tuple[str, Plan, float]]:
    small = replace(plan, settings=replace(plan.settings, rank=min(plan.settings.rank, 8)))
    short = min(seconds, _SHORT)
    if seconds > _SHORT:
        yield f"--max-seconds {_SHORT:g}", plan, short
    if plan.settings.rank > 8:
        yield "--rank 8", small, seconds
        yield f"--rank 8 --max-seconds {_SHORT:g}", small, short
    if is_gpu and plan.quantize != Quantization.NF4:
        four_bits = replace(plan, quantize=Quantization.NF4)
        yield "--quantize nf4", four_bits, seconds
        yield f"--quantize nf4 --max-seconds {_SHORT:g}", four_bits, short
        fewest = replace(small, quantize=Quantization.NF4)
        yield f"--quantize nf4 --rank 8 --max-seconds {_SHORT:g}", fewest, short


def _gb(size: float) -> str:
    return f"{size / _GB:.1f} GB"
