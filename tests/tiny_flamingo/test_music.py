"""The labelled music: is what the labels say true of the sound? Judged by other means than those that made it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tiny_flamingo import music
from tiny_flamingo.music import ATTRIBUTES, KEYS, Recording, Song, random_recording, random_song, render

PLAIN = Song(120, "C", "major", "organ", "sub", "none", seconds=16.0, bpm=120.0, seed=3)


def test_a_seed_is_a_song() -> None:
    assert random_song(5) == random_song(5)
    first, again = (render(random_song(5), random_recording(5))[0] for _ in range(2))
    assert np.array_equal(first, again)
    assert random_song(5) != random_song(6)


def test_every_label_is_drawn() -> None:
    songs = [random_song(seed) for seed in range(300)]
    for name, values in ATTRIBUTES.items():
        assert {getattr(song, name) for song in songs} == set(values)


@pytest.mark.parametrize("seed", range(20))
def test_a_recording_is_fit_to_hear(seed: int) -> None:
    song = random_song(seed)
    samples, score = render(song, random_recording(seed))
    assert samples.dtype == np.float32
    assert len(samples) == round(song.seconds * 16000)
    assert np.isfinite(samples).all()
    assert 0.001 < np.abs(samples).max() <= 1.0
    assert len(score.lead) == len(score.hits) == round(song.seconds * music.FRAME_RATE)


@pytest.mark.parametrize("rate", [16000, 22050, 44100])
@pytest.mark.parametrize("bpm", [71.5, 100.0, 121.0, 158.5])
def test_the_tempo_is_what_it_says(bpm: float, rate: int) -> None:
    song = replace(PLAIN, tempo=int(round(bpm, -1)), bpm=bpm, drums="four-on-the-floor", seconds=29.0)
    samples, score = render(song, rate=rate)
    assert np.diff(score.beats) == pytest.approx(60 / bpm)
    assert strongest_rate(samples, rate, 60 / bpm) == pytest.approx(60 / bpm, rel=0.01)


def strongest_rate(samples: np.ndarray, rate: int, near: float) -> float:
    """The lag in seconds, within a tenth of ``near``, at which the level's rises repeat best."""
    hop = rate // 200
    level = np.log(1e-4 + np.sqrt((samples[: len(samples) // hop * hop].reshape(-1, hop) ** 2).mean(axis=1)))
    rises = np.maximum(0, np.diff(level))
    lags = np.arange(int(0.9 * near * 200), int(1.1 * near * 200) + 2)
    return float(lags[np.argmax([np.dot(rises[lag:], rises[:-lag]) for lag in lags])]) / 200


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("mode", ["major", "minor"])
def test_the_key_is_what_it_says(key: str, mode: str) -> None:
    """The pitch classes that sound are those of the scale, the tonic's chord most of all."""
    samples, score = render(replace(PLAIN, key=key, mode=mode, seconds=24.0))
    chroma = chroma_of(samples, 16000)
    root, third = KEYS.index(key), (4 if mode == "major" else 3)
    other_third = 7 - third
    assert chroma[(root + third) % 12] > 2 * chroma[(root + other_third) % 12]
    assert root in np.argsort(chroma)[-3:]
    assert score.chord.sum(axis=0).argmax() in {root, (root + 7) % 12, (root + third) % 12}


def chroma_of(samples: np.ndarray, rate: int) -> np.ndarray:
    power = np.abs(np.fft.rfft(samples)) ** 2
    hertz = np.fft.rfftfreq(len(samples), 1 / rate)
    heard = (hertz > 200) & (hertz < 2000)
    classes = np.round(12 * np.log2(hertz[heard] / 440) + 9).astype(int) % 12
    return np.bincount(classes, power[heard], minlength=12)


def test_a_mistuned_recording_keeps_its_key() -> None:
    samples, _ = render(replace(PLAIN, key="A"), Recording(cents=12))
    assert 9 in np.argsort(chroma_of(samples, 16000))[-3:]


@pytest.mark.parametrize(
    ("structure", "sounds"), [("steady", (1, 1, 1)), ("build-up", (0, 0, 1)), ("break", (1, 0, 1))]
)
def test_the_structure_is_what_it_says(structure: str, sounds: tuple[int, int, int]) -> None:
    """Where the drums play; a beat before each border they may already have stopped."""
    song = replace(PLAIN, structure=structure, drums="backbeat", seconds=24.0)
    _, score = render(song)
    thirds = np.array_split(score.hits[:, :3].max(axis=1), 3)
    assert tuple(int(third[25:-25].any()) for third in thirds) == sounds


@pytest.mark.parametrize(("dynamics", "decibels"), [("even", 0), ("crescendo", 12), ("fade", -12)])
def test_the_dynamics_are_what_they_say(dynamics: str, decibels: float) -> None:
    samples, _ = render(replace(PLAIN, dynamics=dynamics, seconds=24.0))
    first, *_, last = np.array_split(samples, 3)
    measured = 20 * np.log10(np.sqrt((last**2).mean()) / np.sqrt((first**2).mean()))
    assert measured == pytest.approx(decibels, abs=3)


def test_no_drums_are_no_drums() -> None:
    _, score = render(replace(PLAIN, drums="none"))
    assert not score.hits[:, :3].any()


@pytest.mark.parametrize("lead", music.LEADS)
def test_no_voice_sounds_above_half_the_rate(lead: str) -> None:
    """What would fold back would be another note at another rate."""
    song = replace(PLAIN, lead=lead)
    low, high = (render(song, rate=rate)[0] for rate in (16000, 48000))
    spectra = [np.abs(np.fft.rfft(samples * np.hanning(len(samples))))[: 16 * 3000] for samples in (low, high)]
    one, other = (spectrum / np.linalg.norm(spectrum) for spectrum in spectra)
    assert float(one @ other) > 0.9
