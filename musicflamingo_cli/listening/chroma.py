"""The melody of audio as MusicGen Melody takes it: the strongest of twelve notes at each moment.

transformers' own feature extractor needs torchaudio for its spectrogram; the filters are transformers'. Both give the
same for the songs of the demo (torchaudio 2.11.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_WINDOW, _HOP = 16384, 4096  # samples, as in MusicgenMelodyFeatureExtractor


def chroma(samples: NDArray[np.float32], rate: int, notes: int) -> Tensor:
    """Return which note is the strongest, one-hot, shape (moments, notes), of mono samples at ``rate`` Hz."""
    import torch
    from transformers.audio_utils import chroma_filter_bank

    wave = torch.from_numpy(np.ascontiguousarray(samples))
    if (missing := _WINDOW - len(wave)) > 0:
        wave = torch.nn.functional.pad(wave, (missing // 2, missing - missing // 2))
    window = torch.hann_window(_WINDOW)
    spectrum = torch.stft(wave, _WINDOW, _HOP, window=window, center=True, return_complex=True).abs() ** 2
    filters = chroma_filter_bank(num_frequency_bins=_WINDOW, num_chroma=notes, sampling_rate=rate, tuning=0)
    strength = torch.from_numpy(filters).float() @ spectrum
    return torch.nn.functional.one_hot(strength.T.argmax(dim=-1), notes).float()
