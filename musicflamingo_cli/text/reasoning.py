"""The answers of models that think: what they wrote before their answer, apart from the answer."""

from __future__ import annotations

import re
from collections.abc import Callable

# The opening tag may belong to the chat template, so that only the closing one is in the answer.
_REASONING = re.compile(r"\A\s*(?:<think(?:ing)?>)?(?P<reasoning>.*?)(?:</think(?:ing)?>(?P<answer>.*))?\Z", re.DOTALL)
_OPEN = re.compile(r"\A\s*<think(?:ing)?>")
_CLOSE = re.compile(r"</think(?:ing)?>")


def split_reasoning(text: str) -> tuple[str, str]:
    """Return the reasoning and the answer; where the text ends in the middle of the reasoning, the answer is empty.

    >>> split_reasoning("<think>A fast kick.</think>House at 124 BPM.")
    ('A fast kick.', 'House at 124 BPM.')
    >>> split_reasoning("House at 124 BPM.")
    ('', 'House at 124 BPM.')
    """
    if not _OPEN.search(text) and not _CLOSE.search(text):
        return "", text
    match = _REASONING.search(text)
    assert match  # every part of the pattern may be empty
    return match["reasoning"].strip(), (match["answer"] or "").strip()


class VisiblePieces:
    """Passes the pieces of an answer on as they are made, those of the reasoning before it as empty ones."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self._on_text = on_text
        self._reasoning = ""
        self._is_answer = False

    def __call__(self, piece: str) -> None:
        """Take the next piece."""
        if not self._is_answer:
            self._reasoning += piece
            end = _CLOSE.search(self._reasoning)
            self._is_answer = end is not None
            piece = self._reasoning[end.end() :] if end else ""
        self._on_text(piece)
