"""Engines: whatever turns one clip and all its prompts into answers. One contract, one module for each engine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from musicflamingo_cli.choices import EngineName
from musicflamingo_cli.config import Settings
from musicflamingo_cli.errors import ConfigError, ToolMissingError
from musicflamingo_cli.models.model import Checkpoint, Model, ModelPair
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling, Workload

_FOR_ONE = (EngineName.MTMD_CLI, EngineName.SERVER, EngineName.EMBEDDED)
_FOR_MANY = (EngineName.NATIVE, EngineName.SERVER, EngineName.MTMD_CLI, EngineName.EMBEDDED)
_FOR_CONVERSATIONS = (EngineName.NATIVE, EngineName.SERVER, EngineName.EMBEDDED)


class Engine(Protocol):
    """Answers all prompts about one clip, so that an engine that can process the audio only once does so."""

    @property
    def name(self) -> str:
        """The engine's name, for provenance."""
        ...

    @property
    def provenance(self) -> Mapping[str, str]:
        """What ran the model and how, for a caption's provenance: versions of libraries, the type of numbers, …"""
        ...

    @property
    def slots(self) -> int:
        """How many clips it works on at once; ``describe`` may be called from as many threads."""
        ...

    def expected_audio_tokens(self, clip: Clip) -> int:
        """The audio tokens that a clip makes here; fewer in an answer prove that the model did not get all of it."""
        ...

    def describe(
        self,
        clip: Clip,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        on_text: Callable[[str], None] | None = None,
    ) -> Iterator[Answer | Failure]:
        """Yield one result for each prompt, in any order, each as soon as it is known.

        A prompt that fails is a Failure among the others. ``on_text`` gets the pieces of the answer to a single prompt
        as they are made, where the engine can; it may raise AnswerCancelledError to end that answer. Raises EngineError
        for a fault that concerns all prompts.
        """
        ...

    def close(self) -> None:
        """Stop all work, from any thread: clips in progress raise StoppedError, and so does any later one."""
        ...


def open_engine(settings: Settings, model: Model, workload: Workload) -> tuple[Engine, str]:
    """Return the engine that the settings name, and the reason for the choice.

    A checkpoint runs in `transformers`. For a GGUF pair, `auto` is `mtmd-cli` for one prompt about one track, where
    nothing can be shared, else `native`; where that is not available, the next of `server`, `mtmd-cli` (which cannot
    hold a conversation), `embedded`. Raises ToolMissingError where none is available, ConfigError where the named
    engine does not run such a model.
    """
    if isinstance(model, Checkpoint):
        return _open_transformers(settings, model, workload)
    assert isinstance(model, ModelPair)
    if settings.engine != EngineName.AUTO:
        return _open(settings.engine, settings, model, workload), "chosen with --engine"
    reason = "one prompt about one track" if workload.is_single else "it processes a track's audio once for all prompts"
    unavailable: list[str] = []
    if settings.llama_dir is not None:  # a named folder without any binary is a mistake to report, not to work around
        _require_binary(settings.llama_dir)
    for name in _candidates(workload):
        try:
            return _open(name, settings, model, workload), "; ".join([*unavailable, reason])
        except ToolMissingError as error:
            unavailable.append(f"not {name}: {error}")
            if name is not EngineName.NATIVE:  # the server, which is next, also processes the audio once
                reason = "it is what is available"
    from musicflamingo_cli.engines.server.embedded import HOW_TO_INSTALL

    what = "no engine for conversations is installed" if workload.is_conversation else "llama.cpp is not installed"
    raise ToolMissingError(
        f"{what} ({'; '.join(unavailable)})",
        f"build it with: musicflamingo build; or without a compiler: {HOW_TO_INSTALL};"
        " or name the folder of your own build with --llama-dir",
    )


def _candidates(workload: Workload) -> tuple[EngineName, ...]:
    """The engines among which `auto` chooses, the best first."""
    if workload.is_conversation:
        return _FOR_CONVERSATIONS
    return _FOR_ONE if workload.is_single else _FOR_MANY


def _open_transformers(settings: Settings, checkpoint: Checkpoint, workload: Workload) -> tuple[Engine, str]:
    from musicflamingo_cli.engines.transformers.engine import TransformersEngine

    if settings.engine not in (EngineName.AUTO, EngineName.TRANSFORMERS):
        hint = "leave --engine out, or name a GGUF model: musicflamingo models list"
        raise ConfigError(f"{checkpoint.name} is a checkpoint, which runs in transformers only", hint)
    reason = "a checkpoint runs in transformers" if settings.engine == EngineName.AUTO else "chosen with --engine"
    return TransformersEngine(settings, checkpoint, workload.at_once), reason


def _require_binary(llama_dir: Path) -> None:
    """Raise ToolMissingError where neither llama-server nor llama-mtmd-cli is in the folder."""
    from musicflamingo_cli.llamacpp import binaries

    with contextlib.suppress(ToolMissingError):
        binaries.find(binaries.SERVER, llama_dir)
        return
    binaries.find(binaries.MTMD_CLI, llama_dir)


def _open(name: EngineName, settings: Settings, model: ModelPair, workload: Workload) -> Engine:
    from musicflamingo_cli.engines.mtmd_cli import MtmdCliEngine
    from musicflamingo_cli.engines.native.engine import NativeEngine
    from musicflamingo_cli.engines.server.embedded import embedded_server
    from musicflamingo_cli.engines.server.server import ServerEngine, llama_server

    match name:
        case EngineName.MTMD_CLI:
            return MtmdCliEngine(settings, model)
        case EngineName.SERVER:
            return ServerEngine(llama_server(settings), settings, model, workload.at_once)
        case EngineName.NATIVE:
            return NativeEngine(settings, model, workload.at_once)
        case EngineName.EMBEDDED:
            return ServerEngine(embedded_server(), settings, model, workload.at_once)
        case _:  # resolve_model gives a checkpoint where it is named
            raise ConfigError(f"{model.name} does not run in {name}", "name a checkpoint: musicflamingo models list")
