"""A streamed chat completion: pieces of an answer leave as server-sent events while the engine makes the rest."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from musicflamingo_cli.errors import AnswerCancelledError
from musicflamingo_cli.serving.chat import usage_of
from musicflamingo_cli.types import Answer, Failure

# Answers one question, in a thread; what it is given gets the pieces.
Ask = Callable[[Callable[[str], None]], Answer | Failure]
_Item = str | Answer | Failure | Exception


class Stream:
    """An answer in progress. When its client leaves, the engine ends the answer."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._items: asyncio.Queue[_Item] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._has_left = threading.Event()
        self._work = asyncio.ensure_future(run_in_threadpool(self._answer))  # kept, so that it runs to its end

    async def next(self) -> _Item:
        """Return the next piece, or at the end the answer, the failure or the error."""
        return await self._items.get()

    def leave(self) -> None:
        """Note that nobody reads any longer."""
        self._has_left.set()

    def _answer(self) -> None:
        try:
            item: _Item = self._ask(self._take)
        except Exception as error:
            item = error
        self._put(item)

    def _take(self, piece: str) -> None:
        if self._has_left.is_set():
            raise AnswerCancelledError("the client left")
        if piece:
            self._put(piece)

    def _put(self, item: _Item) -> None:
        with contextlib.suppress(RuntimeError):  # the server has ended meanwhile
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)


async def streamed(
    ask: Ask, model: str, with_usage: bool, error_of: Callable[[Failure | Exception], dict[str, Any]]
) -> StreamingResponse | Failure:
    """Return the response once the answer has begun, or the failure where it never does.

    ``error_of`` makes the event for what goes wrong later. Raises what the engine raises before the first piece.
    """
    stream = Stream(ask)
    first = await stream.next()
    if isinstance(first, Exception):
        raise first
    if isinstance(first, Failure):
        return first
    return StreamingResponse(_events(stream, first, model, with_usage, error_of), media_type="text/event-stream")


async def _events(
    stream: Stream,
    item: _Item,
    model: str,
    with_usage: bool,
    error_of: Callable[[Failure | Exception], dict[str, Any]],
) -> AsyncIterator[str]:
    head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": "chat.completion.chunk", "created": int(time.time())}
    head["model"] = model
    try:
        if isinstance(item, Answer):  # an engine that does not stream
            yield _event(_chunk(head, {"role": "assistant", "content": item.text}))
        while isinstance(item, str):
            yield _event(_chunk(head, {"role": "assistant", "content": item}))
            item = await stream.next()
        if isinstance(item, Answer):
            yield _event(_chunk(head, {}, "length" if item.hit_limit else "stop"))
            if with_usage:
                yield _event({**head, "choices": [], "usage": usage_of(item)})
        else:
            yield _event(error_of(item))
        yield "data: [DONE]\n\n"
    finally:
        stream.leave()


def _chunk(head: dict[str, Any], delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
    return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"
