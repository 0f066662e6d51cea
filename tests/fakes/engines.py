"""Engine doubles for what the real one will not do on command: crash, stay deaf, loop, be cut off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from musicflamingo_cli.models.resolve import ModelPair
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling

GOOD = "A warm track with soft drums. It moves slowly."
TOY_PAIR = ModelPair(Path("tiny.gguf"), Path("mmproj.gguf"), 32768, is_toy=True)
REAL_PAIR = ModelPair(Path("music-flamingo-hf.Q6_K.gguf"), Path("mmproj.gguf"), 32768, is_toy=False)

Reply = str | Failure | BaseException


class ScriptedEngine:
    """Answers as ``reply(prompt, sampling)`` says: a text, a Failure, or an exception to raise."""

    name = "scripted"
    version = "b0"
    lanes = 1

    def __init__(
        self, reply: Callable[[Prompt, Sampling], Reply], hit_limit: bool = False, heard: int | None = None
    ) -> None:
        self.reply = reply
        self.hit_limit = hit_limit
        self.heard = heard
        self.asked: list[tuple[str, Sampling]] = []
        self.closed = False

    def describe(self, clip: Clip, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Answer | Failure]:
        for prompt in prompts:
            self.asked.append((prompt.preset, sampling))
            said = self.reply(prompt, sampling)
            if isinstance(said, BaseException):
                raise said
            if isinstance(said, Failure):
                yield said
                continue
            heard = clip.audio_tokens if self.heard is None else self.heard
            yield Answer(prompt, said, self.hit_limit, heard, 0.01, sampling)

    def close(self) -> None:
        self.closed = True
