"""Engine `native`: llama.cpp's libraries in a process of ours. A clip is heard once, its prompts share that memory.

The worker (native_worker.py) uses the low-level bindings of llama-cpp-python over the shared libraries that lie beside
the built binaries; bindings and libraries must be of one release.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.context import tokens_needed
from musicflamingo_cli.engines.native.messages import BINDINGS, RELEASE
from musicflamingo_cli.engines.native.process import WORKER, NativeProcess, environment
from musicflamingo_cli.engines.resident import ResidentEngine
from musicflamingo_cli.engines.resident_process import Died
from musicflamingo_cli.engines.slots import Slot
from musicflamingo_cli.errors import ToolMissingError
from musicflamingo_cli.llamacpp import binaries as llama_cpp
from musicflamingo_cli.llamacpp import memory
from musicflamingo_cli.models.resolve import ModelPair
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling

PACKAGE = "llama-cpp-python"
HOW_TO_INSTALL = f"CMAKE_ARGS=-DLLAMA_BUILD=OFF pip install {PACKAGE}=={BINDINGS}"
_MOST_LANES = 16  # of 16 sequences each: llama.cpp holds 256
_LIBRARIES = ("libllama.so", "libllama.dylib")


class NativeEngine(ResidentEngine[NativeProcess]):
    """Raises ToolMissingError where bindings or libraries are missing, or are not of one release."""

    name = "native"

    def __init__(self, settings: Settings, model: ModelPair, warn: Callable[[str], None], at_once: int = 1) -> None:
        self._libraries, self.version = native_libraries(settings)
        command = (str(self._libraries / llama_cpp.SERVER),)
        super().__init__(command, settings, model, warn, min(at_once, _MOST_LANES))
        self._require_room()

    def _require_room(self) -> None:
        """Raises ToolMissingError for a GPU that cannot hold the whole model; llama.cpp's tools can give it a part."""
        there, settings, model = self._room.there, self._settings, self._model
        if there.is_gpu and settings.gpu_layers is None and model.size + memory.RESERVE > there.free:
            reason = f"{model.language_model.name} does not fit into {there.where} as a whole"
            raise ToolMissingError(reason, "take --engine server, or say how much of it: --gpu-layers 20")

    def _new_process(self, context: int, slots: int) -> NativeProcess:
        return NativeProcess(self._libraries, self._settings, self._model, context, slots)

    def _context_for(self, clip: Clip, prompts: Sequence[Prompt]) -> int:
        """The audio once, and all that is asked and answered about it."""
        needed = [tokens_needed(clip, prompt, self._settings, self._model) for prompt in prompts]
        return sum(needed) - (len(needed) - 1) * clip.audio_tokens

    def _ask_all(
        self, slot: Slot[NativeProcess], clip: Clip, prompts: Sequence[Prompt], sampling: Sampling
    ) -> Iterator[Answer | Failure]:
        asked = {prompt.preset: prompt for prompt in prompts}
        started = time.monotonic()
        try:
            for said in slot.process.ask(slot.number, clip, prompts, sampling):
                prompt = asked.pop(said.preset)
                if said.fault:
                    yield Failure(prompt.preset, "engine", said.fault, "see more with -v, or try: --engine mtmd-cli")
                    continue
                yield Answer(prompt, said.text, said.hit_limit, said.audio_tokens, time.monotonic() - started, sampling)
        except TimeoutError:
            reason = f"no answer within {self._settings.timeout:g} s"
            if self._slots.end(slot.process):  # it is still at it: the next clip gets another
                self._warn(f"native gave {reason} and is started again; clips beside it are asked again")
            for preset in asked:
                yield Failure(preset, "timeout", reason, "allow more with --timeout, or hear less: --max-seconds 300")
        except BaseException as error:
            is_news = self._slots.end(slot.process)
            if isinstance(error, Died):
                error.is_news = is_news
            raise


def native_libraries(settings: Settings) -> tuple[Path, str]:
    """The folder of llama.cpp's shared libraries, and their version. Raises ToolMissingError."""
    binary = llama_cpp.find(llama_cpp.SERVER, settings.llama_dir)
    folder = binary.resolve().parent
    try:
        bindings = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise ToolMissingError(f"{PACKAGE} is not installed", f"install it with: {HOW_TO_INSTALL}") from None
    if bindings != BINDINGS:
        raise ToolMissingError(f"{PACKAGE} {bindings} is here, {BINDINGS} is needed", f"type: {HOW_TO_INSTALL}")
    if not any((folder / name).exists() for name in _LIBRARIES):
        raise ToolMissingError(f"there are no shared libraries in {folder}", "musicflamingo build -- --force")
    version = llama_cpp.version(binary)
    if RELEASE.removeprefix("b") not in version:
        reason = f"llama.cpp is {version}, and {PACKAGE} {BINDINGS} describes {RELEASE}"
        raise ToolMissingError(reason, "musicflamingo build")
    if fault := _fault_of(folder):
        reason = f"llama.cpp's libraries in {folder} do not load: {fault}"
        raise ToolMissingError(reason, "musicflamingo build -- --force")
    return folder, f"{version}, {PACKAGE} {BINDINGS}"


@lru_cache
def _fault_of(libraries: Path) -> str:
    """Why the libraries do not load, or are not those that the bindings describe; empty where all is well."""
    try:
        done = subprocess.run(
            [*WORKER, "--probe"],
            env=environment(libraries),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return last if done.returncode else ""
