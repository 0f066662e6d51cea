"""A chat endpoint on loopback that misbehaves on command, as those of other people do."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

GOOD = "A warm track with soft drums. It moves slowly."


def completion(text: str = GOOD, **usage: Any) -> dict[str, Any]:
    return {
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": usage,
    }


@dataclass
class FakeEndpoint:
    """``script``: the answers to the next chat requests, one word each; when it is used up, good ones follow."""

    script: Iterable[str] = ()
    key: str = ""
    model: str = "music-flamingo"
    tokens: int | None = 2000
    certificate: tuple[Path, Path] | None = None
    takes_flac: bool = True
    slots: int | None = 2
    streams: bool = False
    pause: float = 0.0  # between the parts of a streamed answer, in seconds
    pieces: Sequence[str] = ("A wärm track ", "with soft ", "drums. ", "It moves slowly.")
    chats: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def __enter__(self) -> FakeEndpoint:
        self._script = deque(self.script)
        self._ended = threading.Event()

        class Handler(_Handler):
            pass

        Handler.fake = self
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "https" if self.certificate else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def next_word(self) -> str:
        return self._script.popleft() if self._script else "good"


class _Handler(BaseHTTPRequestHandler):
    fake: FakeEndpoint
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # a client that gave up
            super().handle()

    def do_GET(self) -> None:
        self.fake.keys.append(self.headers.get("Authorization", ""))
        if self.fake.key and self.headers.get("Authorization") != f"Bearer {self.fake.key}":
            return self.reply(401, {"error": {"message": "wrong key"}})
        meta = {} if self.fake.slots is None else {"slots": self.fake.slots}
        self.reply(200, {"object": "list", "data": [{"id": self.fake.model, "object": "model", "meta": meta}]})

    def do_POST(self) -> None:
        fake = self.fake
        chat = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fake.chats.append(chat)
        fake.times.append(time.monotonic())
        fake.keys.append(self.headers.get("Authorization", ""))
        parts = [part for message in chat["messages"] for part in message["content"]]
        forms = [part["input_audio"]["format"] for part in parts if part["type"] == "input_audio"]
        if "flac" in forms and not fake.takes_flac:
            return self.reply(400, {"error": {"message": "input_audio.format must be either 'wav' or 'mp3'"}})
        word, _, value = fake.next_word().partition(":")
        usage: dict[str, Any] = {} if fake.tokens is None else {"prompt_tokens": fake.tokens, "completion_tokens": 9}
        if chat.get("stream") and self.answer_streamed(word, usage):
            return
        match word:
            case "good" | "unstreamed":
                self.reply(200, completion(**usage))
            case "busy":
                self.reply(429, {"error": {"message": "too many requests"}}, {"Retry-After": value} if value else {})
            case "error":
                self.reply(int(value), {"error": {"message": "it broke"}})
            case "echo":
                self.reply(int(value), {"error": {"message": f"wrong: {self.headers.get('Authorization')}"}})
            case "half":
                body = json.dumps(completion()).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
            case "too long":
                self.reply(400, {"error": {"message": "the request exceeds the available context size"}})
            case "text":
                self.raw(200, b"<html>It works!</html>")
            case "shape":
                self.reply(200, {"choices": []})
            case "null":
                self.reply(200, {"choices": [{"message": {"content": None}}]})
            case _:
                self.stall(word, value)

    def answer_streamed(self, word: str, usage: dict[str, Any]) -> bool:
        """Answer in the way that a word means where streaming is asked for; return whether it means any."""
        pieces = self.fake.pieces
        match word:
            case "good" if self.fake.streams:
                self.stream(pieces, usage)
            case "cut":  # its second half never comes
                self.stream(pieces[: len(pieces) // 2], None)
            case "gave up":
                self.stream([*pieces[:2], {"error": {"message": "out of memory"}}], None)
            case "no events":
                self.raw(200, b"data: nothing\n\n", kind="text/event-stream")
            case "unstreamed":
                self.reply(400, {"error": {"message": "answers are not streamed"}})
            case _:
                return False
        return True

    def stream(self, pieces: Sequence[str | dict[str, Any]], usage: dict[str, Any] | None) -> None:
        """Send pieces as events, in parts that do not end where events do; without ``usage``, not to the end."""
        events = [
            piece if isinstance(piece, dict) else {"choices": [{"delta": {"content": piece}, "finish_reason": None}]}
            for piece in pieces
        ]
        if usage is not None:
            events.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
            events.append({"choices": [], "usage": usage})
        data = b"".join(f"data: {json.dumps(event, ensure_ascii=False)}\r\n\r\n".encode() for event in events)
        data += b"" if usage is None else b"data: [DONE]\r\n\r\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()
        for start in range(0, len(data), 7):
            self.wfile.write(data[start : start + 7])
            self.wfile.flush()
            time.sleep(self.fake.pause)
        self.close_connection = True

    def stall(self, word: str, value: str) -> None:
        """The faults that are not an answer in time, or not one for us."""
        match word:
            case "slow":  # a byte of the headers now and then: no single read takes long
                for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Slow: y\r\n" * 1000:
                    if self.fake._ended.wait(0.05):
                        break
                    self.wfile.write(bytes([byte]))
                self.close_connection = True
            case "hang":
                self.fake._ended.wait(60)
                self.close_connection = True
            case "redirect":
                self.reply(307, {}, {"Location": value or "http://127.0.0.1:9/elsewhere"})
            case "huge":
                self.raw(200, b" " * (17 << 20))
            case _:
                raise AssertionError(word)

    def reply(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self.raw(status, json.dumps(value).encode(), headers)

    def raw(self, status: int, body: bytes, headers: dict[str, str] | None = None, kind: str = "") -> None:
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate that no authority signed, and its key."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key
