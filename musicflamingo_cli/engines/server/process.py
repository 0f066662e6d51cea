"""One llama-server process (or one with the same interface): its private folder, its address, requests to it.

It listens on a Unix socket in a folder that only its owner may enter: no port, and no key that a process list shows.
On systems without such sockets it listens on a free loopback port and requires a random key.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.conversation import messages, response_format
from musicflamingo_cli.engines.resident_process import LOADING_SECONDS, Died, ResidentProcess
from musicflamingo_cli.engines.server.stream import events
from musicflamingo_cli.errors import EngineError, TimedOutError
from musicflamingo_cli.llamacpp import binaries
from musicflamingo_cli.models.adapter_gguf import gguf_of
from musicflamingo_cli.models.model import ModelPair
from musicflamingo_cli.types import Clip, Prompt, Sampling, Windows

KEY_VARIABLE = "LLAMA_API_KEY"  # not a flag: every user of the machine can see command lines
_HTTP_THREADS_PER_SLOT = 8  # a request holds its thread until its answer: a clip's prompts, and spare ones
_LISTENING = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")


@dataclass(frozen=True, slots=True)
class Program:
    """What to start: ``command`` takes llama-server's flags, ``version`` is llama.cpp's, for provenance."""

    name: str
    version: str
    windows: Windows
    command: tuple[str, ...]


class IdleTimeout:
    """A limit on the time without an answer in a slot, which answers its prompts one after another.

    All requests of a slot share one: each answer restarts the clock for the others.
    """

    def __init__(self, seconds: float) -> None:
        """Start the clock."""
        self.seconds = seconds
        self._since = time.monotonic()

    def renew(self) -> None:
        """Restart the clock."""
        self._since = time.monotonic()

    def wait_for(self, reply: socket.socket) -> None:
        """Wait until a reply can be read. Raises TimeoutError."""
        while not wait([reply], max(0.0, left := self._since + self.seconds - time.monotonic())):
            if left <= 0:
                raise TimeoutError


class ServerProcess(ResidentProcess):
    """A running server."""

    def __init__(self, program: Program, settings: Settings, model: ModelPair, context: int, slots: int) -> None:
        """Start a server without waiting for it. Raises ToolMissingError where it cannot be started."""
        # Not below a long TMPDIR: a socket's path holds at most 107 bytes (sun_path of 108).
        super().__init__(context, slots, tempfile.gettempdir() if len(tempfile.gettempdir()) < 60 else "/tmp")
        self._media = self._folder / "media"
        self._media.mkdir()
        self.socket = self._folder / "s.sock" if hasattr(socket, "AF_UNIX") else None
        self._key = "" if self.socket else secrets.token_urlsafe(32)
        self.port = 0
        command = [*program.command, "-m", str(model.language_model), "--mmproj", str(model.projector), "--jinja"]
        command += (
            ["--host", binaries.list_item(self.socket)] if self.socket else ["--host", "127.0.0.1", "--port", "0"]
        )
        if model.adapter:
            command += ["--lora", binaries.list_item(gguf_of(model.adapter, settings.llama_dir))]
        command += ["--media-path", str(self._media), "-np", str(slots), "-c", str(context * slots)]
        command += ["--threads-http", str(_HTTP_THREADS_PER_SLOT * slots + 2)]
        # No web page, no list of slots, and no copies of finished clips' memory: a batch never returns to one
        # (upstream's default would keep up to 8 GiB).
        command += ["--no-webui", "--no-slots", "--cache-ram", "0", "--offline", "--no-warmup", "--log-colors", "off"]
        if settings.gpu_layers is not None:
            command += ["-ngl", str(settings.gpu_layers)]
        if settings.threads is not None:
            command += ["-t", str(settings.threads)]
        command += binaries.flash_attention(settings.flash_attention)
        environment = binaries.child_environment(settings.gpus) | ({KEY_VARIABLE: self._key} if self._key else {})
        self._launch(command, environment, "build it with: musicflamingo build")

    def wait_until_ready(self) -> None:
        """Wait until the model is loaded. Raises Died when the server ends first or takes too long."""
        deadline = time.monotonic() + LOADING_SECONDS
        while time.monotonic() < deadline:
            if not self.child.is_running:
                raise Died(f"exit code {self.child.process.returncode} while loading")
            if self._is_listening():
                with (
                    contextlib.suppress(OSError, http.client.HTTPException),
                    self._response("GET", "/health", None, IdleTimeout(5.0)) as response,
                ):
                    if response.status == 200:
                        return
            time.sleep(0.02)
        raise Died(f"not ready after {LOADING_SECONDS:g} s")

    def _is_listening(self) -> bool:
        """Return whether its address is known: its log names the port that the system chose."""
        if self.socket is None and not self.port and (match := _LISTENING.search(self.log())):
            self.port = int(match[1])
        return bool(self.socket or self.port)

    def put(self, clip: Clip, slot: int) -> None:
        """Give the server a slot's clip as a link in its media folder, so that no audio is sent over HTTP.

        Raises Died where the server has ended, OSError where the clip cannot be linked or copied.
        """
        try:
            for number, each in enumerate(clip.all):
                target = self._media / _media_name(slot, number)
                target.unlink(missing_ok=True)
                try:
                    os.link(each.path, target)
                except OSError:  # another file system
                    shutil.copyfile(each.path, target)
        except OSError as error:
            if self._media.is_dir():
                raise
            raise Died("it ended before the request reached it") from error  # and its folder was removed

    def ask(
        self,
        prompt: Prompt,
        sampling: Sampling,
        slot: int,
        timeout: IdleTimeout,
        clips: int = 1,
        on_piece: Callable[[str], None] | None = None,
    ) -> tuple[dict[str, Any], float]:
        """Return one chat completion and how many seconds it took. ``timeout`` is shared by all requests of the slot.

        ``on_piece`` gets the pieces of the answer as they are made; where it raises, the connection is closed, and then
        the server ends the answer. Raises Died, TimedOutError, or EngineError where the server rejects the request.
        """
        started = time.monotonic()
        chat = chat_request(prompt, sampling, slot, clips)
        if on_piece is None:
            with self._completion(chat, timeout) as response:
                reply: dict[str, Any] = json.loads(response.read())
        else:
            with contextlib.closing(self._stream(chat, timeout)) as stream:  # its errors are not those of on_piece
                for event in stream:
                    timeout.renew()
                    if isinstance(event, str):
                        on_piece(event)
                    else:
                        reply = event
        timeout.renew()
        return reply, time.monotonic() - started

    def _stream(self, chat: dict[str, Any], timeout: IdleTimeout) -> Generator[str | dict[str, Any]]:
        """Yield the pieces of an answer as they are made, and then the whole reply. Raises as ``ask``."""
        with self._completion(chat | {"stream": True}, timeout) as response:
            yield from events(response)

    @contextlib.contextmanager
    def _completion(self, chat: dict[str, Any], timeout: IdleTimeout) -> Iterator[http.client.HTTPResponse]:
        """Send a chat request; give its response. Raises Died, TimedOutError or EngineError, also while it is read."""
        try:
            with self._response("POST", "/v1/chat/completions", chat, timeout) as response:
                if response.status != 200:
                    rejection = _rejection(response.status, response.read())
                    raise EngineError(rejection, "see the same with: --engine mtmd-cli")
                yield response
        except TimeoutError as error:
            raise TimedOutError(
                f"no answer within {timeout.seconds:g} s",
                "allow more with --timeout, or use less audio: --max-seconds 300",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise Died(str(error) or type(error).__name__) from error

    @contextlib.contextmanager
    def _response(self, method: str, path: str, body: Any, timeout: IdleTimeout) -> Iterator[http.client.HTTPResponse]:
        """Send a request; give its response, and close the connection. Raises OSError or HTTPException."""
        if self.socket:
            connection: http.client.HTTPConnection = _UnixConnection(self.socket, timeout.seconds)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout.seconds)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, headers)
            timeout.wait_for(connection.sock)
            yield connection.getresponse()
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect; wait while the server's queue of connections is full. Raises OSError."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        deadline = time.monotonic() + (self.timeout or 0)
        while True:
            try:
                return self.sock.connect(str(self._path))
            except BlockingIOError:  # its queue of connections (5) is full for a moment
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


def chat_request(prompt: Prompt, sampling: Sampling, slot: int, clips: int = 1) -> dict[str, Any]:
    """Return the body of a request about the slot's clips, ``clips`` in number."""
    urls = [f"file://{_media_name(slot, number)}" for number in range(clips)]
    return {
        "messages": messages(prompt, [{"type": "input_audio", "input_audio": {"url": url}} for url in urls]),
        "max_tokens": prompt.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "repeat_penalty": sampling.repeat_penalty,
        "seed": sampling.seed,
        "id_slot": slot,
        "cache_prompt": True,
        **response_format(prompt),
    }


def _media_name(slot: int, number: int) -> str:
    return f"slot{slot}-{number}.wav"


def _rejection(status: int, body: bytes) -> str:
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = body[:200].decode("utf-8", errors="replace")
    return f"llama-server rejected the request ({status}): {message}"
