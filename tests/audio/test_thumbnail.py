"""Thumbnails of sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from musicflamingo_cli.audio.thumbnail import COLUMNS, ROWS, thumbnail
from tests.conftest import MakeWav


def levels(packed: bytes | None) -> np.ndarray:
    assert packed is not None
    both = np.frombuffer(packed, np.uint8)
    return np.stack([both >> 4, both & 15], axis=1).reshape(COLUMNS, ROWS)


@pytest.mark.parametrize(("hertz", "lowest", "highest"), [(100, 2, 5), (1000, 11, 14), (6000, 19, 22)])
def test_a_tone_is_bright_where_it_sounds(make_wav: MakeWav, hertz: float, lowest: int, highest: int) -> None:
    picture = levels(thumbnail(make_wav(seconds=4, hertz=hertz, rate=44100, channels=2)))
    assert lowest <= int(np.median(picture.argmax(axis=1))) <= highest


def test_a_lossy_file_looks_like_its_original(make_wav: MakeWav, tmp_path: Path) -> None:
    """Through FFmpeg's libraries, which seek in another way than libsndfile."""
    wav = make_wav(seconds=8, hertz=1000, rate=44100)
    mp3 = encode(wav, tmp_path / "tone.mp3")
    assert np.abs(levels(thumbnail(mp3)).argmax(axis=1) - levels(thumbnail(wav)).argmax(axis=1)).max() <= 1


def encode(wav: Path, target: Path) -> Path:
    import av
    import soundfile

    samples, rate = soundfile.read(wav, dtype="float32", always_2d=True)
    with av.open(str(target), "w") as container:
        stream = container.add_stream("mp3", rate=rate)
        stream.layout = "mono"
        for start in range(0, len(samples), 1152):  # what a frame of MP3 holds
            frame = av.AudioFrame.from_ndarray(samples[start : start + 1152, :1].T.copy(), "fltp", "mono")
            frame.sample_rate = rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target


@pytest.mark.parametrize("content", [b"", b"no sound", b"RIFF\x00\x00\x00\x00WAVE"])
def test_what_is_no_audio_has_no_picture(tmp_path: Path, content: bytes) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(content)
    assert thumbnail(broken) is None


def test_a_very_short_file_has_one(make_wav: MakeWav) -> None:
    assert levels(thumbnail(make_wav(seconds=0.02))).max() == 15
