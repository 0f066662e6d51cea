"""Captions: an answer names what is true of its song, and can be read back."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicflamingo_cli.paths import built_in_prompts
from musicflamingo_cli.prompts import read_presets
from musicflamingo_cli.text.cleaning import judge, normalize_text
from tiny_flamingo.captions import QUESTIONS, caption, genre, heard, mood
from tiny_flamingo.music import ATTRIBUTES, random_song

NAMED = {
    "full": {"tempo", "key", "mode", "lead", "bass", "drums"},
    "technical": {"tempo", "key", "mode"},
    "genre_mood": set(),
    "instrumentation": {"lead", "bass", "drums"},
    "structure": {"structure", "drums"},
}


@given(st.integers(0, 10**6), st.sampled_from(sorted(NAMED)))
def test_what_is_read_back_is_what_is_true(seed: int, preset: str) -> None:
    song = random_song(seed)
    said = heard(caption(song, preset, random.Random(seed)))
    assert {name: song.labels()[name] for name in said} == said
    assert NAMED[preset] <= set(said)


@given(st.integers(0, 10**6), st.sampled_from(sorted(QUESTIONS)))
def test_an_answer_passes_as_a_caption(seed: int, kind: str) -> None:
    """As it is: cleaning must not change it, nor the judgement refuse it."""
    text = caption(random_song(seed), kind, random.Random(seed))
    assert normalize_text(text) == text
    assert judge(text, False).text == text


def test_every_default_preset_has_answers() -> None:
    defaults = {name for name, preset in read_presets(built_in_prompts()).items() if preset.default}
    assert defaults <= set(QUESTIONS)


@pytest.mark.parametrize("function", [genre, mood])
def test_genre_and_mood_depend_on_labels_alone(function: object) -> None:
    assert callable(function)
    told: dict[tuple[str, ...], set[str]] = {}
    for seed in range(3000):
        song = random_song(seed)
        told.setdefault(tuple(song.labels()[name] for name in ATTRIBUTES), set()).add(function(song))
    assert all(len(words) == 1 for words in told.values())
