"""Engine `native`: llama.cpp's libraries in a process of ours. A clip is heard once, its prompts share that memory.

The worker (native_worker.py) uses the low-level bindings of llama-cpp-python over the shared libraries that lie beside
the built binaries; bindings and libraries must be of one release.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import multiprocessing
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from musicflamingo_cli import llama_cpp, memory, process
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.context import tokens_needed
from musicflamingo_cli.engines.native_messages import BINDINGS, READY, RELEASE, Question, Said, Track
from musicflamingo_cli.engines.resident import ResidentEngine
from musicflamingo_cli.engines.slots import Died, Slot
from musicflamingo_cli.errors import ToolMissingError
from musicflamingo_cli.models import ModelPair
from musicflamingo_cli.scratch import folder_prefix
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling

PACKAGE = "llama-cpp-python"
HOW_TO_INSTALL = f"CMAKE_ARGS=-DLLAMA_BUILD=OFF pip install {PACKAGE}=={BINDINGS}"
_MOST_LANES = 16  # of 16 sequences each: llama.cpp holds 256
_LOADING_SECONDS = 600.0  # a 7B model from a slow disk
_WORKER: tuple[str, ...] = (sys.executable, "-P", "-m", "musicflamingo_cli.engines.native_worker")
_LOOKS_EVERY = 0.2  # seconds: whether it is still there
_LIBRARIES = ("libllama.so", "libllama.dylib")


class NativeEngine(ResidentEngine["NativeProcess"]):
    """Raises ToolMissingError where bindings or libraries are missing, or are not of one release."""

    name = "native"

    def __init__(self, settings: Settings, model: ModelPair, warn: Callable[[str], None], at_once: int = 1) -> None:
        self._libraries, self.version = native_libraries(settings)
        command = (str(self._libraries / llama_cpp.SERVER),)
        _require_room(command, settings, model)
        super().__init__(command, settings, model, warn, min(at_once, _MOST_LANES))

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


def _require_room(command: Sequence[str], settings: Settings, model: ModelPair) -> None:
    """Raises ToolMissingError for a GPU that cannot hold the whole model; llama.cpp's tools can give it a part."""
    there = memory.for_llama_cpp(command, settings.gpu_layers)
    if there.is_gpu and settings.gpu_layers is None and model.size + memory.RESERVE > there.free:
        reason = f"{model.language_model.name} does not fit into {there.where} as a whole"
        raise ToolMissingError(reason, "take --engine server, or say how much of it: --gpu-layers 20")


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
            [*_WORKER, "--probe"],
            env=_environment(libraries),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return last if done.returncode else ""


def _environment(libraries: Path) -> dict[str, str]:
    where = {"LLAMA_CPP_LIB_PATH": str(libraries), "MTMD_CPP_LIB": str(libraries)}
    return llama_cpp.child_environment() | where


class NativeProcess:
    """A worker with ``slots`` lanes of ``context`` tokens each. Raises ToolMissingError when it cannot be started."""

    def __init__(self, libraries: Path, settings: Settings, model: ModelPair, context: int, slots: int) -> None:
        self.context = context
        self.slots = slots
        self._timeout = settings.timeout
        self._folder = Path(tempfile.mkdtemp(prefix=folder_prefix()))  # for its log
        self._last_log = ""
        self._heard: list[queue.Queue[Said | None]] = [queue.Queue() for _ in range(slots)]
        self._ready = threading.Event()
        self._is_gone = False
        self._spoke = 0  # how often the worker said anything
        self._sending = threading.Lock()
        ours, theirs = multiprocessing.Pipe()
        inherited = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 10)  # the shell that starts it uses 0 to 9
        command = [*_WORKER, "--connection", str(inherited), "--context", str(context), "--lanes", str(slots)]
        command += ["--model", str(model.language_model), "--mmproj", str(model.projector)]
        if settings.gpu_layers is not None:
            command += ["--gpu-layers", str(settings.gpu_layers)]
        command += ["--threads", str(settings.threads or psutil.cpu_count(logical=False) or 4)]  # as llama.cpp's tools
        try:
            self.child = process.Guarded(command, self._folder / "log", _environment(libraries), pass_fds=(inherited,))
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise ToolMissingError(f"{sys.executable} cannot be started: {error.strerror}", "see -v") from error
        finally:
            theirs.close()
            os.close(inherited)
        self._connection = ours
        threading.Thread(target=self._listen, args=(ours,), daemon=True, name="native").start()

    def wait_until_ready(self) -> None:
        if not self._ready.wait(_LOADING_SECONDS):
            raise Died(f"not ready after {_LOADING_SECONDS:g} s")
        if self._is_gone:
            raise Died("it ended while loading")

    def ask(self, lane: int, clip: Clip, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Said]:
        """What is said to each prompt, as soon as it is. Raises Died, or TimeoutError where the next takes too long."""
        questions = [Question(prompt.preset, prompt.system, prompt.text, prompt.max_tokens) for prompt in prompts]
        track = Track(
            lane,
            str(clip.path),
            questions,
            sampling.temperature,
            sampling.top_p,
            sampling.repeat_penalty,
            sampling.seed,
        )
        try:
            with self._sending:
                self._connection.send(track)
        except OSError as error:
            raise Died("it ended before it was asked") from error
        for _ in questions:
            said = self._next(lane)
            if said is None:
                raise Died(f"exit code {self.child.process.wait()}")
            yield said

    def _next(self, lane: int) -> Said | None:
        """What is said next in a lane, None when nothing will be. Its clock begins anew whenever the worker speaks."""
        while True:
            spoke = self._spoke
            with contextlib.suppress(queue.Empty):
                return self._heard[lane].get(timeout=self._timeout)
            if self._spoke == spoke:
                raise TimeoutError

    def log(self) -> str:
        return self._last_log or process.read_log(self._folder / "log")

    def close(self) -> None:
        self.child.kill()
        self._last_log = self._last_log or self.log()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _listen(self, connection: Connection) -> None:
        """Give what the worker says to the lane that it is for, until it is gone.

        Its watcher holds the other end, too, so that the end of the worker is not the end of the connection.
        """
        with contextlib.suppress(EOFError, OSError):
            while True:
                if connection.poll(_LOOKS_EVERY):
                    said = connection.recv()
                    self._spoke += 1
                    if said == READY:
                        self._ready.set()
                    else:
                        self._heard[said.lane].put(said)
                elif not self.child.is_running:
                    break
        self._is_gone = True
        self._ready.set()
        with self._sending:
            connection.close()
        for heard in self._heard:
            heard.put(None)
