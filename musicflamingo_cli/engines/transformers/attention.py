"""Attention of many answers over the one memory of a clip's audio.

Every answer about a clip looks at the same keys and values, which reach up to the end of the audio. transformers would
need a copy of them in each row of the batch: 1.7 GB a row for 20 minutes of Music Flamingo. Here a row has only what
follows the audio, its question and its answer. The scores over both parts are computed apart and share one softmax, so
the result is that of ordinary attention; over the audio it is one matrix product for all rows of a clip.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_NAME = "musicflamingo_shared_prefix"


@dataclass(slots=True)
class Prefix:
    """What the language model remembers of one prompt up to the end of its audio.

    ``layers``: keys and values, for each layer two of (key heads, length, head size).
    """

    layers: list[tuple[Tensor, Tensor]]
    audio_tokens: int

    @property
    def length(self) -> int:
        """In tokens."""
        return int(self.layers[0][0].shape[-2])


@contextlib.contextmanager
def shared(config: Any) -> Iterator[None]:
    """Let the language model with this configuration compute attention as ``attend`` does."""
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, attend)
    before = config._attn_implementation
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, *, scaling: float, **more: Any
) -> tuple[Tensor, None]:
    """Return (rows, new tokens, heads, head size), as an attention function of transformers does.

    ``query``: (rows, heads, new tokens, head size). ``key``, ``value``: (rows, key heads, own tokens, head size), of
    what follows the audio. ``attention_mask``: (rows, 1, new tokens, own tokens), true where a token may look.
    ``prefixes`` (in ``more``): the Prefix of each row.
    """
    import torch

    rows, heads, new, size = query.shape
    key_heads, own_length = key.shape[1:3]
    per = heads // key_heads
    queries = (query * scaling).reshape(rows, key_heads, per * new, size)
    own = (queries @ key.transpose(-1, -2)).view(rows, key_heads, per, new, own_length)
    own = own.masked_fill(~attention_mask[:, :, None], float("-inf")).view(rows, key_heads, per * new, own_length)
    found = torch.empty_like(queries)
    for start, end, prefix in _groups(more["prefixes"], 1 if new > 1 else rows):
        before_keys, before_values = prefix.layers[module.layer_idx]
        shape = (key_heads, end - start, per * new)
        some = queries[start:end].transpose(0, 1).reshape(key_heads, -1, size)
        before = (some @ before_keys.transpose(-1, -2)).view(*shape, prefix.length).transpose(0, 1)
        weights = torch.softmax(torch.cat([before, own[start:end]], dim=-1), dim=-1, dtype=torch.float32)
        if not prefix.length:  # padding, which nothing reads, has nothing to look at there
            weights = weights.nan_to_num()
        over_audio, over_own = weights.to(value.dtype).split([prefix.length, own_length], dim=-1)
        flat = (key_heads, (end - start) * per * new, prefix.length)
        found[start:end] = (over_audio.transpose(0, 1).reshape(flat) @ before_values).view(*shape, size).transpose(0, 1)
        found[start:end] += over_own @ value[start:end]
    return found.view(rows, heads, new, size).transpose(1, 2), None


def _groups(prefixes: Sequence[Prefix], most: int) -> Iterator[tuple[int, int, Prefix]]:
    """Yield the first row, the end and the prefix of neighbouring rows with the same one, at most ``most`` together.

    One at a time where the scores of many new tokens over a long clip would need much memory.
    """
    start = 0
    for _, same in groupby(prefixes, key=id):
        some = list(same)
        for first in range(0, len(some), most):
            end = min(first + most, len(some))
            yield start + first, start + end, some[0]
        start += len(some)
