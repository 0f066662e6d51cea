"""How large a context a clip and a prompt need."""

from __future__ import annotations

from musicflamingo_cli.config import Settings
from musicflamingo_cli.errors import TooLongError
from musicflamingo_cli.models import ModelPair
from musicflamingo_cli.types import Clip, Prompt

# Room for the chat template around the prompt: about 30 tokens with its own system prompt (ChatML).
_TEMPLATE_TOKENS = 128


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
