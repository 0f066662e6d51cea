"""The key of songs whose key is known, and of what has none."""

from __future__ import annotations

import numpy as np
import pytest

from musicflamingo_cli.audio.key import Tonality, relatives_of
from musicflamingo_cli.types import SAMPLE_RATE
from tiny_flamingo.music import Recording, Samples, random_recording, random_song, render
from tiny_flamingo.variants import Kind, random_variant, render_variant


def heard(samples: Samples, block: int = 50_000) -> Tonality:
    """The tonality of samples that come in blocks."""
    tonality = Tonality()
    for start in range(0, len(samples), block):
        tonality.add(samples[start : start + block])
    return tonality


@pytest.mark.parametrize("seed", range(2_000_000, 2_000_010))
def test_songs_have_their_key(seed: int) -> None:
    song = random_song(seed)
    found = heard(render(song, random_recording(seed))[0]).key()
    assert found is not None
    assert found.name == f"{song.key} {song.mode}"
    assert found.relatives == relatives_of(found.name)


@pytest.mark.parametrize("cents", [-45.0, 30.0])
def test_mistuned_songs_have_their_key(cents: float) -> None:
    song = random_song(2_000_001)
    found = heard(render(song, Recording(cents=cents))[0]).key()
    assert found is not None
    assert found.name == f"{song.key} {song.mode}"


def test_the_halves_of_a_song_that_modulates() -> None:
    variant = random_variant(Kind.MODULATION, 2_000_003)
    tonality = heard(render_variant(variant))
    key = tonality.key()
    assert tonality.halves() == variant.keys
    assert key is not None
    assert key.name in variant.keys


@pytest.mark.parametrize("seconds", [1, 5, 30])
def test_noise_has_no_key(seconds: int) -> None:
    noise = np.random.default_rng(seconds).standard_normal(seconds * SAMPLE_RATE).astype(np.float32)
    assert heard(0.1 * noise).key() is None


@pytest.mark.parametrize("seed", [*range(2_000_000, 2_000_010), 12_000_039])
def test_drums_alone_have_no_key(seed: int) -> None:
    tonality = heard(render_variant(random_variant(Kind.DRUMS_ALONE, seed), random_recording(seed)))
    assert tonality.key() is None
    assert set(tonality.halves()) <= {None}


@pytest.mark.parametrize("length", [0, 100, 30 * SAMPLE_RATE])
def test_silence_has_no_key(length: int) -> None:
    assert heard(np.zeros(length, np.float32)).key() is None


def test_a_held_note_has_no_key() -> None:
    tone = np.sin(2 * np.pi * 220 / SAMPLE_RATE * np.arange(20 * SAMPLE_RATE)).astype(np.float32)
    assert heard(0.3 * tone).key() is None


def test_the_size_of_blocks_makes_no_difference() -> None:
    samples = render(random_song(2_000_001))[0]
    assert heard(samples, 1000).key() == heard(samples, 10_000_000).key()


@pytest.mark.parametrize(("seconds", "halves"), [(14, 0), (30, 2)])
def test_short_tracks_have_no_halves(seconds: int, halves: int) -> None:
    song = random_song(2_000_001, seconds=(seconds, seconds))
    assert len(heard(render(song)[0]).halves()) == halves
