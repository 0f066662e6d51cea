"""How large a context a clip and a prompt need, and how many such contexts there is memory for."""

from __future__ import annotations

from collections.abc import Sequence

from musicflamingo_cli.config import Settings
from musicflamingo_cli.errors import TooLongError
from musicflamingo_cli.llamacpp import memory
from musicflamingo_cli.models.resolve import ModelPair
from musicflamingo_cli.types import Clip, Prompt

# Room for the chat template around the prompt: about 30 tokens with its own system prompt (ChatML).
_TEMPLATE_TOKENS = 128
_SMALLEST = 4096  # tokens: two minutes and an answer
# A GPU's decoding is bound by reading the weights, which all slots then share; a CPU's by its arithmetic, which they
# do not: there, more than one gained nothing (README, "Engines, and how fast they are").
_MOST_SLOTS_GPU, _MOST_SLOTS_CPU = 4, 1
_AT_EASE = 4  # a quarter of what is free may be taken for clips that are yet to come


def tokens_needed(clip: Clip, prompt: Prompt, settings: Settings, model: ModelPair) -> int:
    """Tokens for the audio, the prompt (a byte is at least a token's worth) and the answer.

    Raises TooLongError where neither the user's context nor the model's own holds them.
    """
    text = len(prompt.text.encode()) + len(prompt.system.encode())
    needed = clip.audio_tokens + text + prompt.max_tokens + _TEMPLATE_TOKENS
    limit = settings.ctx_size or model.context_length
    if needed > limit:
        raise TooLongError(
            f"{clip.seconds:.0f} s of audio and the answer need {needed} tokens, the context holds {limit}",
            "hear less with --max-seconds 600" + (", or raise --ctx-size" if settings.ctx_size else ""),
        )
    return needed


class Room:
    """Memory for slots (``there``): how many there are at most (``lanes``), and how large they are made for a clip."""

    def __init__(self, command: Sequence[str], settings: Settings, model: ModelPair, at_once: int) -> None:
        """``command`` is the program that will hold them; ``at_once``: no more clips than that will come together."""
        self._ctx_size = settings.ctx_size
        self._model = model
        self._slots_are_given = settings.slots is not None
        self.there = memory.for_llama_cpp(command, settings.gpu_layers)
        self._most = min(settings.slots or (_MOST_SLOTS_GPU if self.there.is_gpu else _MOST_SLOTS_CPU), at_once)
        self._free = max(0, self.there.free - model.size - memory.RESERVE)  # bytes
        self.lanes = self._slots_that_fit(settings.ctx_size or _SMALLEST)

    def for_clip(self, context: int) -> tuple[int, int]:
        """The size of a slot in tokens, for a clip that needs ``context``, and how many of them.

        Larger than this clip needs where memory is plenty: the next one may be longer, and a server cannot grow.
        """
        if self._ctx_size:
            size = max(self._ctx_size, context)
            return size, min(self.lanes, self._slots_that_fit(size))
        size = _SMALLEST
        while size < context or (size < self._model.context_length and self._is_at_ease(2 * size)):
            size *= 2
        size = max(context, min(size, self._model.context_length))  # several answers may need more than one may have
        return size, min(self.lanes, self._slots_that_fit(size))

    def halve(self) -> None:
        """What was reckoned did not fit: half as many slots from now on, none larger than its clip needs."""
        self.lanes = self._most = max(1, self.lanes // 2)
        self._free = 0
        self._slots_are_given = True

    def _slots_that_fit(self, size: int) -> int:
        if self._slots_are_given:
            return self._most
        return max(1, min(self._most, self._free // max(1, size * self._model.kv_bytes_per_token)))

    def _is_at_ease(self, size: int) -> bool:
        return self.lanes * size * self._model.kv_bytes_per_token * _AT_EASE <= self._free
