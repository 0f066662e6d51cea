"""A random MusicGen makes clips in this process; transformers' own `generate` is what they are held against."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from musicflamingo_cli.config import GenerationSettings
from musicflamingo_cli.listening.messages import ClipOrder
from musicflamingo_cli.listening.model import Model
from tests.conftest import tone

pytestmark = pytest.mark.slow  # torch takes seconds to import

SHORT = GenerationSettings(seconds=1.0, seed=3)
CAPTIONS = ("A slow piano piece.", "Fast techno at 140 BPM with acid bass; hypnotic!", "Rock.")
Models = Callable[[str], Model]


@pytest.fixture(scope="module")
def models(generators: Path) -> Models:
    @cache
    def load(kind: str) -> Model:
        return Model(argparse.Namespace(folder=str(generators / kind), device="cpu", threads=1))

    return load


def make(model: Model, *texts: str | None, settings: GenerationSettings = SHORT, **more: Any) -> list[np.ndarray]:
    orders = [ClipOrder(number, text, "", **more) for number, text in enumerate(texts)]
    return list(model.make(orders, settings, lambda share: None))


@pytest.mark.parametrize(
    ("kind", "seconds", "shape"),
    [
        ("mono", 1.0, (32_000, 1)),
        ("mono", 1.37, (43_840, 1)),  # not a whole number of frames
        ("mono", 30.0, (960_000, 1)),
        ("stereo", 2.0001, (64_003, 2)),
        ("24 kHz", 1.5, (36_000, 1)),  # 37.5 frames a second
        ("melody", 1.01, (32_320, 1)),
    ],
)
def test_lengths_are_exact_to_the_sample(models: Models, kind: str, seconds: float, shape: tuple[int, int]) -> None:
    (clip,) = make(models(kind), CAPTIONS[0], settings=replace(SHORT, seconds=seconds, guidance=1.0))
    assert clip.shape == shape
    assert np.isfinite(clip).all()
    assert clip.std() > 0


def test_the_seed_decides_and_the_caption_matters(models: Models) -> None:
    model = models("mono")
    (first,), (same,) = make(model, CAPTIONS[0]), make(model, CAPTIONS[0])
    assert np.array_equal(first, same)
    for settings in (replace(SHORT, seed=4), replace(SHORT, guidance=1.0), replace(SHORT, temperature=0.5)):
        assert not np.array_equal(first, make(model, CAPTIONS[0], settings=settings)[0]), settings
    assert not np.array_equal(first, make(model, CAPTIONS[1])[0])


@pytest.mark.parametrize("kind", ["mono", "stereo"])
def test_a_batch_equals_its_clips_one_by_one(models: Models, kind: str) -> None:
    model = models(kind)
    texts = (*CAPTIONS, None)
    together = make(model, *texts)
    for text, clip in zip(texts, together, strict=True):
        assert np.array_equal(clip, make(model, text)[0]), text
    assert len({clip.tobytes() for clip in together}) == len(texts)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("kind", ["mono", "stereo", "melody"])
def test_greedy_clips_are_those_of_generate(models: Models, generators: Path, kind: str, guidance: float) -> None:
    settings = replace(SHORT, temperature=0.0, guidance=guidance)
    (clip,) = make(models(kind), CAPTIONS[1], settings=settings)
    assert np.array_equal(clip, recipe(generators / kind, kind, CAPTIONS[1], guidance, 50 + 3))


@pytest.mark.parametrize("kind", ["mono", "stereo"])
def test_a_continuation_is_that_of_generate(models: Models, generators: Path, kind: str, tmp_path: Path) -> None:
    import torch

    channels = 2 if kind == "stereo" else 1
    start = tone(0.5, rate=32_000, channels=channels).astype("float32") * np.array([1.0, 0.5][:channels], np.float32)
    soundfile.write(tmp_path / "start.wav", start, 32_000, subtype="FLOAT")
    settings = replace(SHORT, temperature=0.0)
    clip, _ = make(models(kind), CAPTIONS[1], CAPTIONS[0], settings=settings, start=str(tmp_path / "start.wav"))
    # 25 of its 50 frames are given, and generate counts only new tokens.
    given = torch.from_numpy(start.T.copy())[None]
    expected = recipe(generators / kind, kind, CAPTIONS[1], 3.0, 25 + 3, input_values=given)
    assert np.array_equal(clip, expected)
    assert not np.array_equal(clip, make(models(kind), CAPTIONS[1], settings=settings)[0])


def test_without_a_caption_it_is_the_unconditional_recipe(models: Models, generators: Path) -> None:
    import torch
    from transformers import MusicgenForConditionalGeneration

    net = MusicgenForConditionalGeneration.from_pretrained(generators / "mono").eval()
    expected = net.generate(**net.get_unconditional_inputs(), do_sample=False, max_new_tokens=53)
    (clip,) = make(models("mono"), None, settings=replace(SHORT, temperature=0.0))
    assert torch.equal(torch.from_numpy(clip.T)[None], expected)


def test_a_long_caption_is_cut_at_512_tokens(models: Models) -> None:
    model = models("mono")
    text = "A slow piano piece. " * 40
    caption = model.caption(text)
    assert (caption.tokens, len(caption.ids), caption.read) == (801, 512, 511)  # a token a letter, and the end
    assert np.array_equal(make(model, text)[0], make(model, text[: caption.read])[0])
    fits = model.caption(text[:511])
    assert (fits.tokens, fits.read) == (512, 511)


def test_a_melody_is_followed(models: Models, generators: Path, tmp_path: Path) -> None:
    from musicflamingo_cli.listening.chroma import chroma

    settings = replace(SHORT, temperature=0.0)
    clips = []
    for note, hertz in ((9, 440.0), (0, 523.25)):  # A and C
        wave = tone(2.0, hertz, 32_000)[:, 0].astype("float32")
        notes = chroma(wave, 32_000, 12)
        assert notes.argmax(dim=-1).mode().values.item() == note
        soundfile.write(tmp_path / "melody.wav", wave, 32_000, subtype="FLOAT")
        (clip,) = make(models("melody"), CAPTIONS[0], settings=settings, melody=str(tmp_path / "melody.wav"))
        expected = recipe(generators / "melody", "melody", CAPTIONS[0], 3.0, 53, input_features=notes[None])
        assert np.array_equal(clip, expected)
        clips.append(clip)
    assert not np.array_equal(clips[0], clips[1])


def test_progress_rises_to_one(models: Models) -> None:
    shares: list[float] = []
    models("mono").make([ClipOrder(0, CAPTIONS[0], "")], SHORT, shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def recipe(folder: Path, kind: str, text: str, guidance: float, new: int, **given: Any) -> Any:
    """The documented call of `generate`; its audio, shape (samples, channels)."""
    from transformers import AutoTokenizer, MusicgenForConditionalGeneration, MusicgenMelodyForConditionalGeneration

    which = MusicgenMelodyForConditionalGeneration if kind == "melody" else MusicgenForConditionalGeneration
    net = which.from_pretrained(folder).eval()
    inputs = AutoTokenizer.from_pretrained(folder)([text], padding=True, return_tensors="pt")
    given |= {"input_ids": inputs.input_ids, "attention_mask": inputs.attention_mask}
    made = net.generate(**given, do_sample=False, guidance_scale=guidance, max_new_tokens=new)
    return made[0].numpy().T
