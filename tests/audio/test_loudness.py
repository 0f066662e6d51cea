"""Loudness against the values that EBU Tech 3341 requires, silence and width against what is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from musicflamingo_cli.audio.loudness import Levels, Loudness

RATE = 48_000


def tone(decibels: float, seconds: float, channels: int = 2, rate: int = RATE) -> NDArray[np.float32]:
    """A sine of 1 kHz with this peak below full scale."""
    wave = 10 ** (decibels / 20) * np.sin(2 * np.pi * 1000 * np.arange(int(seconds * rate)) / rate)
    return np.repeat(wave.astype(np.float32)[:, None], channels, axis=1)


def lufs(*blocks: NDArray[np.float32], rate: int = RATE) -> float | None:
    loudness = Loudness(rate)
    for block in blocks:
        loudness.add(block)
    return loudness.lufs()


def test_the_reference_tones() -> None:
    """Tests 1 to 3 of EBU Tech 3341: -23, -33, and -23 LUFS where the gate leaves out the soft parts; each ±0.1."""
    assert lufs(tone(-23, 20)) == pytest.approx(-23, abs=0.1)
    assert lufs(tone(-33, 20)) == pytest.approx(-33, abs=0.1)
    assert lufs(tone(-36, 10), tone(-23, 60), tone(-36, 10)) == pytest.approx(-23, abs=0.1)


@pytest.mark.parametrize("seconds", [10.0, 10.05, 10.0999])
def test_any_length(seconds: float) -> None:
    assert lufs(tone(-23, seconds)) == pytest.approx(-23, abs=0.1)


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 96_000])
def test_any_sample_rate(rate: int) -> None:
    assert lufs(tone(-23, 10, rate=rate), rate=rate) == pytest.approx(-23, abs=0.2)


@pytest.mark.parametrize(("channels", "expected"), [(1, -26.0), (3, -26.0), (6, -18.4)])
def test_numbers_of_channels(channels: int, expected: float) -> None:
    """One channel has half the power of two; in 5.1 the centre and the louder surrounds count, the bass does not."""
    assert lufs(tone(-23, 10, channels)) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("seconds", [0.0, 0.01, 3.0])
def test_silence_has_no_loudness(seconds: float) -> None:
    assert lufs(np.zeros((int(seconds * RATE), 2), np.float32)) is None


def test_no_samples_have_no_loudness() -> None:
    assert Loudness(RATE).lufs() is None


def levels(*blocks: NDArray[np.float32]) -> Levels:
    found = Levels(RATE)
    for block in blocks:
        found.add(block)
    return found


def test_the_share_of_silence() -> None:
    silence = np.zeros((RATE, 2), np.float32)
    assert levels(tone(-20, 3), silence).silence == pytest.approx(0.25, abs=0.001)
    assert levels(silence).silence == 1.0
    assert levels(tone(-50, 1)).silence == 0.0


def test_the_stereo_width() -> None:
    left, right = np.random.default_rng(0).standard_normal((2, RATE)).astype(np.float32)
    assert levels(np.stack([left, left], 1)).width == pytest.approx(0, abs=1e-4)
    assert levels(np.stack([left, -left], 1)).width == pytest.approx(1, abs=1e-4)
    assert levels(np.stack([left, right], 1)).width == pytest.approx(0.5, abs=0.02)
    assert levels(left[:, None]).width == pytest.approx(0, abs=1e-4)
    assert levels(np.zeros((RATE, 2), np.float32)).width is None
