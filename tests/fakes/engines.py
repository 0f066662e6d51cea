"""A fake engine for what the real one does not do on command: crash, miss the audio, loop, be cut off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from musicflamingo_cli.engines.observer import UNOBSERVED, Observer
from musicflamingo_cli.models.model import ModelPair
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling

GOOD = "A warm track with soft drums. It moves slowly."
TINY_PAIR = ModelPair(
    language_model=Path("tiny.gguf"), projector=Path("mmproj.gguf"), context_length=32768, is_tiny=True
)
REAL_PAIR = ModelPair(
    language_model=Path("music-flamingo-hf.Q6_K.gguf"),
    projector=Path("mmproj.gguf"),
    context_length=32768,
    is_tiny=False,
)

Scripted = str | Failure | BaseException


class ScriptedEngine:
    """Answers with the result of ``reply(prompt, sampling)``: a text, a Failure, or an exception to raise."""

    name = "scripted"
    provenance: ClassVar[dict[str, str]] = {"llama_cpp": "b0"}
    slots = 1

    def __init__(
        self, reply: Callable[[Prompt, Sampling], Scripted], hit_limit: bool = False, audio_tokens: int | None = None
    ) -> None:
        self.reply = reply
        self.hit_limit = hit_limit
        self.audio_tokens = audio_tokens
        self.asked: list[tuple[str, Sampling]] = []
        self.closed = False

    def expected_audio_tokens(self, clip: Clip) -> int:
        return clip.padded_tokens

    def describe(
        self,
        clip: Clip,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        observer: Observer = UNOBSERVED,
    ) -> Iterator[Answer | Failure]:
        for prompt in prompts:
            self.asked.append((prompt.preset, sampling))
            result = self.reply(prompt, sampling)
            if isinstance(result, BaseException):
                raise result
            if isinstance(result, Failure):
                yield result
                continue
            audio_tokens = clip.padded_tokens if self.audio_tokens is None else self.audio_tokens
            yield Answer(
                prompt=prompt,
                text=result,
                hit_limit=self.hit_limit,
                audio_tokens=audio_tokens,
                seconds=0.01,
                sampling=sampling,
            )

    def close(self) -> None:
        self.closed = True
