"""What the language model remembers of a track's audio, and the memory of a batch of answers made from it.

A clip is processed once, in a row of its own; each answer then starts from a copy of that row. Rows of different
lengths are padded on the left, as generation needs it: the newest token is then in the same column for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_ROOM = 128  # tokens by which a batch's memory grows at a time


@dataclass(slots=True)
class Prefix:
    """Keys and values of one row up to the end of its audio: for each layer two of (heads, length, head size)."""

    layers: list[tuple[Tensor, Tensor]]
    audio_tokens: int

    @property
    def length(self) -> int:
        """In tokens."""
        return int(self.layers[0][0].shape[-2])


def split(cache: Any, lengths: Sequence[int], audio_tokens: Sequence[int]) -> list[Prefix]:
    """Return each row of a cache without its padding on the left, as copies, so that the cache itself can go."""
    return [
        Prefix(
            [(layer.keys[row, :, -length:].clone(), layer.values[row, :, -length:].clone()) for layer in cache.layers],
            tokens,
        )
        for row, (length, tokens) in enumerate(zip(lengths, audio_tokens, strict=True))
    ]


def batch_of(prefixes: Sequence[Prefix], room: int) -> Any:
    """Return a cache with one row for each prefix, padded on the left, with room for so many tokens more."""
    from transformers.cache_utils import Cache

    longest = max(prefix.length for prefix in prefixes)
    layers = []
    for number in range(len(prefixes[0].layers)):
        keys = _padded([prefix.layers[number][0] for prefix in prefixes], longest, room)
        values = _padded([prefix.layers[number][1] for prefix in prefixes], longest, room)
        layers.append(_layer_class()(keys, values, longest))
    return Cache(layers=layers)


def _padded(rows: Sequence[Tensor], longest: int, room: int) -> Tensor:
    """(rows, heads, longest + room, head size); what is not written is zero."""
    heads, _, size = rows[0].shape
    batch = rows[0].new_zeros((len(rows), heads, longest + room, size))
    for index, row in enumerate(rows):
        batch[index, :, longest - row.shape[-2] : longest] = row
    return batch


_classes: list[Any] = []


def _layer_class() -> Any:
    """Return the class of a layer of a batch's cache; made here, since transformers is imported late."""
    if not _classes:
        from transformers.cache_utils import DynamicLayer

        class LayerWithRoom(DynamicLayer):  # type: ignore[misc]
            """A layer that writes into memory it has: DynamicLayer copies all that it holds for every token."""

            def __init__(self, keys: Tensor, values: Tensor, length: int) -> None:
                super().__init__()
                self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
                self._memory = [keys, values]
                self._show(length)

            def _show(self, length: int) -> None:
                self.keys, self.values = (each[:, :, :length] for each in self._memory)

            def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **more: Any) -> Any:
                start = self.keys.shape[-2]
                end = start + key_states.shape[-2]
                if end > self._memory[0].shape[-2]:
                    self._memory = [_with_room(each, end + _ROOM) for each in self._memory]
                for memory, new in zip(self._memory, (key_states, value_states), strict=True):
                    memory[:, :, start:end] = new
                self._show(end)
                return self.keys, self.values

            def batch_select_indices(self, indices: Tensor) -> None:
                length = self.keys.shape[-2]
                self._memory = [each[indices] for each in self._memory]
                self._show(length)

        _classes.append(LayerWithRoom)
    return _classes[0]


def _with_room(memory: Tensor, length: int) -> Tensor:
    larger = memory.new_zeros((*memory.shape[:2], length, memory.shape[3]))
    larger[:, :, : memory.shape[2]] = memory
    return larger
