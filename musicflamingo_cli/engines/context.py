"""How large a context a clip and a prompt need, and how many such contexts fit into memory."""

from __future__ import annotations

from collections.abc import Sequence

from musicflamingo_cli.config import Settings
from musicflamingo_cli.errors import TooLongError
from musicflamingo_cli.llamacpp import memory
from musicflamingo_cli.models.model import Model, ModelPair
from musicflamingo_cli.types import Clip, Prompt, Turn

# For the chat template around the prompt: about 30 tokens with its own system prompt (ChatML).
_TEMPLATE_TOKENS = 128
_TURN_TOKENS = 32  # around each earlier question and its answer: about 10
_MIN_SIZE = 4096  # tokens: two minutes and an answer
# A GPU's decoding is bound by reading the weights, which all slots then share; a CPU's by its arithmetic, which they
# do not: there, more than one gained nothing (docs/engines.md, "How fast they are").
_MAX_SLOTS_GPU, _MAX_SLOTS_CPU = 4, 1
_FREE_FRACTION = 4  # slots grow beyond what a clip needs while all of them take at most a quarter of the free memory


def tokens_needed(audio_tokens: int, clip: Clip, prompt: Prompt, settings: Settings, model: Model) -> int:
    """Return the tokens for the audio, the prompt (one for each byte, an upper bound) and the answer.

    Raises TooLongError where the context that the user set, or else the model's own, does not hold them.
    """
    text = _text_tokens(prompt.text, prompt.system) + sum(map(_turn_tokens, prompt.history))
    needed = audio_tokens + text + prompt.max_tokens + _TEMPLATE_TOKENS
    limit = settings.ctx_size or model.context_length
    if needed > limit:
        seconds = sum(each.seconds for each in clip.all)
        raise TooLongError(
            f"{seconds:.0f} s of audio{', the conversation' if prompt.history else ''} and the answer need"
            f" {needed} tokens, the context holds {limit}",
            ("start a new conversation (in chat: /forget), or " if prompt.history else "")
            + "use less audio: --max-seconds 600"
            + (", or raise --ctx-size" if settings.ctx_size else ""),
        )
    return max(needed, min(limit, audio_tokens + prompt.room))


def _turn_tokens(turn: Turn) -> int:
    """The tokens of an earlier question and its answer, which the engine has counted where it can."""
    if turn.answer_tokens is None:
        answer = _text_tokens(turn.answer)
    else:
        answer = turn.answer_tokens + 3 * turn.answer.count("\ufffd")  # in place of one token that was no text
    return _text_tokens(turn.question) + answer + _TURN_TOKENS


def _text_tokens(*texts: str) -> int:
    return sum(len(text.encode()) for text in texts)


class SlotBudget:
    """How many slots fit into ``memory`` (``slots``), and how large each can be."""

    def __init__(self, command: Sequence[str], settings: Settings, model: ModelPair, at_once: int) -> None:
        """Look at the memory. ``command`` is the program that will hold the slots, ``at_once`` an upper limit."""
        self._ctx_size = settings.ctx_size
        self._model = model
        self._has_fixed_slots = settings.slots is not None
        self.memory = memory.for_llama_cpp(command, settings.gpu_layers, settings.gpus)
        self._max_slots = min(settings.slots or (_MAX_SLOTS_GPU if self.memory.is_gpu else _MAX_SLOTS_CPU), at_once)
        self._free = max(0, self.memory.free - model.size - memory.RESERVE)  # bytes
        self.slots = self._slots_that_fit(settings.ctx_size or _MIN_SIZE)

    def size_for(self, context: int) -> tuple[int, int]:
        """Return the size of a slot for a clip that needs ``context`` tokens, in tokens, and how many such slots fit.

        It is larger than this clip needs where memory allows: the next clip may be longer, and a running process
        cannot grow.
        """
        if self._ctx_size:
            size = max(self._ctx_size, context)
            return size, min(self.slots, self._slots_that_fit(size))
        size = _MIN_SIZE
        while size < context or (size < self._model.context_length and self._fits_easily(2 * size)):
            size *= 2
        # Several answers together may need more than the model's context, which limits only each of them.
        size = max(context, min(size, self._model.context_length))
        return size, min(self.slots, self._slots_that_fit(size))

    def shrink(self) -> None:
        """Halve the number of slots, and make none larger than its clip needs: the estimate was too high."""
        self.slots = self._max_slots = max(1, self.slots // 2)
        self._free = 0
        self._has_fixed_slots = True

    def _slots_that_fit(self, size: int) -> int:
        if self._has_fixed_slots:
            return self._max_slots
        return max(1, min(self._max_slots, self._free // max(1, size * self._model.kv_bytes_per_token)))

    def _fits_easily(self, size: int) -> bool:
        return self.slots * size * self._model.kv_bytes_per_token * _FREE_FRACTION <= self._free
