"""Blocks are cut anew without losing a sample, and hold only numbers."""

from __future__ import annotations

import numpy as np
import pytest

from musicflamingo_cli.audio.blocks import even


@pytest.mark.parametrize("sizes", [[1152] * 100, [262_144, 5], [1], [40_000] * 3])
def test_no_sample_is_lost(sizes: list[int]) -> None:
    samples = np.random.default_rng(0).standard_normal((sum(sizes), 2)).astype(np.float32)
    cut = np.split(samples, np.cumsum(sizes)[:-1])
    found = list(even(cut))
    assert np.array_equal(np.concatenate(found), samples)
    assert max(map(len, found)) <= 1 << 15


def test_no_blocks() -> None:
    assert list(even([])) == []


def test_nan_and_infinity_become_silence() -> None:
    block = np.array([[0.5, np.nan], [np.inf, -0.5]], np.float32)
    assert np.concatenate(list(even([block]))).tolist() == [[0.5, 0.0], [0.0, -0.5]]


def test_a_change_of_channels_inside_a_file() -> None:
    stereo, mono = np.ones((10, 2), np.float32), np.full((5, 1), 0.5, np.float32)
    assert np.concatenate(list(even([stereo, mono]))).tolist() == [[1.0, 1.0]] * 10 + [[0.5, 0.5]] * 5
    assert np.concatenate(list(even([mono, stereo]))).tolist() == [[0.5]] * 5 + [[1.0]] * 10
