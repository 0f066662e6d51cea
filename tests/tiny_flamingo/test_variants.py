"""The unusual songs are what they say."""

from __future__ import annotations

import numpy as np
import pytest

from tiny_flamingo.music import Recording, random_song, render
from tiny_flamingo.variants import Kind, Variant, VariedBand, random_variant, render_variant

SEED = 2_000_000


@pytest.mark.parametrize("kind", Kind)
def test_a_song_is_the_same_each_time(kind: Kind) -> None:
    variant = random_variant(kind, SEED)
    assert variant == random_variant(kind, SEED) != random_variant(kind, SEED + 1)
    samples = render_variant(variant)
    assert np.array_equal(samples, render_variant(variant))
    assert len(samples) == round(variant.song.seconds * 16000)
    assert 0.3 < np.abs(samples).max() <= 1.0


@pytest.mark.parametrize("kind", Kind)
def test_it_differs_from_the_usual_song(kind: Kind) -> None:
    variant = random_variant(kind, SEED)
    usual, _ = render(variant.song)
    assert not np.allclose(render_variant(variant), usual, atol=0.05)


def test_keys_and_tempi() -> None:
    assert random_variant(Kind.DRUMS_ALONE, SEED).keys == ()
    assert len(set(random_variant(Kind.MODULATION, SEED).keys)) == 2
    song = random_song(SEED, steady=True)
    assert random_variant(Kind.SWING, SEED) == Variant(song, Kind.SWING, (f"{song.key} {song.mode}",))
    assert 50 <= random_variant(Kind.SIX_EIGHT, SEED).song.bpm <= 100


def test_rubato_strays_and_comes_back() -> None:
    """The onsets of a rubato song come earlier and later than a steady one's, by less than a tenth of a second."""
    band = VariedBand(random_variant(Kind.RUBATO, SEED), Recording(), 16000)
    moved = [band.heard_at(at) - at for at in np.arange(0, 18, 0.1)]
    assert 0.05 < max(moved) < 0.1
    assert -0.1 < min(moved) < -0.05
    assert moved[0] == pytest.approx(moved[90], abs=1e-6)
