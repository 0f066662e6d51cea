"""What stands before every request: the token, the size of the body, and a place in a bounded queue."""

from __future__ import annotations

import asyncio
import hmac
import json
import math
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from musicflamingo_cli.errors import ConfigError, MusicFlamingoError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS_TO_SEND = 120.0  # that a client may take for its request
_LONGEST_WAIT = 120  # seconds, in Retry-After
_MIN_TOKEN = 16  # characters


class BodyTooLarge(Exception):
    """The client sends more than it may."""


class BodyTooSlow(Exception):
    """The client takes too long to send its request."""


def require_token(token: str) -> None:
    """Raise ConfigError for a token that could be guessed or not be sent."""
    if len(token) < _MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"a token needs at least {_MIN_TOKEN} letters, digits or signs", "make one with: openssl rand -hex 24"
        )


class Queue:
    """Counts the requests in progress: ``slots`` at work and ``waiting`` behind them. From any thread."""

    def __init__(self, slots: int, waiting: int) -> None:
        self._slots = slots
        self._places = slots + waiting
        self._lock = threading.Lock()
        self._inside = 0
        self._seconds = 5.0  # of a request, a moving average

    def enter(self) -> int:
        """Take a place and return 0, or return after how many seconds there may be one."""
        with self._lock:
            if self._inside < self._places:
                self._inside += 1
                return 0
            return min(_LONGEST_WAIT, max(1, math.ceil(self._seconds * (self._inside - self._slots + 1) / self._slots)))

    def leave(self, seconds: float) -> None:
        """Give the place back, after so many seconds."""
        with self._lock:
            self._inside -= 1
            self._seconds += 0.2 * (seconds - self._seconds)


class Guard:
    """An ASGI application before another. ``limits``: the paths that do work, with the largest body in bytes."""

    def __init__(self, app: ASGIApp, token: str, queue: Queue, limits: Mapping[str, int]) -> None:
        require_token(token)
        self._app = app
        self._expected = f"Bearer {token}".encode()
        self._queue = queue
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on that is allowed; answer any other with an error."""
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        path = scope["path"]
        if path != "/health" and not hmac.compare_digest(headers.get(b"authorization", b""), self._expected):
            return await refuse(send, 401, "a token is needed", {"WWW-Authenticate": "Bearer"})
        if scope["method"] != "POST" or path not in self._limits:
            return await self._app(scope, receive, send)
        limit = self._limits[path]
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > limit:
            return await refuse(send, 413, f"a request may have at most {limit >> 20} MiB")
        if seconds := self._queue.enter():
            return await refuse(send, 429, "too many requests are waiting", {"Retry-After": str(seconds)})
        started = time.monotonic()
        try:
            await self._pass_on(scope, receive, send, limit)
        finally:
            self._queue.leave(time.monotonic() - started)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        """Count the body as it comes: its announced length may be wrong, or missing."""
        received, deadline = 0, time.monotonic() + _SECONDS_TO_SEND
        is_whole = False

        async def counting() -> Message:
            nonlocal received, is_whole
            if is_whole:  # what comes after it is the client's end
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.01, deadline - time.monotonic()))
            except TimeoutError:
                raise BodyTooSlow(f"the request did not arrive within {_SECONDS_TO_SEND:g} s") from None
            received += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if received > limit:
                raise BodyTooLarge(f"a request may have at most {limit >> 20} MiB")
            return message

        await self._app(scope, counting, send)


async def refuse(send: Send, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
    """Answer with an error, in the form of the chat API."""
    body = json.dumps(error_body(message, status)).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    encoded = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


def error_body(message: str | MusicFlamingoError, status: int) -> dict[str, object]:
    """Return an error as the chat API words it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": str(message), "type": kind, "code": status}}
