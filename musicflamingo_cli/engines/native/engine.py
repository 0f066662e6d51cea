"""Engine `native`: llama.cpp's libraries in a worker process. All prompts of a clip share its processed audio.

The worker (worker.py) uses the low-level bindings of llama-cpp-python over the shared libraries that lie beside
the built binaries; bindings and libraries must be of the same release.
"""

from __future__ import annotations

import importlib.metadata
import logging
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.context import tokens_needed
from musicflamingo_cli.engines.native.messages import BINDINGS, RELEASE
from musicflamingo_cli.engines.native.process import WORKER, NativeProcess, environment
from musicflamingo_cli.engines.resident import ResidentEngine
from musicflamingo_cli.engines.resident_process import Died
from musicflamingo_cli.engines.slots import Slot
from musicflamingo_cli.errors import FailureKind, ToolMissingError
from musicflamingo_cli.llamacpp import binaries, memory
from musicflamingo_cli.models.resolve import ModelPair
from musicflamingo_cli.system.processes import ProbeError, probe
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling

logger = logging.getLogger(__name__)
PACKAGE = "llama-cpp-python"
HOW_TO_INSTALL = f"CMAKE_ARGS=-DLLAMA_BUILD=OFF pip install {PACKAGE}=={BINDINGS}"
_MAX_SLOTS = 16  # of 16 sequences each: llama.cpp holds 256
_LIBRARIES = ("libllama.so", "libllama.dylib")


class NativeEngine(ResidentEngine[NativeProcess]):
    """Decodes all prompts of all clips in one batch, in a worker process."""

    name = "native"

    def __init__(self, settings: Settings, model: ModelPair, at_once: int = 1) -> None:
        """Check that it can work, without starting it.

        Raises ToolMissingError where bindings or libraries are missing or of different releases, or where the model
        does not fit.
        """
        self._libraries, self.version = native_libraries(settings)
        command = (str(self._libraries / binaries.SERVER),)
        super().__init__(command, settings, model, min(at_once, _MAX_SLOTS))
        self._require_memory()

    def _require_memory(self) -> None:
        """Raise ToolMissingError for a GPU that cannot hold the whole model; llama.cpp's tools can give it a part."""
        available, settings, model = self._budget.memory, self._settings, self._model
        if available.is_gpu and settings.gpu_layers is None and model.size + memory.RESERVE > available.free:
            reason = f"{model.language_model.name} does not fit into {available.where} as a whole"
            raise ToolMissingError(reason, "use --engine server, or set how many layers fit: --gpu-layers 20")

    def _new_process(self, context: int, slots: int) -> NativeProcess:
        return NativeProcess(self._libraries, self._settings, self._model, context, slots)

    def _context_for(self, clip: Clip, prompts: Sequence[Prompt]) -> int:
        """Return the tokens for the audio once, and for all prompts and answers. Raises TooLongError."""
        needed = [tokens_needed(clip, prompt, self._settings, self._model) for prompt in prompts]
        return sum(needed) - (len(needed) - 1) * clip.audio_tokens

    def _ask_all(
        self, slot: Slot[NativeProcess], clip: Clip, prompts: Sequence[Prompt], sampling: Sampling
    ) -> Iterator[Answer | Failure]:
        pending = {prompt.preset: prompt for prompt in prompts}
        started = time.monotonic()
        try:
            for reply in slot.process.ask(slot.number, clip, prompts, sampling):
                prompt = pending.pop(reply.preset)
                if reply.error:
                    yield Failure(
                        preset=prompt.preset,
                        kind=FailureKind.ENGINE,
                        reason=reply.error,
                        hint="see more with -v, or try: --engine mtmd-cli",
                    )
                    continue
                yield Answer(
                    prompt=prompt,
                    text=reply.text,
                    hit_limit=reply.hit_limit,
                    audio_tokens=reply.audio_tokens,
                    seconds=time.monotonic() - started,
                    sampling=sampling,
                )
        except TimeoutError:
            yield from self._time_out(slot.process, list(pending))
        except BaseException as error:
            is_first_report = self._slots.end(slot.process)
            if isinstance(error, Died):
                error.is_first_report = is_first_report
            raise

    def _time_out(self, process: NativeProcess, presets: Sequence[str]) -> Iterator[Failure]:
        """End the worker, which still works on the clip, and yield a failure for each preset without an answer."""
        reason = f"no answer within {self._settings.timeout:g} s"
        if self._slots.end(process):
            logger.warning("native gave %s and is restarted; the other clips in progress are retried", reason)
        for preset in presets:
            yield Failure(
                preset=preset,
                kind=FailureKind.TIMEOUT,
                reason=reason,
                hint="allow more with --timeout, or use less audio: --max-seconds 300",
            )


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
