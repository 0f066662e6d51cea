"""Thumbnails: small spectrograms of a track."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from musicflamingo_cli.audio.thumbnail import COLUMNS, ROWS, thumbnail
from tests.conftest import MakeWav


def levels(packed: bytes | None) -> np.ndarray:
    """Unpack a thumbnail into levels, shape (COLUMNS, ROWS)."""
    assert packed is not None
    both = np.frombuffer(packed, np.uint8)
    return np.stack([both >> 4, both & 15], axis=1).reshape(COLUMNS, ROWS)


@pytest.mark.parametrize(("hertz", "lowest", "highest"), [(100, 2, 5), (1000, 11, 14), (6000, 19, 22)])
def test_a_tone_is_brightest_at_its_frequency(make_wav: MakeWav, hertz: float, lowest: int, highest: int) -> None:
    picture = levels(thumbnail(make_wav(seconds=4, hertz=hertz, rate=44100, channels=2)))
    assert lowest <= int(np.median(picture.argmax(axis=1))) <= highest


def test_a_lossy_file_has_the_same_picture(make_wav: MakeWav, tmp_path: Path) -> None:
    """It is read by FFmpeg's libraries, which seek differently from libsndfile."""
    wav = make_wav(seconds=8, hertz=1000, rate=44100)
    mp3 = encode(wav, tmp_path / "tone.mp3")
    assert np.abs(levels(thumbnail(mp3)).argmax(axis=1) - levels(thumbnail(wav)).argmax(axis=1)).max() <= 1


def encode(wav: Path, target: Path) -> Path:
    """Encode the first channel of a WAV file as MP3."""
    import av
    import soundfile

    samples, rate = soundfile.read(wav, dtype="float32", always_2d=True)
    with av.open(str(target), "w") as container:
        stream = container.add_stream("mp3", rate=rate)
        stream.layout = "mono"
        for start in range(0, len(samples), 1152):  # the size of an MP3 frame
            frame = av.AudioFrame.from_ndarray(samples[start : start + 1152, :1].T.copy(), "fltp", "mono")
            frame.sample_rate = rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target


@pytest.mark.parametrize("content", [b"", b"no sound", b"RIFF\x00\x00\x00\x00WAVE"])
def test_a_file_that_is_not_audio_has_no_picture(tmp_path: Path, content: bytes) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(content)
    assert thumbnail(broken) is None


def test_a_very_short_file_has_a_picture(make_wav: MakeWav) -> None:
    assert levels(thumbnail(make_wav(seconds=0.02))).max() == 15
