"""What engine `native` and its worker say to each other, and what they must agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BINDINGS = "0.3.36"  # of llama-cpp-python, whose C declarations are those of
RELEASE = "b11434"  # of llama.cpp: include/llama.h and tools/mtmd/mtmd.h do not differ where we use them
SEQUENCES = 16  # of a lane: as many prompts of a track decode together
READY = "ready"  # the worker's first word


@dataclass(frozen=True, slots=True)
class Question:
    """``before`` and ``after`` the audio: a prompt in the model's template. ``limit``: tokens of the answer."""

    preset: str
    system: str
    text: str
    limit: int


@dataclass(frozen=True, slots=True)
class Track:
    """A clip (a 16 kHz mono WAV file) and what is asked about it in a lane."""

    lane: int
    path: str
    questions: Sequence[Question]
    temperature: float
    top_p: float
    repeat_penalty: float
    seed: int


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, or with ``fault`` why there is none. ``audio_tokens`` were decoded; the rest is seconds."""

    lane: int
    preset: str
    text: str = ""
    hit_limit: bool = False
    audio_tokens: int = 0
    fault: str = ""
    hearing: float = 0.0  # encode and prefill, shared by all prompts of the track
    answering: float = 0.0
