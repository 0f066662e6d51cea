"""The messages between engine `native` and its worker process, and the constants that both depend on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BINDINGS = "0.3.36"  # of llama-cpp-python, whose C declarations are those of
RELEASE = "b11434"  # of llama.cpp: include/llama.h and tools/mtmd/mtmd.h do not differ where we use them
SEQUENCES = 16  # in each slot: as many prompts of a clip are decoded together
READY = "ready"  # the first message of a worker


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt about a clip; its answer has at most ``max_tokens`` tokens."""

    preset: str
    system: str
    text: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class ClipRequest:
    """A clip (``path``: a 16 kHz mono WAV file), the questions about it, the slot for it, and the sampling."""

    slot: int
    path: str
    questions: Sequence[Question]
    temperature: float
    top_p: float
    repeat_penalty: float
    seed: int


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one question, or in ``error`` why there is none. ``audio_tokens``: how many were decoded."""

    slot: int
    preset: str
    text: str = ""
    hit_limit: bool = False
    audio_tokens: int = 0
    error: str = ""
    prefill_seconds: float = 0.0  # encoding and prefilling the audio, shared by all questions of the clip
    answer_seconds: float = 0.0
