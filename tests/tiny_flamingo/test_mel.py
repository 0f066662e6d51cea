"""The mel spectrogram: transformers' where that is installed, and what any must be."""

from __future__ import annotations

import numpy as np
import pytest

from tiny_flamingo.mel import BINS, filters, log_mel


@pytest.mark.parametrize(("hertz", "bin_"), [(200, 8), (1000, 42), (4000, 100)])
def test_a_tone_is_in_its_bin(hertz: float, bin_: int) -> None:
    time = np.arange(16000, dtype=np.float32) / 16000
    mel = log_mel(0.5 * np.sin(2 * np.pi * hertz * time).astype(np.float32))
    assert mel.shape == (BINS, 100)
    assert abs(int(mel[:, 50].argmax()) - bin_) <= 1


def test_silence_pads_to_the_window() -> None:
    mel = log_mel(np.random.default_rng(0).standard_normal(16000).astype(np.float32) * 0.1, 30)
    assert mel.shape == (BINS, 3000)
    assert np.ptp(mel[:, 200:]) == 0
    assert mel.max() - mel.min() <= 2.0 + 1e-6  # 80 dB over 4


def test_filters_cover_all_frequencies_once() -> None:
    assert filters().shape == (201, BINS)
    assert (filters() >= 0).all()
    assert (filters()[2:-2].sum(axis=1) > 0).all()


def test_it_is_what_transformers_computes() -> None:
    transformers = pytest.importorskip("transformers", reason="pip install '.[train]'")
    samples = (0.1 * np.random.default_rng(1).standard_normal(5 * 16000)).astype(np.float32)
    extractor = transformers.WhisperFeatureExtractor(feature_size=BINS)
    theirs = extractor(samples, sampling_rate=16000, return_tensors="np").input_features[0]
    assert np.abs(theirs - log_mel(samples, 30)).max() < 1e-3
