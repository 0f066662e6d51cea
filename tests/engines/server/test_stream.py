from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import pytest

from musicflamingo_cli.engines.server.stream import events
from musicflamingo_cli.errors import EngineError


def chunk(content: str | None = None, finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "finish_reason": finish, "delta": {} if content is None else {"content": content}}
    return b"data: " + json.dumps({"choices": [choice], **more}).encode() + b"\n"


def lines(*parts: bytes) -> Iterator[bytes]:
    for part in parts:
        yield part
        yield b"\n"


def test_pieces_and_then_the_reply() -> None:
    timings = {"cache_n": 775, "prompt_n": 1, "predicted_n": 2}
    start = (
        b'data: {"choices": [{"index": 0, "finish_reason": null, "delta": {"role": "assistant", "content": null}}]}\n'
    )
    *pieces, reply = events(
        lines(
            start, b": a comment\n", chunk("Wa"), chunk("rm."), chunk(finish="stop", timings=timings), b"data: [DONE]\n"
        )
    )
    assert pieces == ["Wa", "rm."]
    assert isinstance(reply, dict)
    assert reply["choices"][0]["message"]["content"] == "Warm."
    assert (reply["choices"][0]["finish_reason"], reply["timings"]) == ("stop", timings)


def test_a_stream_that_breaks_off_is_no_answer() -> None:
    with pytest.raises(http.client.IncompleteRead):
        list(events(lines(chunk("Wa"), chunk("rm."))))


def test_an_error_in_the_stream_is_an_engine_error() -> None:
    with pytest.raises(EngineError, match="no memory left"):
        list(events(lines(chunk("Wa"), b'data: {"error": {"code": 500, "message": "no memory left"}}\n')))
