"""A streamed answer of an endpoint: server-sent events as they arrive, put together to what comes without streaming."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

_FIELD, _END = b"data:", b"[DONE]"


class WrongAnswer(Exception):
    """The endpoint answered something else than a chat completion."""


class ReaderFailed(Exception):
    """What reads the pieces raised ``error``, an AnswerCancelledError for example: the rest is not wanted."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class StreamedCompletion:
    """Takes the parts of an answer's body, however they are cut, and passes each piece of its text on."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self._on_text = on_text
        self._line = b""  # one whose end is still to come
        self._pieces: list[str] = []
        self._finish: Any = None
        self._usage: Any = None
        self.has_begun = False

    def feed(self, part: bytes) -> None:
        """Take the next part. Raises WrongAnswer, and ReaderFailed."""
        self.has_begun = True
        *lines, self._line = (self._line + part).split(b"\n")
        for line in lines:
            data = line.removeprefix(_FIELD).strip()
            if line.startswith(_FIELD) and data != _END:
                self._take(data)

    def _take(self, data: bytes) -> None:
        try:
            event = json.loads(data)
            if error := event.get("error"):
                raise WrongAnswer(f"it gave up: {error.get('message') if isinstance(error, dict) else error}"[:300])
            self._usage = event.get("usage") or self._usage
            choices = event.get("choices") or []
            pieces = [choice["delta"].get("content") for choice in choices]
            finished = [choice.get("finish_reason") for choice in choices]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise WrongAnswer(f"a part of the answer is not of a chat completion ({data[:40]!r})") from error
        for piece in pieces:
            if isinstance(piece, str) and piece:
                self._pass_on(piece)
        self._finish = next(filter(None, finished), self._finish)

    def _pass_on(self, piece: str) -> None:
        self._pieces.append(piece)
        try:
            self._on_text(piece)
        except BaseException as error:  # its own error, not the connection's
            raise ReaderFailed(error) from error

    def whole(self) -> dict[str, Any]:
        """Return the answer in the form that it has without streaming. Raises WrongAnswer where its end is missing."""
        if self._finish is None:
            raise WrongAnswer("the answer ends before its end")
        message = {"role": "assistant", "content": "".join(self._pieces)}
        return {"choices": [{"message": message, "finish_reason": self._finish}], "usage": self._usage}
