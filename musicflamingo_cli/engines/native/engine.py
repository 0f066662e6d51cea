"""Engine `native`: llama.cpp's libraries in a worker process. All prompts of a clip share its processed audio.

The worker (worker.py) uses the low-level bindings of llama-cpp-python over the shared libraries that lie beside
the built binaries; bindings and libraries must be of the same release.
"""

from __future__ import annotations

import importlib.metadata
import sys
from functools import lru_cache
from pathlib import Path

import psutil

from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.context import SlotBudget
from musicflamingo_cli.engines.native.bindings import BINDINGS, RELEASE
from musicflamingo_cli.engines.worker_engine import WorkerEngine
from musicflamingo_cli.engines.worker_process import WorkerProcess
from musicflamingo_cli.errors import ToolMissingError
from musicflamingo_cli.llamacpp import binaries, memory
from musicflamingo_cli.llamacpp.memory import Memory
from musicflamingo_cli.models.adapter_gguf import gguf_of
from musicflamingo_cli.models.model import ModelPair
from musicflamingo_cli.system.processes import ProbeError, probe
from musicflamingo_cli.types import Windows

WORKER: tuple[str, ...] = (sys.executable, "-P", "-m", "musicflamingo_cli.engines.native.worker")
PACKAGE = "llama-cpp-python"
HOW_TO_INSTALL = f"CMAKE_ARGS=-DLLAMA_BUILD=OFF pip install {PACKAGE}=={BINDINGS}"
_MAX_SLOTS = 16  # of 16 sequences each: llama.cpp holds 256
_LIBRARIES = ("libllama.so", "libllama.dylib")


class NativeEngine(WorkerEngine):
    """Decodes all prompts of all clips in one batch, in a worker process."""

    name = "native"
    windows = Windows.TRIMMED  # with any build: see audio_encoder.py
    instead = "try: --engine mtmd-cli"

    def __init__(self, settings: Settings, model: ModelPair, at_once: int = 1) -> None:
        """Check that it can work, without starting it.

        Raises ToolMissingError where bindings or libraries are missing or of different releases, or where the model
        does not fit.
        """
        self._libraries, version = native_libraries(settings)
        self.provenance = {"llama_cpp": version, "windows": str(self.windows)}
        self._pair = model
        if model.adapter:
            gguf_of(model.adapter, settings.llama_dir)  # converted now, where it has to be: not while a track waits
        budget = SlotBudget((str(self._libraries / binaries.SERVER),), settings, model, min(at_once, _MAX_SLOTS))
        super().__init__(settings, model, budget)
        self._require_memory(budget.memory)

    def _require_memory(self, available: Memory) -> None:
        """Raise ToolMissingError for a GPU that cannot hold the whole model; llama.cpp's tools can give it a part."""
        model = self._model
        if available.is_gpu and self._settings.gpu_layers is None and model.size + memory.RESERVE > available.free:
            reason = f"{model.name} does not fit into {available.where} as a whole"
            raise ToolMissingError(reason, "use --engine server, or set how many layers fit: --gpu-layers 20")

    def _new_process(self, context: int, slots: int) -> WorkerProcess:
        settings, pair = self._settings, self._pair
        command = [*WORKER, "--context", str(context), "--slots", str(slots)]
        command += ["--model", str(pair.language_model), "--mmproj", str(pair.projector)]
        if pair.adapter:
            command += ["--lora", str(gguf_of(pair.adapter, settings.llama_dir))]
        if settings.gpu_layers is not None:
            command += ["--gpu-layers", str(settings.gpu_layers)]
        command += ["--threads", str(settings.threads or psutil.cpu_count(logical=False) or 4)]  # as llama.cpp's tools
        command += binaries.flash_attention(settings.flash_attention)
        return WorkerProcess(
            command,
            environment(self._libraries, settings.gpus),
            context=context,
            slots=slots,
            timeout=settings.timeout,
        )


def environment(libraries: Path, gpus: str | None = None) -> dict[str, str]:
    """Return the environment for a worker that loads the libraries in this folder; ``gpus``: see gpus.variables."""
    variables = {"LLAMA_CPP_LIB_PATH": str(libraries), "MTMD_CPP_LIB": str(libraries)}
    return binaries.child_environment(gpus) | variables


def native_libraries(settings: Settings) -> tuple[Path, str]:
    """Return the folder of llama.cpp's shared libraries, and their version.

    Raises ToolMissingError where bindings or libraries are missing, do not load, or are of different releases.
    """
    binary = binaries.find(binaries.SERVER, settings.llama_dir)
    folder = binary.resolve().parent
    try:
        bindings = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise ToolMissingError(f"{PACKAGE} is not installed", f"install it with: {HOW_TO_INSTALL}") from None
    if bindings != BINDINGS:
        reason = f"{PACKAGE} {bindings} is installed, {BINDINGS} is needed"
        raise ToolMissingError(reason, f"install it with: {HOW_TO_INSTALL}")
    if not any((folder / name).exists() for name in _LIBRARIES):
        raise ToolMissingError(f"there are no shared libraries in {folder}", "musicflamingo build -- --force")
    version = binaries.version(binary)
    if RELEASE.removeprefix("b") not in version:
        reason = f"llama.cpp is {version}, but {PACKAGE} {BINDINGS} is made for {RELEASE}"
        raise ToolMissingError(reason, "musicflamingo build")
    if problem := _load_problem(folder):
        reason = f"llama.cpp's libraries in {folder} do not load: {problem}"
        raise ToolMissingError(reason, "musicflamingo build -- --force")
    return folder, f"{version}, {PACKAGE} {BINDINGS}"


@lru_cache
def _load_problem(libraries: Path) -> str:
    """Return why the libraries do not load, or differ from what the bindings declare; empty where they work."""
    try:
        done = probe([*WORKER, "--probe"], env=environment(libraries))
    except ProbeError as error:
        return str(error)
    return done.last_line if done.returncode else ""
