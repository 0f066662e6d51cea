"""What an endpoint replies: a chat completion, the message of an error, and when to ask again."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from musicflamingo_cli.engines.remote.stream import WrongAnswer
from musicflamingo_cli.system.http import HttpReply


@dataclass(frozen=True, slots=True)
class Completion:
    """A chat completion; numbers of tokens are None where the endpoint does not report them."""

    text: str
    hit_limit: bool
    prompt_tokens: int | None
    audio_tokens: int | None
    answer_tokens: int | None


def completion_in(body: bytes) -> Completion:
    """Return what an answer holds. Raises WrongAnswer."""
    try:
        return completion_of(json.loads(body))
    except (ValueError, RecursionError) as error:
        raise WrongAnswer(f"the answer is not JSON ({body[:40]!r})") from error


def completion_of(data: Any) -> Completion:
    """Return what the JSON of an answer holds. Raises WrongAnswer."""
    try:
        choice = data["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason")
        usage = data.get("usage") or {}
        details = usage.get("prompt_tokens_details") or {}
    except (LookupError, TypeError, AttributeError) as error:
        raise WrongAnswer("the answer is not a chat completion") from error
    if not isinstance(text, str) or not isinstance(usage, dict) or not isinstance(details, dict):
        raise WrongAnswer("the answer is not a chat completion")
    return Completion(
        text=text,
        hit_limit=reason == "length",
        prompt_tokens=_count(usage.get("prompt_tokens")),
        audio_tokens=_count(details.get("audio_tokens")),
        answer_tokens=_count(usage.get("completion_tokens")),
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def message_in(body: bytes) -> str:
    """Return the message of an error, in whichever usual form, on one line of at most 300 characters."""
    try:
        data = json.loads(body)
        error = data.get("error", data.get("detail", data.get("message", "")))
        text = error.get("message", "") if isinstance(error, dict) else error
    except (ValueError, AttributeError, RecursionError):
        text = body[:300].decode("utf-8", errors="replace")
    whole = str(text).encode("utf-8", "replace").decode()  # a lone surrogate could not be printed
    return " ".join(whole.split())[:300]


def retry_after(reply: HttpReply) -> float | None:
    """Return the seconds that the header names, as a number or a date; None where it names none."""
    value = reply.headers.get("retry-after", "").strip()
    if value.isdecimal():  # not isdigit, which ² is as well
        return float(value[:6])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
