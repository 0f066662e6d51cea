"""The messages between an engine and its worker process (worker_process.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from musicflamingo_cli.types import Prompt, Sampling


class ForSlot(Protocol):
    """A message about what one slot works on."""

    @property
    def slot(self) -> int:
        """The slot's number."""
        ...


@dataclass(frozen=True, slots=True)
class Ready:
    """The first message of a worker. ``details``: what only it knows of how it runs the model, for provenance."""

    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClipRequest:
    """The questions about one clip, or about several that are heard one after another, for one slot.

    ``request``: its number, which all messages about it have. ``paths``: 16 kHz mono WAV files. ``is_streamed``: send
    each piece of an answer, too, as it is made.
    """

    slot: int
    request: int
    paths: Sequence[str]
    prompts: Sequence[Prompt]
    sampling: Sampling
    is_streamed: bool = False


@dataclass(frozen=True, slots=True)
class Cancel:
    """The answers in this slot are not wanted any longer; each gets its reply at once."""

    slot: int


@dataclass(frozen=True, slots=True)
class Begun:
    """The audio of a slot's clip is processed, and its first answers begin."""

    slot: int
    request: int


@dataclass(frozen=True, slots=True)
class Piece:
    """The next characters of an answer in progress."""

    slot: int
    request: int
    preset: str
    text: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a person should know, for the log; ``is_warning``: without asking for details."""

    text: str
    is_warning: bool = True


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one question, or in ``error`` why there is none. ``audio_tokens``: how many were decoded."""

    slot: int
    request: int
    preset: str
    text: str = ""
    hit_limit: bool = False
    audio_tokens: int = 0
    answer_tokens: int = 0
    error: str = ""
    prefill_seconds: float = 0.0  # encoding and prefilling the audio, shared by all questions of the clip
    answer_seconds: float = 0.0
