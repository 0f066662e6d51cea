"""What is installed, what is missing, and what to type next."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from musicflamingo_cli._version import __version__
from musicflamingo_cli.choices import EngineName
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.native.engine import native_libraries
from musicflamingo_cli.engines.server.embedded import HOW_TO_INSTALL, embedded_server
from musicflamingo_cli.engines.transformers.environment import (
    OPTIONAL,
    Environment,
    describe_environment,
    missing_libraries,
)
from musicflamingo_cli.errors import ExitCode, MusicFlamingoError, ToolMissingError
from musicflamingo_cli.llamacpp import binaries, memory
from musicflamingo_cli.models.catalog import load_catalog
from musicflamingo_cli.models.checkpoints import check_checkpoint, installed_checkpoints, is_checkpoint_name, name_of
from musicflamingo_cli.models.model import Checkpoint, Model, ModelPair
from musicflamingo_cli.models.resolve import installed, resolve_model
from musicflamingo_cli.paths import llama_cache_dir, user_config_dir, user_log_dir
from musicflamingo_cli.system.disk import free_bytes, nearest_existing
from musicflamingo_cli.types import Windows

_GB = 1e9
_LITTLE_SPACE = 2 * _GB  # a clip of 20 minutes is 77 MB, and each track in progress has one
NOT_INSTALLED = "not installed (optional)"
_TRIMMED_HINT = "one that treats audio as the published models' own code does, and is faster: musicflamingo build"


class CheckStatus(StrEnum):
    """How a check ended; with a failure the product does not work."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. ``hint``: what to type next. ``exit_code``: the program's, where it is a failure.

    ``absent``: what is shown in place of ``detail`` where an optional part is not there.
    """

    name: str
    status: CheckStatus
    detail: str
    hint: str = ""
    exit_code: int = ExitCode.TRACK_FAILED
    absent: str = ""

    @property
    def shown(self) -> str:
        """The detail for a person: optional parts that are absent are called so."""
        if self.status == CheckStatus.OK:
            return self.absent or self.detail.replace("not installed", NOT_INSTALLED)
        return self.detail

    @classmethod
    def ok(cls, name: str, detail: str, hint: str = "") -> Check:
        """Return a check that passed."""
        return cls(name=name, status=CheckStatus.OK, detail=detail, hint=hint)

    @classmethod
    def warning(cls, name: str, detail: str, hint: str = "") -> Check:
        """Return a check whose result limits what the product can do."""
        return cls(name=name, status=CheckStatus.WARNING, detail=detail, hint=hint)

    @classmethod
    def failure(cls, name: str, detail: str, hint: str) -> Check:
        """Return a check that failed."""
        return cls(name=name, status=CheckStatus.FAILURE, detail=detail, hint=hint)

    @classmethod
    def optional(cls, name: str, detail: str, hint: str = "") -> Check:
        """Return a check of an optional part that is not there, or cannot be used; ``detail`` says why."""
        is_absent = detail.startswith("none") or "not installed" in detail
        absent = NOT_INSTALLED if is_absent else f"not usable (optional): {detail.removeprefix('not available: ')}"
        return cls(name=name, status=CheckStatus.OK, detail=detail, hint=hint, absent=absent)

    @classmethod
    def for_error(cls, name: str, error: MusicFlamingoError, hint: str = "") -> Check:
        """Return a check that failed with an error; ``hint`` replaces the error's own."""
        return cls(
            name=name,
            status=CheckStatus.FAILURE,
            detail=str(error),
            hint=hint or error.hint,
            exit_code=error.exit_code,
        )


def examine(settings: Settings) -> Iterator[Check]:
    """Yield all checks but the hearing tests, each as soon as it is known. Raises nothing."""
    versions = f"musicflamingo {__version__}, Python {platform.python_version()}, {platform.platform()}"
    yield Check.ok("product", versions)
    uses_transformers = runs_in_transformers(settings)
    with ThreadPoolExecutor(1) as background:  # importing torch takes seconds
        environment = background.submit(describe_environment, settings.device)
        yield from _engines(settings, uses_transformers)
        if not uses_transformers:
            yield _memory(settings)
        yield from _models(settings)
        yield from _decoders()
        yield from _disks(settings)
        yield _folders(settings)
        yield _hub()
        yield from _transformers(settings, uses_transformers, environment)


def runs_in_transformers(settings: Settings) -> bool:
    """Return whether the settings mean a checkpoint, which llama.cpp does not run."""
    if settings.engine is EngineName.TRANSFORMERS:
        return True
    try:
        return isinstance(resolve_model(settings), Checkpoint)
    except MusicFlamingoError:
        return is_checkpoint_name(settings.model)


def _engines(settings: Settings, uses_transformers: bool) -> Iterator[Check]:
    has_binary = uses_transformers or bool(settings.endpoint)  # llama.cpp is not needed then
    for name in (binaries.SERVER, binaries.MTMD_CLI):
        try:
            binary = binaries.find(name, settings.llama_dir)
            version = binaries.version(binary)
        except ToolMissingError as error:
            yield Check.warning(name, str(error), error.hint)
            continue
        has_binary = True
        if not binaries.takes_projector(binary):
            yield Check.failure(name, f"{binary} ({version}) cannot process audio", "musicflamingo build")
        elif binaries.windows(binary) == Windows.PADDED:
            yield Check.ok(name, f"{binary} ({version}), which pads audio to 30 s", _TRIMMED_HINT)
        else:
            yield Check.ok(name, f"{binary} ({version})")
    try:
        folder, version = native_libraries(settings)
        yield Check.ok("native", f"{folder} ({version})")
    except ToolMissingError as error:  # optional: the server does the same, more slowly
        yield Check.optional("native", f"not available: {error}", error.hint)
    try:
        yield Check.ok("embedded", embedded_server().version)
    except ToolMissingError as error:
        if has_binary:
            yield Check.optional("embedded", str(error))
        else:
            yield Check.for_error("embedded", error, f"musicflamingo build; or: {HOW_TO_INSTALL}")


def _transformers(settings: Settings, is_needed: bool, environment: Future[Environment]) -> Iterator[Check]:
    """Yield what torch reports, and which checkpoint there is; where neither is needed, their absence is no fault."""
    try:
        found = environment.result()
    except ToolMissingError as error:
        if is_needed:
            yield Check.for_error("transformers", error)
        else:
            yield Check.optional("transformers", f"not available: {error}", error.hint)
        return
    yield Check.ok("transformers", _summary(found))
    if is_needed and (missing := missing_libraries(settings)):
        detail = f"{', '.join(missing)} not installed, which --quantize or --attention needs"
        yield Check.failure("libraries", detail, f"pip install {' '.join(missing)}")
    checkpoints = installed_checkpoints(settings.models_folder)
    if checkpoints:
        yield _checkpoint(checkpoints[0])
    else:
        yield Check.optional("checkpoint", "none is installed", _pull_checkpoint())


def _pull_checkpoint() -> str:
    return f"musicflamingo models pull {load_catalog().checkpoints[0].repository}"


def _summary(found: Environment) -> str:
    memory = f", {found.free / _GB:.1f} of {found.total / _GB:.1f} GB free" if found.total else ""
    precision = "bf16" if found.has_bf16 else "no bf16"
    libraries = [f"{name} {found.libraries.get(name, 'not installed')}" for name in OPTIONAL]
    return (
        f"{found.transformers}, torch {found.torch} on {found.device}"
        f" ({found.device_name}{memory}, {precision}); {', '.join(libraries)}"
    )


def _checkpoint(folder: Path) -> Check:
    try:
        found = check_checkpoint(folder)
    except MusicFlamingoError as error:
        return Check.warning("checkpoint", str(error), error.hint)
    return Check.ok("checkpoint", f"{_description(found)} in {folder}")


def _memory(settings: Settings) -> Check:
    available = memory.available(settings.llama_dir, settings.gpu_layers, settings.gpus)
    detail = f"{available.where}: {available.free / _GB:.1f} of {available.total / _GB:.1f} GB free for models"
    if not available.is_gpu:
        return Check.warning("memory", f"{detail}; no GPU is used", "to build for a GPU: musicflamingo build --help")
    return Check.ok("memory", detail)


def _models(settings: Settings) -> Iterator[Check]:
    folder = settings.models_folder
    found = [*(path.name for path in installed(folder)), *map(name_of, installed_checkpoints(folder))]
    yield (Check.ok if found else Check.warning)("models", f"{folder}: {', '.join(found) or 'none'}")
    try:
        model = resolve_model(settings)
    except MusicFlamingoError as error:
        yield Check.for_error("model", error)
        return
    detail = _description(model)
    if model.is_tiny:
        detail = f"{detail}: it knows simple synthesised music only"
        hint = "musicflamingo models pull auto" if isinstance(model, ModelPair) else _pull_checkpoint()
        yield Check.warning("model", detail, hint)
    else:
        yield Check.ok("model", f"{detail}{f'; {model.reason}' if model.reason else ''}")


def _description(model: Model) -> str:
    if isinstance(model, ModelPair):
        return f"{model.name} with {model.projector_name} ({model.architecture}, {model.projector_type})"
    kind = f"{model.model_type}, " if isinstance(model, Checkpoint) else ""
    return f"{model.name} ({kind}at most {model.max_seconds:.0f} s of audio)"


def _decoders() -> Iterator[Check]:
    try:
        import soundfile

        yield Check.ok("libsndfile", str(soundfile.__libsndfile_version__))
    except Exception as error:
        yield Check.failure("libsndfile", str(error), "pip install --force-reinstall soundfile")
    try:
        import av

        libraries = {name: ".".join(map(str, version)) for name, version in av.library_versions.items()}
        yield Check.ok("FFmpeg", f"libavcodec {libraries.get('libavcodec', '?')} (PyAV {av.__version__})")
    except Exception as error:
        yield Check.failure("FFmpeg", str(error), "pip install --force-reinstall av")


def _disks(settings: Settings) -> Iterator[Check]:
    for name, folder in (("models' disk", settings.models_folder), ("temporary disk", Path(tempfile.gettempdir()))):
        free = free_bytes(folder)
        detail = f"{free / _GB:.1f} GB free in {folder}"
        yield Check.ok(name, detail) if free > _LITTLE_SPACE else Check.warning(name, detail, "make room")


def _folders(settings: Settings) -> Check:
    folders = {
        "models": settings.models_folder,
        "settings": user_config_dir(),
        "builds": llama_cache_dir(),
        "logs": user_log_dir(),
        "temporary files": Path(tempfile.gettempdir()),
    }
    locked = [
        f"{name} ({folder})"
        for name, folder in folders.items()
        if not os.access(nearest_existing(folder), os.W_OK | os.X_OK)
    ]
    if locked:
        hint = "give yourself permission, or name other folders (--models-dir, TMPDIR, XDG_CONFIG_HOME)"
        return Check.failure("folders", f"cannot write: {', '.join(locked)}", hint)
    return Check.ok("folders", f"{', '.join(folders)}: writable")


def _hub() -> Check:
    import huggingface_hub
    from huggingface_hub import constants

    if huggingface_hub.is_offline_mode():
        return Check.warning("hub", "HF_HUB_OFFLINE is set: nothing will be downloaded", "unset HF_HUB_OFFLINE")
    try:
        huggingface_hub.get_session().head(constants.ENDPOINT, timeout=5)
    except Exception as error:
        detail = f"{constants.ENDPOINT} cannot be reached ({type(error).__name__})"
        hint = "needed for `models pull` only: check the connection, or set HF_ENDPOINT"
        return Check.warning("hub", detail, hint)
    return Check.ok("hub", f"{constants.ENDPOINT} answers")


def as_json(check: Check) -> dict[str, Any]:
    """Return a check as `doctor --json` shows it."""
    return {"check": check.name, "status": check.status, "detail": check.detail, "hint": check.hint or None}
