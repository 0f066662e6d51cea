"""Answers to a prompt with a schema are judged as JSON, whichever engine made them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from musicflamingo_cli.captioning.judging import judged
from musicflamingo_cli.types import Answer, Caption, Prompt, Sampling

SCHEMA = {"type": "object", "properties": {"genre": {"type": "string"}}, "required": ["genre"]}


def answer(text: str) -> Answer:
    return Answer(
        prompt=Prompt(preset="facts", text="x", max_tokens=9, schema=json.dumps(SCHEMA)),
        text=text,
        hit_limit=False,
        audio_tokens=None,
        seconds=0.0,
        sampling=Sampling(),
    )


def test_json_keeps_its_braces() -> None:
    caption = judged(answer('{\n  "genre": "d\\u00fcb" }'))
    assert isinstance(caption, Caption)
    assert caption.text == '{"genre": "düb"}'


@pytest.mark.parametrize("text", ['{"genre": 1}', "A slow waltz in three.", '{"genre": "\\ud800"}'])
def test_other_answers_are_refused(text: str) -> None:
    assert isinstance(judged(answer(text)), str)


def test_json_at_the_token_limit_is_refused() -> None:
    assert isinstance(judged(replace(answer('{"genre": "dub"}'), hit_limit=True)), str)
