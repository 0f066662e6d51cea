"""A chat request as the API has it, checked piece by piece: audio and text come from outside."""

from __future__ import annotations

import base64
import binascii
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from musicflamingo_cli.config import Settings, require_setting
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.sidecars.captions import is_text
from musicflamingo_cli.text.schema import schema_problem
from musicflamingo_cli.types import Answer, Prompt, Sampling, Turn

_MOST_MESSAGES = 64
_LONGEST_TEXT = 32_768  # characters of a message
_MOST_TOKENS, _DEFAULT_TOKENS = 8192, 512


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A question about one audio file, or in words only. ``suffix``: of its name, as the client gave its format.

    ``is_streamed``: the pieces of the answer are wanted as they are made; ``with_usage``: and its tokens at the end.
    """

    audio: bytes
    suffix: str
    prompt: Prompt
    sampling: Sampling
    is_streamed: bool = False
    with_usage: bool = False


def parse_chat(body: bytes, settings: Settings) -> ChatRequest:
    """Return the request; what it leaves out is as in ``settings``. Raises ConfigError for what is not understood."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ConfigError("the request is not JSON") from error
    if not isinstance(data, dict):
        raise ConfigError("the request is not a JSON object")
    data = {name: value for name, value in data.items() if value is not None}  # null is the API's default
    if not isinstance(data.get("stream", False), bool):
        raise ConfigError("stream must be true or false")
    more = data.get("stream_options")
    if data.get("n", 1) != 1 or data.get("tools"):
        raise ConfigError("only one answer, and no tools")
    parsed = _Messages(data.get("messages"))
    tokens = data.get("max_completion_tokens", data.get("max_tokens", _DEFAULT_TOKENS))
    if not isinstance(tokens, int) or isinstance(tokens, bool) or not 1 <= tokens <= _MOST_TOKENS:
        raise ConfigError(f"max_tokens must be between 1 and {_MOST_TOKENS}")
    *earlier, question = parsed.turns
    prompt = Prompt(
        preset="chat",
        text=question.question,
        max_tokens=tokens,
        system=parsed.system,
        schema=_schema(data.get("response_format", {"type": "text"})),
        history=tuple(earlier),
    )
    return ChatRequest(
        audio=parsed.audio,
        suffix=parsed.suffix,
        prompt=prompt,
        sampling=_sampling(data, settings),
        is_streamed=data.get("stream", False),
        with_usage=isinstance(more, dict) and more.get("include_usage") is True,
    )


def _schema(form: Any) -> str:
    """Return the schema of the API's `response_format` as JSON; empty for prose. Raises ConfigError."""
    match form:
        case {"type": "text"}:
            return ""
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            if problem := schema_problem(schema):
                raise ConfigError(f"the schema of response_format is not usable: {problem}")
            return json.dumps(schema)
        case _:
            raise ConfigError("response_format must be text, or json_schema with its schema")


def _sampling(data: Mapping[str, Any], settings: Settings) -> Sampling:
    penalty = data.get("repeat_penalty", data.get("repetition_penalty"))
    given = {**{name: data.get(name) for name in ("temperature", "top_p", "seed")}, "repeat_penalty": penalty}
    values = {}
    for name, value in given.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int if name == "seed" else (int, float)):
            raise ConfigError(f"{name} must be a number")
        require_setting(name, value)
        values[name] = value
    defaults = settings.sampling
    return Sampling(
        temperature=float(values.get("temperature", defaults.temperature)),
        top_p=float(values.get("top_p", defaults.top_p)),
        repeat_penalty=float(values.get("repeat_penalty", defaults.repeat_penalty)),
        seed=int(values.get("seed", defaults.seed)),
    )


class _Messages:
    """The messages of a request: one piece of audio in the first question, questions and answers in turn."""

    def __init__(self, messages: Any) -> None:
        """Raises ConfigError."""
        if not isinstance(messages, list) or not 1 <= len(messages) <= _MOST_MESSAGES:
            raise ConfigError(f"`messages` must be a list of 1 to {_MOST_MESSAGES}")
        self.audio, self.suffix, self.system = b"", "", ""
        self.turns: list[Turn] = []
        question = ""
        expected = "user"
        for number, message in enumerate(messages):
            if not isinstance(message, dict):
                raise ConfigError("a message must be an object")
            role, text = message.get("role"), self._text(message)
            if role == "system" and number == 0:
                self.system = text
                continue
            if role != expected:
                raise ConfigError("messages must be questions (user) and answers (assistant) in turn")
            if role == "assistant":
                self.turns.append(Turn(question, text))
            question, expected = text, "assistant" if role == "user" else "user"
        if expected != "assistant" or not question.strip():
            raise ConfigError("the last message must be a question (user) with text")
        self.turns.append(Turn(question, ""))

    def _text(self, message: Mapping[str, Any]) -> str:
        content = message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(parts, list):
            raise ConfigError("a message needs `content`")
        text = "".join(self._of_part(part) for part in parts)
        if len(text) > _LONGEST_TEXT:
            raise ConfigError(f"a message may have at most {_LONGEST_TEXT} characters")
        if not is_text(text):
            raise ConfigError("a message holds half a character")
        return text

    def _of_part(self, part: Any) -> str:
        """Return the text of a part, or keep its audio."""
        match part:
            case {"type": "text", "text": str(text)}:
                return text
            case {"type": "input_audio", "input_audio": {"data": str(data), "format": str(form)}}:
                if self.audio or self.turns:
                    raise ConfigError("one piece of audio, in the first question")
                self.audio = _decoded(data)
                if not self.audio:
                    raise ConfigError("the audio is empty")
                self.suffix = f".{form.lower()}" if form.isalnum() and len(form) <= 5 else ""
                return ""
            case {"type": "input_audio"}:  # never a URL: it could name a file of this machine, or another machine
                raise ConfigError("`input_audio` must hold `data` in base64 and its `format`")
            case _:
                raise ConfigError("a part of a message is neither text nor audio")


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigError("the audio is not base64") from error


def usage_of(answer: Answer) -> dict[str, Any]:
    """Return an answer's tokens in the API's form. Of the prompt, only those of audio are counted."""
    usage: dict[str, Any] = {}
    if answer.audio_tokens is not None:
        usage["prompt_tokens"] = answer.audio_tokens
        usage["prompt_tokens_details"] = {"audio_tokens": answer.audio_tokens}
    if answer.answer_tokens is not None:
        usage["completion_tokens"] = answer.answer_tokens
    return usage


def chat_reply(answer: Answer, model: str) -> dict[str, Any]:
    """Return an answer in the API's form."""
    usage = usage_of(answer)
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "finish_reason": "length" if answer.hit_limit else "stop",
                "message": {"role": "assistant", "content": answer.text},
            }
        ],
        **({"usage": usage} if usage else {}),
    }
