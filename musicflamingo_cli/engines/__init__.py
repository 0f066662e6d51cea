"""Engines: whatever turns one clip and all its prompts into answers. One contract, one file an engine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from musicflamingo_cli.config import Settings
from musicflamingo_cli.errors import ConfigError, ToolMissingError
from musicflamingo_cli.models import ModelPair
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling

ENGINES = ("auto", "mtmd-cli", "server")


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


def open_engine(settings: Settings, model: ModelPair, single: bool, warn: Callable[[str], None]) -> Engine:
    """The engine that the settings name; ``warn`` gets sentences for a person while it works.

    `auto` is `mtmd-cli` for a ``single`` prompt about a single file, where nothing can be shared, else `server` where
    its binary is there. Raises ToolMissingError when a binary is not there.
    """
    from musicflamingo_cli.engines.mtmd_cli import MtmdCliEngine
    from musicflamingo_cli.engines.server import ServerEngine

    match settings.engine:
        case "mtmd-cli":
            return MtmdCliEngine(settings, model)
        case "server":
            return ServerEngine(settings, model, warn)
        case "auto":
            if not single:
                with contextlib.suppress(ToolMissingError):
                    return ServerEngine(settings, model, warn)
            return MtmdCliEngine(settings, model)
        case other:
            raise ConfigError(f"no engine {other!r}", f"use one of: {', '.join(ENGINES)}")
