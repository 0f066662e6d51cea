"""The beginning of a track at a model's rate, exact to the sample; and its spectrogram."""

from __future__ import annotations

import base64
import io
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musicflamingo_cli.errors import AudioError
from musicflamingo_cli.listening.excerpt import write_excerpt
from musicflamingo_cli.listening.spectrogram import COLUMNS, ROWS, spectrogram_url
from tests.conftest import MakeWav


@pytest.mark.parametrize("rate", [16_000, 32_000, 44_100])
@pytest.mark.parametrize(("have", "channels"), [(1, 1), (1, 2), (2, 1), (2, 2), (6, 2)])
def test_an_excerpt_is_exact_to_the_sample(
    make_wav: MakeWav, tmp_path: Path, rate: int, have: int, channels: int
) -> None:
    audio = make_wav("a.wav", seconds=3.0, rate=rate, channels=have)
    assert write_excerpt(audio, tmp_path / "start.wav", 1.5, 32_000, channels) == 48_000
    samples, made_rate = soundfile.read(tmp_path / "start.wav", always_2d=True)
    assert (samples.shape, made_rate) == ((48_000, channels), 32_000)
    # The tone and its level are kept.
    assert np.abs(np.fft.rfft(samples[:, 0])).argmax() == pytest.approx(440 * 1.5, abs=1)
    assert np.abs(samples).max() == pytest.approx(0.5, abs=0.05)


def test_a_shorter_track_is_used_whole(make_wav: MakeWav, tmp_path: Path) -> None:
    audio = make_wav("a.wav", seconds=0.5, rate=32_000)
    assert write_excerpt(audio, tmp_path / "start.wav", 1.5, 32_000, 1) == 16_000


def test_unreadable_audio_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"nonsense")
    with pytest.raises(AudioError):
        write_excerpt(tmp_path / "a.wav", tmp_path / "start.wav", 1.0, 32_000, 1)
    assert spectrogram_url(tmp_path / "a.wav", 1.0) == ""


@pytest.mark.parametrize(("hertz", "row"), [(100.0, 84), (440.0, 58), (3520.0, 23)])
def test_a_tone_is_a_line_at_its_height(make_wav: MakeWav, hertz: float, row: int) -> None:
    audio = make_wav("a.wav", seconds=1.0, hertz=hertz, rate=32_000)
    levels = pixels(spectrogram_url(audio, 2.0))
    assert abs(int(levels[:, : COLUMNS // 3].mean(axis=1).argmax()) - row) <= 2
    assert levels[:, -COLUMNS // 3 :].max() == 0  # the second second is silent


def pixels(url: str) -> np.ndarray:
    """The palette's numbers in a PNG of ours, shape (ROWS, COLUMNS)."""
    png = io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,")))
    png.read(8)
    while True:
        size, kind = int.from_bytes(png.read(4), "big"), png.read(4)
        data = png.read(size)
        png.read(4)
        if kind == b"IDAT":
            return np.frombuffer(zlib.decompress(data), np.uint8).reshape(ROWS, COLUMNS + 1)[:, 1:]
