"""What is installed, what is missing, and what to type next."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musicflamingo_cli._version import __version__
from musicflamingo_cli.captioning.captioner import resolve_model
from musicflamingo_cli.config import Settings, llama_cache_dir, user_config_dir, user_log_dir
from musicflamingo_cli.engines.native.engine import native_libraries
from musicflamingo_cli.engines.server.embedded import HOW_TO_INSTALL, embedded_server
from musicflamingo_cli.errors import EXIT_TRACK_FAILED, MusicFlamingoError, ToolMissingError
from musicflamingo_cli.llamacpp import binaries as llama_cpp
from musicflamingo_cli.llamacpp import memory
from musicflamingo_cli.models.resolve import installed
from musicflamingo_cli.system.disk import free_bytes, nearest_existing

OK, WARNING, FAILURE = "ok", "warning", "failure"
_GB = 1e9
_LITTLE_SPACE = 2 * _GB  # a clip of 20 minutes is 77 MB, one for each track in work


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. ``hint``: what to type next, where it is not ok."""

    name: str
    status: str
    detail: str
    hint: str = ""
    exit_code: int = EXIT_TRACK_FAILED  # where it is a failure


def examine(settings: Settings) -> Iterator[Check]:
    """Everything but the hearing test, each line as soon as it is known. Nothing raises."""
    yield Check(
        "product", OK, f"musicflamingo {__version__}, Python {platform.python_version()}, {platform.platform()}"
    )
    yield from _engines(settings)
    yield _memory(settings)
    yield from _models(settings)
    yield from _decoders()
    yield from _disks(settings)
    yield from _folders(settings)
    yield _hub()


def _engines(settings: Settings) -> Iterator[Check]:
    found = 0
    for name in (llama_cpp.SERVER, llama_cpp.MTMD_CLI):
        try:
            binary = llama_cpp.find(name, settings.llama_dir)
            version = llama_cpp.version(binary)
        except ToolMissingError as error:
            yield Check(name, WARNING, str(error), error.hint)
            continue
        found += 1
        if llama_cpp.hears(binary):
            yield Check(name, OK, f"{binary} ({version})")
        else:
            yield Check(name, FAILURE, f"{binary} ({version}) takes no projector", "musicflamingo build")
    try:
        folder, version = native_libraries(settings)
        yield Check("native", OK, f"{folder} ({version})")
    except ToolMissingError as error:  # nobody needs it: the server does the same, more slowly
        yield Check("native", OK, f"not here: {error}", error.hint)
    try:
        yield Check("embedded", OK, embedded_server().version)
    except ToolMissingError as error:
        hint = f"musicflamingo build; or: {HOW_TO_INSTALL}"
        yield (
            Check("embedded", OK, str(error))
            if found
            else Check("embedded", FAILURE, str(error), hint, error.exit_code)
        )


def _memory(settings: Settings) -> Check:
    there = memory.here(settings.llama_dir, settings.gpu_layers)
    detail = f"{there.where}: {there.free / _GB:.1f} of {there.total / _GB:.1f} GB free for models"
    if not there.is_gpu:
        return Check("memory", WARNING, f"{detail}; no GPU is used", "for a GPU's build: musicflamingo build --help")
    return Check("memory", OK, detail)


def _models(settings: Settings) -> Iterator[Check]:
    here = installed(settings.models_folder)
    names = ", ".join(path.name for path in here) or "none"
    yield Check("models", OK if here else WARNING, f"{settings.models_folder}: {names}")
    try:
        pair = resolve_model(settings)
    except MusicFlamingoError as error:
        yield Check("model", FAILURE, str(error), error.hint, error.exit_code)
        return
    detail = f"{pair.language_model.name} with {pair.projector.name} ({pair.architecture}, {pair.projector_type})"
    if pair.is_toy:
        yield Check(
            "model", WARNING, f"{detail}: it knows simple synthesised music only", "musicflamingo models pull auto"
        )
    else:
        yield Check("model", OK, f"{detail}{f'; {pair.why}' if pair.why else ''}")


def _decoders() -> Iterator[Check]:
    try:
        import soundfile

        yield Check("libsndfile", OK, str(soundfile.__libsndfile_version__))
    except Exception as error:
        yield Check("libsndfile", FAILURE, str(error), "pip install --force-reinstall soundfile")
    try:
        import av

        libraries = {name: ".".join(map(str, version)) for name, version in av.library_versions.items()}
        yield Check("FFmpeg", OK, f"libavcodec {libraries.get('libavcodec', '?')} (PyAV {av.__version__})")
    except Exception as error:
        yield Check("FFmpeg", FAILURE, str(error), "pip install --force-reinstall av")


def _disks(settings: Settings) -> Iterator[Check]:
    for name, folder in (("models' disk", settings.models_folder), ("temporary disk", Path(tempfile.gettempdir()))):
        free = free_bytes(folder)
        enough = free > _LITTLE_SPACE
        yield Check(
            name, OK if enough else WARNING, f"{free / _GB:.1f} GB free in {folder}", "" if enough else "make room"
        )


def _folders(settings: Settings) -> Iterator[Check]:
    folders = {
        "models": settings.models_folder,
        "settings": user_config_dir(),
        "builds": llama_cache_dir(),
        "logs": user_log_dir(),
        "temporary files": Path(tempfile.gettempdir()),
    }
    locked = []
    for name, folder in folders.items():
        if not os.access(nearest_existing(folder), os.W_OK | os.X_OK):
            locked.append(f"{name} ({folder})")
    if locked:
        hint = "give yourself permission, or name other folders (--models-dir, TMPDIR, XDG_CONFIG_HOME)"
        yield Check("folders", FAILURE, f"cannot write: {', '.join(locked)}", hint)
    else:
        yield Check("folders", OK, f"{', '.join(folders)}: writable")


def _hub() -> Check:
    from huggingface_hub import constants
    from huggingface_hub.utils._http import get_session

    if constants.is_offline_mode():
        return Check("hub", WARNING, "HF_HUB_OFFLINE is set: nothing will be downloaded", "unset HF_HUB_OFFLINE")
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception as error:
        told = f"{constants.ENDPOINT} cannot be reached ({type(error).__name__})"
        return Check("hub", WARNING, told, "needed for `models pull` only: check the connection, or set HF_ENDPOINT")
    return Check("hub", OK, f"{constants.ENDPOINT} answers")


def as_json(check: Check) -> dict[str, Any]:
    return {"check": check.name, "status": check.status, "detail": check.detail, "hint": check.hint or None}
