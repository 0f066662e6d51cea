"""Reasoning and answer are separated, whichever tags are there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicflamingo_cli.text.reasoning import split_reasoning


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("House at 124 BPM.", "", "House at 124 BPM."),
        ("<think>A kick.</think>House.", "A kick.", "House."),
        ("\n<think>\nA kick.\n</think>\n\nHouse.\n", "A kick.", "House."),
        ("A kick.</think>House.", "A kick.", "House."),  # the template opened it
        ("<thinking>A kick.</thinking>House.", "A kick.", "House."),
        ("<think>A kick. And then", "A kick. And then", ""),  # it was cut
        ("<think></think>House.", "", "House."),
        ("<think>One</think>House</think>.", "One", "House</think>."),
        ("I think so.", "", "I think so."),
        ("", "", ""),
    ],
)
def test_reasoning_is_separated(text: str, reasoning: str, answer: str) -> None:
    assert split_reasoning(text) == (reasoning, answer)


@given(st.text(alphabet="ab <>/think\n", max_size=40))
def test_nothing_is_invented(text: str) -> None:
    reasoning, answer = split_reasoning(text)
    assert reasoning in text
    assert answer in text
