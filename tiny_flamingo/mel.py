"""Whisper's log-mel spectrogram in numpy: what llama.cpp (tools/mtmd/mtmd-audio.cpp) and transformers compute."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfft

RATE, N_FFT, HOP, BINS = 16000, 400, 160, 128
WINDOW_SECONDS = 30


@functools.cache
def filters() -> NDArray[np.float32]:
    """(201, 128): Slaney's mel filters over 0..8 kHz, each of equal area."""

    def to_hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)))

    top = 15 + np.log(8) / (np.log(6.4) / 27)
    edges = to_hertz(np.linspace(0, top, BINS + 2))
    bins = np.linspace(0, RATE / 2, N_FFT // 2 + 1)
    slopes = edges[None, :] - bins[:, None]
    width = np.diff(edges)
    triangles = np.maximum(0, np.minimum(-slopes[:, :-2] / width[:-1], slopes[:, 2:] / width[1:]))
    return (triangles * 2 / (edges[2:] - edges[:-2])).astype(np.float32)


def log_mel(samples: NDArray[np.float32], seconds: float | None = None) -> NDArray[np.float32]:
    """(128, frames) of mono samples at 16 kHz, padded with silence to ``seconds``; 100 frames a second."""
    if seconds:
        samples = np.pad(samples, (0, max(0, round(seconds * RATE) - len(samples))))
    padded = np.pad(samples, N_FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP][: len(samples) // HOP]
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)).astype(np.float32)
    power = np.abs(rfft(frames * hann, axis=1)) ** 2
    mel = np.log10(np.maximum(power @ filters(), 1e-10)).T
    return ((np.maximum(mel, mel.max() - 8) + 4) / 4).astype(np.float32)
