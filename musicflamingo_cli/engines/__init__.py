"""Engines: whatever turns one clip and all its prompts into answers. One contract, one module for each engine.

``contract.Engine`` is what each of them does; ``open_engine`` opens the right one.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from pathlib import Path

from musicflamingo_cli.choices import EngineName
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.contract import Engine
from musicflamingo_cli.errors import ConfigError, MusicFlamingoError, ToolMissingError
from musicflamingo_cli.models.model import Checkpoint, Model, ModelPair, RemoteModel
from musicflamingo_cli.types import Workload

__all__ = ["Engine", "open_engine"]

_LOADING_SECONDS = 600.0  # that an engine may take before its first answer, in a pool

_FOR_ONE = (EngineName.MTMD_CLI, EngineName.SERVER, EngineName.EMBEDDED)
_FOR_MANY = (EngineName.NATIVE, EngineName.SERVER, EngineName.MTMD_CLI, EngineName.EMBEDDED)
_FOR_CONVERSATIONS = (EngineName.NATIVE, EngineName.SERVER, EngineName.EMBEDDED)


def open_engine(settings: Settings, model: Model, workload: Workload) -> tuple[Engine, str]:
    """Return the engine that the settings name, and the reason for the choice: a pool for several GPUs or endpoints.

    A checkpoint runs in `transformers`. For a GGUF pair, `auto` is `mtmd-cli` for one prompt about one track, where
    nothing can be shared, else `native`; where that is not available, the next of `server`, `mtmd-cli` (which cannot
    hold a conversation), `embedded`. Raises ToolMissingError where none is available, ConfigError where the named
    engine does not run such a model.
    """
    if isinstance(model, RemoteModel):
        return _open_remote(settings, model)
    if settings.engine == EngineName.REMOTE:
        raise ConfigError("--engine remote needs an endpoint", "name one with --endpoint URL")
    if settings.gpus is not None:
        return _open_gpus(settings, model, workload)
    return _open_one(settings, model, workload)


def _open_remote(settings: Settings, model: RemoteModel) -> tuple[Engine, str]:
    """A pool, also of one endpoint: it waits for one that is away for a moment. Raises what concerns all of them."""
    from musicflamingo_cli.engines.pool.engine import PoolEngine
    from musicflamingo_cli.engines.pool.member import Member
    from musicflamingo_cli.engines.remote.engine import TRIES, RemoteEngine
    from musicflamingo_cli.models.endpoints import endpoints_of

    if settings.engine not in (EngineName.AUTO, EngineName.REMOTE):
        raise ConfigError(f"--engine {settings.engine} and --endpoint exclude each other", "leave one of them out")
    members: list[Member[Engine]] = []
    problems: dict[str, MusicFlamingoError] = {}
    for endpoint in endpoints_of(settings):
        engine = RemoteEngine(endpoint, settings, model)
        try:
            engine.ping()
        except MusicFlamingoError as error:
            problems[endpoint.url] = error
        members.append(Member(endpoint.url, partial(RemoteEngine, endpoint, settings, model), engine))
    # An endpoint limits its requests itself: each has so many tries of at most the time limit.
    pool = PoolEngine(members, _LOADING_SECONDS + settings.timeout * TRIES)
    for url, problem in problems.items():
        pool.leave_out(url, problem)
    if len(problems) == len(members):
        pool.close()
        raise next(iter(problems.values()))
    return pool, "chosen with --endpoint"


def _open_gpus(settings: Settings, model: Model, workload: Workload) -> tuple[Engine, str]:
    """An engine on each GPU; on one alone, that engine."""
    from musicflamingo_cli.engines.pool.engine import PoolEngine
    from musicflamingo_cli.engines.pool.gpus import gpus_to_use
    from musicflamingo_cli.engines.pool.member import Member

    numbers = gpus_to_use(settings, by_drivers=isinstance(model, Checkpoint))
    if len(numbers) == 1:
        return _open_one(replace(settings, gpus=str(numbers[0])), model, workload)
    members: list[Member[Engine]] = []
    reason = ""
    for number in numbers:
        own = replace(settings, gpus=str(number))
        engine, reason = _open_one(own, model, workload)
        members.append(Member(f"GPU {number}", partial(_engine_alone, own, model, workload), engine))
    return PoolEngine(members, _LOADING_SECONDS + settings.timeout), f"one on each of {len(members)} GPUs; {reason}"


def _engine_alone(settings: Settings, model: Model, workload: Workload) -> Engine:
    return _open_one(settings, model, workload)[0]


def _open_one(settings: Settings, model: Model, workload: Workload) -> tuple[Engine, str]:
    """One engine of our own."""
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
