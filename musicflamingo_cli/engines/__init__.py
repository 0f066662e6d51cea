"""Engines: whatever turns one clip and all its prompts into answers. One contract, one file an engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from musicflamingo_cli.config import Settings
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.models import ModelPair
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling

ENGINES = ("auto", "mtmd-cli")


class Engine(Protocol):
    """Asks one clip all its questions, so that an engine can hear the audio once where it knows how."""

    name: str
    version: str  # of llama.cpp, for provenance
    lanes: int  # clips that it works on at once

    def describe(self, clip: Clip, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Answer | Failure]:
        """Yield one result a prompt, each as soon as it is there, in any order.

        A prompt that fails is a Failure among the others; an error that concerns them all is an EngineError.
        """
        ...

    def close(self) -> None: ...


def open_engine(settings: Settings, model: ModelPair) -> Engine:
    """The engine that the settings name. Raises ToolMissingError when its binary is not there."""
    match settings.engine:
        case "auto" | "mtmd-cli":
            from musicflamingo_cli.engines.mtmd_cli import MtmdCliEngine

            return MtmdCliEngine(settings, model)
        case other:
            raise ConfigError(f"no engine {other!r}", f"use one of: {', '.join(ENGINES)}")
