"""What is shown of an answer in progress."""

from __future__ import annotations

from typing import Any, cast

from musicflamingo_cli.engines.transformers.answers import Row, new_text
from musicflamingo_cli.engines.transformers.sampling import RowSampler
from musicflamingo_cli.types import Prompt, Sampling


def test_an_answer_that_is_made_again_is_shown_once() -> None:
    """It was forgotten when memory ran out."""
    prompt, sampler = Prompt(preset="p", text="x", max_tokens=9), RowSampler(Sampling())
    row = Row(slot=0, request=0, prompt=prompt, prefix=cast("Any", None), after="", sampler=sampler)
    shown = [new_text(row, text) for text in ("Hello", "Hello wor")]
    row.forget()
    shown += [new_text(row, text) for text in ("Hel", "Hello wor", "Hello world�", "Hello worldé")]
    assert "".join(shown) == "Hello worldé"
