"""Checkpoints of random weights: that transformers loads them, and that they have the shapes they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from musicflamingo_cli.models.resolve import tiny_language_model
from musicflamingo_cli.models.tiny_checkpoint import read_tokenizer

pytestmark = pytest.mark.slow  # importing torch and transformers


def written(folder: Path, model_type: str = "musicflamingo", **options: Any) -> Path:
    from tiny_flamingo.random_checkpoint import write_random_checkpoint

    write_random_checkpoint(folder, model_type, **options)
    return folder


def answers(folder: Path, question: str = "What is it?") -> list[str]:
    """The answers about two pieces of noise."""
    from tiny_flamingo.in_transformers import InTransformers

    flamingo = InTransformers(folder)
    clips = [np.random.default_rng(seed).normal(0, 0.1, 40_000 * seed).astype(np.float32) for seed in (1, 20)]
    return [flamingo.answer(clip, question, 30) for clip in clips]


@pytest.mark.parametrize("model_type", ["musicflamingo", "audioflamingo3"])
def test_transformers_loads_it(tmp_path: Path, model_type: str) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoProcessor

    folder = written(tmp_path / "random", model_type)
    model, report = AutoModelForSeq2SeqLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    assert 1e6 < model.num_parameters() < 2e6
    assert model.generation_config.temperature == 0.7
    prompt = AutoProcessor.from_pretrained(folder).apply_chat_template([{"role": "user", "content": "What?"}])
    assert prompt.startswith("<|im_start|>system\nYou are Music Flamingo")


def test_answers_are_words_and_depend_on_the_audio(tmp_path: Path) -> None:
    first, second = answers(written(tmp_path / "random"))
    assert first != second
    assert len(first.split()) > 10
    assert all(character.isalpha() or character in " ." for character in first + second)


def test_a_thinking_model_thinks_before_it_answers(tmp_path: Path) -> None:
    for answer in answers(written(tmp_path / "random", thinking=True)):
        thought, _, said = answer.partition("</think>")
        assert thought.startswith("<think>")
        assert "think" not in said
        assert len(said.split()) > 10


def test_the_limit_of_audio_flamingo_next(tmp_path: Path) -> None:
    folder = written(tmp_path / "random", max_audio_seconds=1800)
    assert json.loads((folder / "processor_config.json").read_text())["max_audio_len"] == 1800
    tokens = 1800 / 30 * 750
    assert json.loads((folder / "config.json").read_text())["text_config"]["max_position_embeddings"] > tokens


def test_the_same_weights_every_time_also_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tiny_flamingo import random_checkpoint

    whole = written(tmp_path / "whole")
    assert (whole / "model.safetensors").read_bytes() == (
        written(tmp_path / "again") / "model.safetensors"
    ).read_bytes()
    monkeypatch.setattr(random_checkpoint, "SHARD", "2MB")
    shards = written(tmp_path / "shards")
    assert len(list(shards.glob("*.safetensors"))) > 2
    assert answers(shards) == answers(whole)


@pytest.mark.parametrize(
    ("size", "least", "most"),
    [("small", 120e6, 140e6), ("full", 8_267_215_360, 8_267_215_360)],  # the published checkpoints' number
)
def test_sizes_are_in_proportion(size: str, least: float, most: float) -> None:
    from tiny_flamingo.random_checkpoint import SIZES, config_for, published_weights

    config = config_for(SIZES[size], read_tokenizer(tiny_language_model(), "musicflamingo"), "musicflamingo")
    weights = {name: weight.numel() for name, weight in published_weights(config).items()}
    assert least <= sum(weights.values()) <= most
    encoder = sum(count for name, count in weights.items() if name.startswith("audio_tower"))
    assert 0.05 < encoder / sum(weights.values()) < 0.1
