"""A streamed chat completion: server-sent events, put together to the reply that comes without streaming."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Iterator
from typing import Any

from musicflamingo_cli.errors import EngineError

_FIELD, _END = b"data:", b"[DONE]"


def events(lines: Iterable[bytes]) -> Iterator[str | dict[str, Any]]:
    """Yield each piece of the answer, and at its end one reply in the form of an unstreamed completion.

    Raises EngineError where the server reports an error, HTTPException where the stream ends before the answer does.
    """
    pieces: list[str] = []
    for line in lines:
        data = line.removeprefix(_FIELD).strip()
        if not line.startswith(_FIELD) or data == _END:
            continue
        event = json.loads(data)
        if "error" in event:
            raise EngineError(f"llama-server gave up: {event['error'].get('message')}", "ask again, or see -v")
        for choice in event.get("choices", []):
            if piece := choice["delta"].get("content"):
                pieces.append(piece)
                yield piece
            if choice["finish_reason"]:  # the last event, which carries the timings, too
                yield {**event, "choices": [{**choice, "message": {"content": "".join(pieces)}}]}
                return
    raise http.client.IncompleteRead(b"")
