"""One worker of engine `native` (native_worker.py): its libraries, its connection, requests to it."""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import queue
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.native.messages import READY, Question, Said, Track
from musicflamingo_cli.engines.resident_process import LOADING_SECONDS, Died, ResidentProcess
from musicflamingo_cli.llamacpp import binaries as llama_cpp
from musicflamingo_cli.models.resolve import ModelPair
from musicflamingo_cli.types import Clip, Prompt, Sampling

WORKER: tuple[str, ...] = (sys.executable, "-P", "-m", "musicflamingo_cli.engines.native.worker")
_LOOKS_EVERY = 0.2  # seconds: whether it is still there


def environment(libraries: Path) -> dict[str, str]:
    """For a process of ours that loads these libraries."""
    where = {"LLAMA_CPP_LIB_PATH": str(libraries), "MTMD_CPP_LIB": str(libraries)}
    return llama_cpp.child_environment() | where


class NativeProcess(ResidentProcess):
    """A running worker; its slots are its lanes. Raises ToolMissingError when it cannot be started."""

    def __init__(self, libraries: Path, settings: Settings, model: ModelPair, context: int, slots: int) -> None:
        super().__init__(context, slots)
        self._timeout = settings.timeout
        self._heard: list[queue.Queue[Said | None]] = [queue.Queue() for _ in range(slots)]
        self._ready = threading.Event()
        self._is_gone = False
        self._spoke = 0  # how often the worker said anything
        self._sending = threading.Lock()
        ours, theirs = multiprocessing.Pipe()
        inherited = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 10)  # the shell that starts it uses 0 to 9
        command = [*WORKER, "--connection", str(inherited), "--context", str(context), "--lanes", str(slots)]
        command += ["--model", str(model.language_model), "--mmproj", str(model.projector)]
        if settings.gpu_layers is not None:
            command += ["--gpu-layers", str(settings.gpu_layers)]
        command += ["--threads", str(settings.threads or psutil.cpu_count(logical=False) or 4)]  # as llama.cpp's tools
        try:
            self._launch(command, environment(libraries), "see -v", (inherited,))
        finally:
            theirs.close()
            os.close(inherited)
        self._connection = ours
        threading.Thread(target=self._listen, args=(ours,), daemon=True, name="native").start()

    def wait_until_ready(self) -> None:
        if not self._ready.wait(LOADING_SECONDS):
            raise Died(f"not ready after {LOADING_SECONDS:g} s")
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
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)  # a long request that it did not live to read waits on this
        with self._sending:
            connection.close()
        for heard in self._heard:
            heard.put(None)
