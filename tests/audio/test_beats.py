from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from musicflamingo_cli.audio.beats import Beats
from musicflamingo_cli.types import SAMPLE_RATE
from tiny_flamingo.music import Recording, random_song, render

MOMENTS = (8.3, 15.1, 20.7)


@pytest.mark.parametrize("seed", range(6_000_000, 6_000_006))
def test_a_moment_is_moved_to_a_beat(seed: int, tmp_path: Path) -> None:
    """The songs' own beats, whatever drums there are; half or double their tempo has its beats among them."""
    song = random_song(seed, seconds=(28.0, 29.9), steady=True)
    samples, score = render(song, Recording(), SAMPLE_RATE)
    soundfile.write(tmp_path / "a.wav", samples, SAMPLE_RATE)
    for start in (0.0, 100.0):
        beats = Beats(tmp_path / "a.wav", start)
        for moment in MOMENTS:
            found = beats.nearest(start + moment) - start
            assert min(abs(found - beat) for beat in score.beats) < 0.02
            assert abs(found - moment) <= 60 / song.bpm  # half a beat at half the tempo


def test_where_there_is_no_beat_nothing_is_moved(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 20 * SAMPLE_RATE)
    for samples in (noise, np.zeros(20 * SAMPLE_RATE), noise[:100]):
        soundfile.write(tmp_path / "a.wav", samples, SAMPLE_RATE)
        assert Beats(tmp_path / "a.wav").nearest(10.0) == 10.0
