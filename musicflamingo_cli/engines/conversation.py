"""A prompt as the messages of a chat: the audio first, so that all questions about it share what precedes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from musicflamingo_cli.types import Prompt, Turn


def text_parts(text: str) -> list[dict[str, Any]]:
    """Return a message's content that is only text, in the form that all chat templates take."""
    return [{"type": "text", "text": text}]


def response_format(prompt: Prompt) -> dict[str, Any]:
    """Return what a chat request says about the form of the answer: that it follows the prompt's schema, if any."""
    if not prompt.schema:
        return {}
    schema = {"name": "answer", "schema": json.loads(prompt.schema)}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def messages(prompt: Prompt, audio: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the system prompt, what was asked and answered before, and the question; ``audio``: its content parts.

    Audio belongs to the first question, wherever the conversation has got to.
    """
    turns = [*prompt.history, Turn(prompt.text, "")]
    said: list[dict[str, Any]] = []
    if prompt.system:
        said.append({"role": "system", "content": text_parts(prompt.system)})
    for number, turn in enumerate(turns):
        said.append({"role": "user", "content": [*([] if number else audio), *text_parts(turn.question)]})
        if number < len(prompt.history):
            said.append({"role": "assistant", "content": text_parts(turn.answer)})
    return said
