"""The next token of each codebook of each clip, with a random stream for each clip.

`generate` of transformers has one random stream for a whole batch; with this, a clip does not depend on which others
are made beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from musicflamingo_cli.config import GenerationSettings

if TYPE_CHECKING:
    from torch import Tensor


class ClipSampler:
    """Samples the tokens of a batch of ``clips`` clips, each from the settings' seed."""

    def __init__(self, settings: GenerationSettings, clips: int) -> None:
        self._settings = settings
        self._streams = [np.random.default_rng(settings.seed) for _ in range(clips)]

    def next_tokens(self, logits: Tensor) -> Tensor:
        """Return a token for each codebook of each clip, shape (clips, codebooks), on the CPU.

        ``logits``: (clips, codebooks, vocabulary), with guidance applied.
        """
        import torch

        if self._settings.temperature <= 0:
            return logits.argmax(dim=-1).cpu()
        size = logits.shape[-1]
        best = torch.topk(logits.float(), min(self._settings.top_k or size, size), dim=-1)
        values, tokens = best.values.cpu().double().numpy(), best.indices.cpu().numpy()
        weights = np.exp((values - values[..., :1]) / self._settings.temperature)
        sums = np.cumsum(weights, axis=-1)
        drawn = np.stack([stream.random(logits.shape[1]) for stream in self._streams])
        # The first whose sum exceeds the number drawn; the last weight is never exceeded.
        index = (sums[..., :-1] <= drawn[..., None] * sums[..., -1:]).sum(axis=-1)
        return torch.from_numpy(np.take_along_axis(tokens, index[..., None], axis=-1)[..., 0])
