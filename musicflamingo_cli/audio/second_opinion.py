"""Tempo and key by essentia, where the user has installed it: it is neither needed nor installed with the program."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from musicflamingo_cli.audio.blocks import even
from musicflamingo_cli.audio.clip import resampled
from musicflamingo_cli.audio.decoding import open_source
from musicflamingo_cli.audio.key import MODES, TONICS
from musicflamingo_cli.audio.mixing import Mixer

_RATE = 44_100  # Hz; essentia's defaults are for it
_LONGEST = 600  # seconds: essentia takes all samples at once


@dataclass(frozen=True, slots=True)
class Opinion:
    """Tempo in beats per minute and key as `A minor`; None where there is none."""

    bpm: float | None
    key: str | None


def second_opinion(audio: Path) -> Opinion | None:
    """Return what essentia measures in the first ten minutes; None where it is not installed. Raises AudioError."""
    if importlib.util.find_spec("essentia") is None:
        return None
    import numpy as np
    from essentia import standard

    pieces, left = [], _LONGEST * _RATE
    with open_source(audio) as source:
        for piece in resampled(Mixer().mono(even(source.blocks)), source.rate, _RATE):
            pieces.append(piece[:left])
            left -= len(pieces[-1])
            if not left:
                break
    samples = np.concatenate(pieces)
    bpm = float(standard.PercivalBpmEstimator(sampleRate=_RATE)(samples))
    tonic, mode, _ = standard.KeyExtractor(sampleRate=_RATE, profileType="bgate")(samples)
    is_key = tonic in TONICS and mode in MODES
    return Opinion(bpm=round(bpm, 2) if bpm > 0 else None, key=f"{tonic} {mode}" if is_key else None)
