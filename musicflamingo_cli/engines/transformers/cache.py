"""What the language model remembers: of the audio once for all its questions, of each answer in a row of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from musicflamingo_cli.engines.transformers.attention import Prefix

if TYPE_CHECKING:
    from torch import Tensor

_ROOM = 128  # tokens by which a row's memory grows at a time


def split(cache: Any, lengths: Sequence[int], audio_tokens: Sequence[int]) -> list[Prefix]:
    """Return each row of a cache without its padding on the left, as copies, so that the cache itself can go."""
    return [
        Prefix(
            [(layer.keys[row, :, -length:].clone(), layer.values[row, :, -length:].clone()) for layer in cache.layers],
            tokens,
        )
        for row, (length, tokens) in enumerate(zip(lengths, audio_tokens, strict=True))
    ]


def empty_cache(layers: int) -> Any:
    """Return a cache for what follows the audio, with so many layers."""
    from transformers.cache_utils import Cache

    return Cache(layers=[_layer_class()() for _ in range(layers)])


@lru_cache
def _layer_class() -> Any:
    """Return the class of a cache's layers; made here, since transformers is imported late."""
    from transformers.cache_utils import DynamicLayer

    class LayerWithRoom(DynamicLayer):  # type: ignore[misc]
        """A layer that grows by many tokens at a time: DynamicLayer copies all that it holds for every token."""

        def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **more: Any) -> Any:
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
                self._memory = [each[:, :, :0] for each in (key_states, value_states)]
                self._length = 0
            start, end = self._length, self._length + key_states.shape[-2]
            if end > self._memory[0].shape[-2]:
                self._memory = [_with_room(each, end + _ROOM) for each in self._memory]
            for memory, new in zip(self._memory, (key_states, value_states), strict=True):
                memory[:, :, start:end] = new
            self._show(end)
            return self.keys, self.values

        def batch_select_indices(self, indices: Tensor) -> None:
            self._memory = [each[indices] for each in self._memory]
            self._show(self._length)

        def _show(self, length: int) -> None:
            self._length = length
            self.keys, self.values = (each[:, :, :length] for each in self._memory)

    return LayerWithRoom


def _with_room(memory: Tensor, length: int) -> Tensor:
    larger = memory.new_zeros((*memory.shape[:2], length, memory.shape[3]))
    larger[:, :, : memory.shape[2]] = memory
    return larger
