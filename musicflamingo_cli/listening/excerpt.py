"""The first seconds of a track at a model's own rate, for a clip that continues it or follows its melody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from musicflamingo_cli.audio.decoding import open_source
from musicflamingo_cli.errors import AudioError


def write_excerpt(audio: Path, target: Path, seconds: float, rate: int, channels: int) -> int:
    """Write a WAV file of at most the first ``seconds`` of a track; return its samples, a channel. Raises AudioError.

    One channel of a stereo model's track becomes two; more channels than the model has become their average.
    """
    import numpy as np
    import soundfile
    import soxr

    wanted = round(seconds * rate)
    frames, blocks = 0, list[Any]()
    with open_source(audio) as source:
        for block in source.blocks:
            if blocks and block.shape[1] != blocks[0].shape[1]:
                break  # what a joined file holds from here on is other audio
            blocks.append(block)
            frames += len(block)
            if frames >= wanted * source.rate / rate + source.rate:  # a second more, for the resampler
                break
        whole = np.nan_to_num(np.concatenate(blocks)) if blocks else np.zeros((0, 1), np.float32)
        if whole.shape[1] != channels:
            whole = np.repeat(whole.mean(axis=1, keepdims=True), channels, axis=1)
        made = soxr.resample(whole, source.rate, rate)[:wanted]
    if not len(made):
        raise AudioError(f"no audio in {audio.name}", "leave --continue and --melody out, or use another track")
    soundfile.write(target, np.clip(made, -1, 1), rate, format="WAV", subtype="FLOAT")
    return len(made)
