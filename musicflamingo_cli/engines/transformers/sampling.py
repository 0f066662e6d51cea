"""The next token of each answer: llama.cpp's chain of samplers, so that the settings mean the same in every engine.

`generate` of transformers has no seed for each row of a batch; with this, a row's answer does not depend on which
others are in the batch. The order of the steps is that of llama.cpp's tools (common/sampling.cpp).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from musicflamingo_cli.types import Sampling

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# llama.cpp's defaults for the sampling settings that we do not offer (common.h, common_params_sampling).
_TOP_K, _MIN_P, _PENALTY_LAST_N = 40, 0.05, 64


@dataclass(slots=True)
class RowSampler:
    """How one answer is sampled, and what it has so far (``tokens``)."""

    sampling: Sampling
    tokens: list[int] = field(default_factory=list)
    random: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        """Start the random numbers from the seed."""
        self.random = np.random.default_rng(self.sampling.seed)


def next_tokens(logits: Tensor, rows: Sequence[RowSampler]) -> list[int]:
    """Return the next token of each row and add it to the row; ``logits`` is (rows, vocabulary)."""
    import torch

    scores = logits.float()
    for index, row in enumerate(rows):
        _penalise(scores[index], row)
    likeliest = scores.argmax(dim=-1).tolist()
    best = torch.topk(scores, min(_TOP_K, scores.shape[-1]), dim=-1)
    values, tokens = best.values.cpu().double().numpy(), best.indices.cpu().numpy()
    for index, row in enumerate(rows):
        if row.sampling.temperature <= 0:
            row.tokens.append(likeliest[index])
        else:
            row.tokens.append(int(tokens[index][_draw(values[index], row)]))
    return [row.tokens[-1] for row in rows]


def _penalise(scores: Tensor, row: RowSampler) -> None:
    """Make the tokens that the answer has lately had less likely, in place."""
    import torch

    penalty = row.sampling.repeat_penalty
    recent = sorted(set(row.tokens[-_PENALTY_LAST_N:]))
    if penalty == 1.0 or not recent:
        return
    index = torch.tensor(recent, device=scores.device)
    before = scores[index]
    scores[index] = torch.where(before > 0, before / penalty, before * penalty)


def _draw(values: NDArray[np.float64], row: RowSampler) -> int:
    """Return an index into ``values``, which are the highest scores in falling order."""
    probabilities = _softmax(values)
    # The smallest set that adds up to top-p: a token stays where those before it do not reach it.
    kept = np.cumsum(probabilities) - probabilities < row.sampling.top_p
    kept &= probabilities >= _MIN_P * probabilities[0]
    weights = _softmax(values[kept] / row.sampling.temperature)
    return int(np.flatnonzero(kept)[np.searchsorted(np.cumsum(weights), row.random.random() * weights.sum())])


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(values - values.max())
    return np.asarray(weights / weights.sum())
