"""Engines: whatever turns one clip and all its prompts into answers. One contract, one file an engine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from musicflamingo_cli.config import Settings
from musicflamingo_cli.errors import ConfigError, ToolMissingError
from musicflamingo_cli.models.resolve import ModelPair
from musicflamingo_cli.types import Answer, Clip, Failure, Load, Prompt, Sampling

ENGINES = ("auto", "native", "mtmd-cli", "server", "embedded")

_FOR_ONE = ("mtmd-cli", "server", "embedded")
_FOR_MANY = ("native", "server", "mtmd-cli", "embedded")


class Engine(Protocol):
    """Asks one clip all its questions, so that an engine can hear the audio once where it knows how."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str:
        """Of llama.cpp, for provenance."""
        ...

    @property
    def lanes(self) -> int:
        """Clips that it works on at once; ``describe`` may be called from as many threads."""
        ...

    def describe(self, clip: Clip, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Answer | Failure]:
        """Yield one result a prompt, each as soon as it is there, in any order.

        A prompt that fails is a Failure among the others; an error that concerns them all is an EngineError.
        """
        ...

    def close(self) -> None:
        """End what is being asked, from any thread: a clip in work raises StoppedError, as does any later one."""
        ...


def open_engine(settings: Settings, model: ModelPair, load: Load, warn: Callable[[str], None]) -> tuple[Engine, str]:
    """The engine that the settings name, and why it is this one; ``warn`` gets sentences while it works.

    `auto` is `mtmd-cli` for one prompt about one track, where nothing can be shared, else `native`; where that is not
    there, the next of `server`, `mtmd-cli`, `embedded`. Raises ToolMissingError where there is none.
    """
    if settings.engine != "auto":
        return _open(settings.engine, settings, model, load, warn), "it was asked for"
    reason = "one prompt about one track" if load.is_single else "a track is heard once for all its prompts"
    passed_over: list[str] = []
    if settings.llama_dir is not None:  # a folder that was named and holds nothing is a mistake to be told
        _require_binary(settings.llama_dir)
    for name in _FOR_ONE if load.is_single else _FOR_MANY:
        try:
            return _open(name, settings, model, load, warn), "; ".join([*passed_over, reason])
        except ToolMissingError as error:
            passed_over.append(f"not {name}: {error}")
            reason = reason if name == "native" else "it is what there is"  # the server shares what was heard, too
    from musicflamingo_cli.engines.server.embedded import HOW_TO_INSTALL

    raise ToolMissingError(
        f"there is no llama.cpp here ({'; '.join(passed_over)})",
        f"build it with: musicflamingo build; or without a compiler: {HOW_TO_INSTALL};"
        " or name the folder of your own build with --llama-dir",
    )


def _require_binary(llama_dir: Path) -> None:
    """Raises ToolMissingError where neither binary is in the folder."""
    from musicflamingo_cli.llamacpp import binaries as llama_cpp

    with contextlib.suppress(ToolMissingError):
        llama_cpp.find(llama_cpp.SERVER, llama_dir)
        return
    llama_cpp.find(llama_cpp.MTMD_CLI, llama_dir)


def _open(name: str, settings: Settings, model: ModelPair, load: Load, warn: Callable[[str], None]) -> Engine:
    from musicflamingo_cli.engines.mtmd_cli import MtmdCliEngine
    from musicflamingo_cli.engines.native.engine import NativeEngine
    from musicflamingo_cli.engines.server.embedded import embedded_server
    from musicflamingo_cli.engines.server.server import ServerEngine, llama_server

    match name:
        case "mtmd-cli":
            return MtmdCliEngine(settings, model)
        case "server":
            return ServerEngine(llama_server(settings), settings, model, warn, load.at_once)
        case "native":
            return NativeEngine(settings, model, warn, load.at_once)
        case "embedded":
            return ServerEngine(embedded_server(), settings, model, warn, load.at_once)
        case other:
            raise ConfigError(f"no engine {other!r}", f"use one of: {', '.join(ENGINES)}")
