"""A worker process of engine `native` (worker.py), seen from our side: its start, and requests to it."""

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
from musicflamingo_cli.engines.native.messages import READY, ClipRequest, Question, Reply
from musicflamingo_cli.engines.resident_process import LOADING_SECONDS, Died, ResidentProcess
from musicflamingo_cli.llamacpp import binaries
from musicflamingo_cli.models.resolve import ModelPair
from musicflamingo_cli.types import Clip, Prompt, Sampling

WORKER: tuple[str, ...] = (sys.executable, "-P", "-m", "musicflamingo_cli.engines.native.worker")
_POLL_SECONDS = 0.2  # how often to check that the worker still runs


def environment(libraries: Path) -> dict[str, str]:
    """Return the environment for a worker that loads the libraries in this folder."""
    variables = {"LLAMA_CPP_LIB_PATH": str(libraries), "MTMD_CPP_LIB": str(libraries)}
    return binaries.child_environment() | variables


class NativeProcess(ResidentProcess):
    """A running worker and the connection to it."""

    def __init__(self, libraries: Path, settings: Settings, model: ModelPair, context: int, slots: int) -> None:
        """Start a worker without waiting for it. Raises ToolMissingError where it cannot be started."""
        super().__init__(context, slots)
        self._timeout = settings.timeout
        self._replies: list[queue.Queue[Reply | None]] = [queue.Queue() for _ in range(slots)]
        self._ready = threading.Event()
        self._has_ended = False
        self._received = 0  # messages from the worker so far
        self._sending = threading.Lock()
        ours, theirs = multiprocessing.Pipe()
        inherited = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 10)  # the shell that starts it uses 0 to 9
        command = [*WORKER, "--connection", str(inherited), "--context", str(context), "--slots", str(slots)]
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
        """Wait until the model is loaded. Raises Died when the worker ends first or takes too long."""
        if not self._ready.wait(LOADING_SECONDS):
            raise Died(f"not ready after {LOADING_SECONDS:g} s")
        if self._has_ended:
            raise Died("it ended while loading")

    def ask(self, slot: int, clip: Clip, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Reply]:
        """Yield the reply to each prompt, as soon as it arrives.

        Raises Died where the worker ends first, TimeoutError where the next reply takes too long.
        """
        questions = [
            Question(preset=prompt.preset, system=prompt.system, text=prompt.text, max_tokens=prompt.max_tokens)
            for prompt in prompts
        ]
        request = ClipRequest(
            slot=slot,
            path=str(clip.path),
            questions=questions,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            repeat_penalty=sampling.repeat_penalty,
            seed=sampling.seed,
        )
        try:
            with self._sending:
                self._connection.send(request)
        except OSError as error:
            raise Died("it ended before the request reached it") from error
        for _ in questions:
            reply = self._next_reply(slot)
            if reply is None:
                raise Died(f"exit code {self.child.process.wait()}")
            yield reply

    def _next_reply(self, slot: int) -> Reply | None:
        """Return the next reply in a slot, None where the worker has ended.

        Raises TimeoutError after the time limit without any message from the worker, for whatever slot.
        """
        while True:
            received = self._received
            with contextlib.suppress(queue.Empty):
                return self._replies[slot].get(timeout=self._timeout)
            if self._received == received:
                raise TimeoutError

    def _listen(self, connection: Connection) -> None:
        """Pass each reply to the slot that it is for, until the worker has ended.

        The watcher of the worker's process group holds the other end open too, so the end of the worker does not
        close the connection.
        """
        with contextlib.suppress(EOFError, OSError):
            while True:
                if connection.poll(_POLL_SECONDS):
                    message = connection.recv()
                    self._received += 1
                    if message == READY:
                        self._ready.set()
                    else:
                        self._replies[message.slot].put(message)
                elif not self.child.is_running:
                    break
        self._has_ended = True
        self._ready.set()
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)  # unblocks a thread that is sending a long request which nobody reads
        with self._sending:
            connection.close()
        for replies in self._replies:
            replies.put(None)
