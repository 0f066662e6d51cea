"""Engine `server`: one resident llama-server. The model is loaded once, and a clip is heard once for all its prompts.

It listens on a Unix socket in a folder that only its owner may enter: no port, and no key that a process list shows.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from musicflamingo_cli import llama_cpp, process
from musicflamingo_cli.audio import folder_prefix
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.context import tokens_needed
from musicflamingo_cli.errors import EngineError, ModelError, TimedOutError, ToolMissingError
from musicflamingo_cli.models import ModelPair
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling

_LOADING_SECONDS = 600.0  # a 7B model from a slow disk
_SMALLEST_CONTEXT = 4096  # tokens: two minutes and an answer; doubled when a longer clip comes
_CLIP_NAME = "clip.wav"


class ServerDied(Exception):
    """The server ended, or stopped answering, in the middle of a request."""


class ServerEngine:
    """Raises ToolMissingError when llama-server, or what it needs of the system, is not there.

    ``warn`` gets a sentence when the server had to be restarted or did not share the heard audio.
    """

    name = "server"
    lanes = 1

    def __init__(self, settings: Settings, model: ModelPair, warn: Callable[[str], None]) -> None:
        if not hasattr(socket, "AF_UNIX"):
            raise ToolMissingError("the engine server needs Unix sockets", "use --engine mtmd-cli")
        self._settings = settings
        self._model = model
        self._warn = warn
        self._binary = llama_cpp.find(llama_cpp.SERVER, settings.llama_dir)
        self.version = llama_cpp.version(self._binary)
        self._server: _Server | None = None
        self._told_unshared = False

    def describe(self, clip: Clip, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Answer | Failure]:
        """All prompts at once: the first to be answered hears the clip, the others find it in the slot's memory.

        A server that dies is started again and asked again what it left open, once.
        """
        context = max(tokens_needed(clip, prompt, self._settings, self._model) for prompt in prompts)
        pending = list(prompts)
        for attempt in (1, 2):
            try:
                for result in self._ask_all(self._running(context), clip, pending, sampling):
                    answered = result.preset if isinstance(result, Failure) else result.prompt.preset
                    pending = [prompt for prompt in pending if prompt.preset != answered]
                    yield result
                return
            except ServerDied as death:
                if attempt == 2:
                    raise self._died(death) from death
                self._warn(f"llama-server died and is started again; its last words:\n{self._last_words()}")
                self.close()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _running(self, context: int) -> _Server:
        """The server, started if need be; again with a larger context when this clip needs one."""
        if self._server is not None and self._server.context < context:
            self.close()
        if self._server is None:
            size = self._settings.ctx_size or _SMALLEST_CONTEXT
            while size < context:
                size *= 2
            limit = self._settings.ctx_size or self._model.context_length
            self._server = _Server(self._binary, self._settings, self._model, min(size, limit))
            try:
                self._server.wait_until_ready()
            except ServerDied as death:
                raise self._died(death) from death
        return self._server

    def _ask_all(
        self, server: _Server, clip: Clip, prompts: Sequence[Prompt], sampling: Sampling
    ) -> Iterator[Answer | Failure]:
        server.put(clip)
        shared = 0
        pool = ThreadPoolExecutor(len(prompts), thread_name_prefix="prompt")
        try:
            waiting = {pool.submit(server.ask, prompt, sampling): prompt for prompt in prompts}
            for done in as_completed(waiting):
                try:
                    reply, seconds = done.result()
                except EngineError as error:
                    yield Failure(waiting[done].preset, error.kind, str(error), error.hint)
                    continue
                shared += reply["timings"]["cache_n"] >= clip.audio_tokens
                yield _answer(reply, clip, waiting[done], sampling, seconds)
            self._check_shared(shared, len(prompts))
        except BaseException:
            self.close()  # ends the requests, too, so that the pool's threads can
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _check_shared(self, shared: int, asked: int) -> None:
        if shared < asked - 1 and not self._told_unshared:
            self._told_unshared = True
            self._warn(f"llama-server heard the audio anew for {asked - shared} of {asked} prompts; this run is slow")

    def _last_words(self) -> str:
        return llama_cpp.tail(self._server.log()) if self._server else ""

    def _died(self, death: ServerDied) -> EngineError | ModelError:
        known = llama_cpp.diagnose(self._server.log()) if self._server else None
        words = self._last_words()
        self.close()
        if known:
            return known.error(f"llama-server: {death}")
        return EngineError(f"llama-server died: {death}\n{words}", "try --engine mtmd-cli, or: musicflamingo build")


class _Server:
    """One llama-server process, its private folder, and requests to it."""

    def __init__(self, binary: Path, settings: Settings, model: ModelPair, context: int) -> None:
        self.context = context
        self._timeout = settings.timeout
        # Not below a long TMPDIR: a socket's path holds at most 107 bytes (sun_path of 108).
        parent = tempfile.gettempdir() if len(tempfile.gettempdir()) < 60 else "/tmp"
        self._folder = Path(tempfile.mkdtemp(prefix=folder_prefix(), dir=parent))  # mode 0700
        self._media = self._folder / "media"
        self._media.mkdir()
        self._socket = self._folder / "s.sock"
        command = [str(binary), "-m", str(model.language_model), "--mmproj", str(model.projector), "--jinja"]
        command += ["--host", str(self._socket), "--media-path", str(self._media), "-np", "1", "-c", str(context)]
        # No page for a person, no view of what runs, and no copies of finished tracks' memory: a batch never
        # comes back to one (upstream's default would keep up to 8 GiB).
        command += ["--no-webui", "--no-slots", "--cache-ram", "0", "--offline", "--no-warmup", "--log-colors", "off"]
        if settings.gpu_layers is not None:
            command += ["-ngl", str(settings.gpu_layers)]
        if settings.threads is not None:
            command += ["-t", str(settings.threads)]
        try:
            self._child = process.Guarded(command, self._folder / "log", llama_cpp.child_environment())
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise ToolMissingError(
                f"{binary} cannot be started: {error.strerror}", "build it with: musicflamingo build"
            ) from error

    def wait_until_ready(self) -> None:
        """Until the model is loaded. Raises ServerDied when the process ends first or takes too long."""
        deadline = time.monotonic() + _LOADING_SECONDS
        while time.monotonic() < deadline:
            if not self._child.is_running:
                raise ServerDied(f"exit code {self._child.process.returncode} while loading")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self._request("GET", "/health", None, 5.0)[0] == 200:
                    return
            time.sleep(0.02)
        raise ServerDied(f"not ready after {_LOADING_SECONDS:g} s")

    def put(self, clip: Clip) -> None:
        """Show the server a clip: a link in its media folder, so that no audio travels through the socket."""
        target = self._media / _CLIP_NAME
        target.unlink(missing_ok=True)
        try:
            os.link(clip.path, target)
        except OSError:  # another file system
            shutil.copyfile(clip.path, target)

    def ask(self, prompt: Prompt, sampling: Sampling) -> tuple[dict[str, Any], float]:
        """One chat completion and its seconds. Raises ServerDied, TimedOutError, or EngineError for a refusal."""
        started = time.monotonic()
        try:
            status, body = self._request("POST", "/v1/chat/completions", _chat(prompt, sampling), self._timeout)
        except TimeoutError as error:
            raise TimedOutError(
                f"no answer within {self._timeout:g} s", "allow more with --timeout, or hear less: --max-seconds 300"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise ServerDied(str(error) or type(error).__name__) from error
        if status != 200:
            raise EngineError(_refusal(status, body), "see the same with: --engine mtmd-cli")
        reply: dict[str, Any] = json.loads(body)
        return reply, time.monotonic() - started

    def log(self) -> str:
        return process.read_log(self._folder / "log")

    def close(self) -> None:
        self._child.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _request(self, method: str, path: str, body: Any, timeout: float) -> tuple[int, bytes]:
        connection = _UnixConnection(self._socket, timeout)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        while True:
            try:
                return self.sock.connect(str(self._path))
            except BlockingIOError:  # its queue of callers (5) is full for a moment: more prompts than that at once
                time.sleep(0.01)


def _chat(prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
    """Audio first, text last: so all prompts of a clip begin alike, and share what was heard."""
    audio = {"type": "input_audio", "input_audio": {"url": f"file://{_CLIP_NAME}"}}
    messages: list[dict[str, Any]] = [{"role": "user", "content": [audio, {"type": "text", "text": prompt.text}]}]
    if prompt.system:
        messages.insert(0, {"role": "system", "content": prompt.system})
    return {
        "messages": messages,
        "max_tokens": prompt.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "repeat_penalty": sampling.repeat_penalty,
        "seed": sampling.seed,
        "id_slot": 0,
        "cache_prompt": True,
    }


def _answer(reply: dict[str, Any], clip: Clip, prompt: Prompt, sampling: Sampling, seconds: float) -> Answer:
    choice, timings = reply["choices"][0], reply["timings"]
    prompt_tokens = int(timings["cache_n"]) + int(timings["prompt_n"])
    return Answer(
        prompt=prompt,
        text=choice["message"]["content"] or "",
        hit_limit=choice["finish_reason"] == "length",
        # The server does not count audio apart: a prompt shorter than the audio alone was not all heard.
        audio_tokens=min(prompt_tokens, clip.audio_tokens),
        seconds=seconds,
        sampling=sampling,
    )


def _refusal(status: int, body: bytes) -> str:
    try:
        said = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        said = body[:200].decode("utf-8", errors="replace")
    return f"llama-server refused the request ({status}): {said}"
