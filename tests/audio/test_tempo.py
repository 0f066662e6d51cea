"""The tempo of songs whose tempo is known, and of what has none."""

from __future__ import annotations

import numpy as np
import pytest

from musicflamingo_cli.audio.tempo import Rhythm, Tempo
from musicflamingo_cli.types import SAMPLE_RATE
from tiny_flamingo.music import Samples, random_recording, random_song, render
from tiny_flamingo.variants import Kind, random_variant, render_variant


def tempo_of(samples: Samples, block: int = 50_000) -> Tempo | None:
    """The tempo of samples that come in blocks."""
    rhythm = Rhythm()
    for start in range(0, len(samples), block):
        rhythm.add(samples[start : start + block])
    return rhythm.tempo()


def clicks(bpm: float, seconds: float = 20.0) -> Samples:
    samples = np.zeros(int(seconds * SAMPLE_RATE), np.float32)
    for beat in range(int(seconds * bpm / 60)):
        start = int(beat * 60 / bpm * SAMPLE_RATE)
        samples[start : start + 200] = 0.5 * np.random.default_rng(beat).standard_normal(200)
    return samples


@pytest.mark.parametrize("bpm", [61.3, 90.0, 120.0, 143.7])
def test_the_tempo_of_clicks_is_exact(bpm: float) -> None:
    found = tempo_of(clicks(bpm))
    assert found is not None
    assert min(abs(each / bpm - 1) for each in (found.bpm, *found.alternatives)) < 0.002
    octaves = [bpm for bpm in (found.bpm / 2, found.bpm * 2) if 30 <= bpm <= 300]
    assert sorted(found.alternatives) == pytest.approx(octaves, abs=0.02)


def halves_of(samples: Samples) -> tuple[float | None, ...]:
    rhythm = Rhythm()
    rhythm.add(samples)
    rhythm.tempo()  # asked for before and after: neither changes the other
    assert rhythm.halves() == rhythm.halves()
    return rhythm.halves()


def test_a_change_of_tempo_is_in_the_halves() -> None:
    halves = halves_of(np.concatenate([clicks(90.0, 30), clicks(112.0, 30)]))
    assert list(halves) == pytest.approx([90.0, 112.0], rel=0.01)


@pytest.mark.parametrize(("seconds", "number"), [(25.0, 0), (27.0, 2)])
def test_short_tracks_have_no_half_tempi(seconds: float, number: int) -> None:
    assert len(halves_of(clicks(100.0, seconds))) == number


def test_a_silent_half_has_no_tempo() -> None:
    silence = np.zeros(30 * SAMPLE_RATE, np.float32)
    first, second = halves_of(np.concatenate([clicks(90.0, 24), silence]))
    assert first == pytest.approx(90.0, rel=0.01)
    assert second is None


def test_absurd_tempi_are_no_alternatives() -> None:
    found = tempo_of(clicks(190.0))
    assert found is not None
    assert all(30 <= bpm <= 300 for bpm in found.alternatives)
    assert 1 <= len(found.alternatives) <= 2


@pytest.mark.parametrize("seed", range(2_000_000, 2_000_008))
def test_songs_have_their_tempo_or_one_an_octave_away(seed: int) -> None:
    song = random_song(seed)
    found = tempo_of(render(song, random_recording(seed))[0])
    assert found is not None
    assert min(abs(each / song.bpm - 1) for each in (found.bpm, *found.alternatives)) < 0.02


@pytest.mark.parametrize("kind", [Kind.THREE_FOUR, Kind.SWING, Kind.DRUMS_ALONE])
def test_unusual_songs_have_their_tempo(kind: Kind) -> None:
    variant = random_variant(kind, 2_000_000)
    found = tempo_of(render_variant(variant))
    assert found is not None
    assert min(abs(each / variant.song.bpm - 1) for each in (found.bpm, *found.alternatives)) < 0.02


@pytest.mark.parametrize("seconds", [1, 5, 20, 40])
def test_noise_has_no_tempo(seconds: int) -> None:
    noise = np.random.default_rng(seconds).standard_normal(seconds * SAMPLE_RATE).astype(np.float32)
    assert tempo_of(0.1 * noise) is None


@pytest.mark.parametrize("length", [0, 100, SAMPLE_RATE, 30 * SAMPLE_RATE])
def test_silence_has_no_tempo(length: int) -> None:
    assert tempo_of(np.zeros(length, np.float32)) is None


def test_a_held_tone_has_no_tempo() -> None:
    tone = np.sin(2 * np.pi * 220 / SAMPLE_RATE * np.arange(20 * SAMPLE_RATE)).astype(np.float32)
    assert tempo_of(0.3 * tone) is None


def test_the_size_of_blocks_makes_no_difference() -> None:
    samples = render(random_song(2_000_001))[0]
    assert tempo_of(samples, 1000) == tempo_of(samples, 10_000_000)


def test_silence_around_music_changes_nothing_much() -> None:
    song = random_song(2_000_002)
    silence = np.zeros(30 * SAMPLE_RATE, np.float32)
    found = tempo_of(np.concatenate([silence, render(song)[0], silence]))
    assert found is not None
    assert min(abs(each / song.bpm - 1) for each in (found.bpm, *found.alternatives)) < 0.02
