"""The sound that the page gets: any range of any file, converted where browsers cannot play it; and its pictures."""

from __future__ import annotations

import contextlib
import io
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from musicflamingo_cli.audio.decoding import Source
from musicflamingo_cli.errors import AudioError
from musicflamingo_cli.review import pictures
from musicflamingo_cli.review.audio import parsed_range, sound_of
from musicflamingo_cli.review.pictures import COLUMNS, PEAKS, ROWS, Pictures, picture
from musicflamingo_cli.types import Track
from tests.review.conftest import StartReview, write_tone

RATE = 44_100


def ramp(path: Path, seconds: float = 3.0) -> Path:
    """Two channels whose every sample says where it is: a slow ramp, and its negative."""
    wave = np.linspace(-0.9, 0.9, round(seconds * RATE))
    soundfile.write(path, np.stack([wave, -wave], axis=1), RATE, subtype="PCM_16" if path.suffix != ".mp3" else None)
    return path


def encoded(path: Path, codec: str, seconds: float = 3.0) -> Path:
    """The ramp's sound as a tone that gets louder, in a format that only FFmpeg's libraries write."""
    with av.open(path, "w") as container:
        stream: Any = container.add_stream(codec, rate=RATE, layout="stereo")
        if codec == "wmav2":
            stream.bit_rate = 128_000
        time_axis = np.arange(round(seconds * RATE)) / RATE
        wave = (0.9 * time_axis / seconds * np.sin(2 * np.pi * 440 * time_axis)).astype("float32")
        frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
        frame.sample_rate = RATE
        resampler = av.AudioResampler(format=stream.format, layout="stereo", rate=RATE, frame_size=2048)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


def whole(path: Path, as_wav: bool = False) -> tuple[bytes, int]:
    sound = sound_of(Track(path, path), path.parent, False, as_wav)
    return b"".join(sound.read(0, sound.size)), sound.size


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, (0, 100)),
        ("bytes=0-", (0, 100)),
        ("bytes=10-19", (10, 20)),
        ("bytes=-30", (70, 100)),
        ("bytes=-300", (0, 100)),
        ("bytes=90-500", (90, 100)),
        ("bytes=100-", None),
        ("bytes=20-10", None),
        ("bytes=-", (0, 100)),
        ("bytes=0-1,5-6", (0, 100)),
        ("lines=1-2", (0, 100)),
    ],
)
def test_ranges(header: str | None, span: tuple[int, int] | None) -> None:
    assert parsed_range(header, 100) == span


@pytest.mark.parametrize("name", ["a.aiff", "a.au", "a.flac", "a.w64"])
def test_any_range_of_a_conversion_is_that_of_the_whole(tmp_path: Path, name: str) -> None:
    path = ramp(tmp_path / name)
    data, size = whole(path, as_wav=True)
    assert len(data) == size
    samples, rate = soundfile.read(io.BytesIO(data))
    assert (rate, samples.shape) == (RATE, (3 * RATE, 2))
    assert np.abs(samples - soundfile.read(path)[0]).max() < 1e-3
    sound = sound_of(Track(path, path), tmp_path, False, as_wav=True)
    dice = np.random.default_rng(1)
    for start, end in [
        (0, 10),
        (40, 50),
        (43, 44),
        (44, 47),
        (45, 2000),
        (size - 3, size),
        *np.sort(dice.integers(0, size, (20, 2))),
    ]:
        assert b"".join(sound.read(int(start), int(end))) == data[start:end]


@pytest.mark.parametrize(
    ("name", "codec"), [("a.wma", "wmav2"), ("a.mka", "ac3"), ("a.m4a", "alac"), ("a.wv", "wavpack"), ("a.tta", "tta")]
)
def test_what_browsers_cannot_play_is_converted(tmp_path: Path, name: str, codec: str) -> None:
    path = encoded(tmp_path / name, codec)
    data, size = whole(path, as_wav=True)
    assert len(data) == size
    samples, rate = soundfile.read(io.BytesIO(data))
    assert rate == RATE
    assert abs(len(samples) / rate - 3) < 0.1
    loudness = [float(np.abs(piece).max()) for piece in np.array_split(samples[: 3 * RATE - 4000], 6)]
    assert loudness == sorted(loudness)
    assert loudness[-1] > 0.7
    sound = sound_of(Track(path, path), tmp_path, False, as_wav=True)
    middle = 44 + 4 * round(1.5 * RATE)
    later = np.frombuffer(b"".join(sound.read(middle, middle + 4 * RATE)), "<i2").reshape(-1, 2) / 32768
    expected = samples[round(1.5 * RATE) : round(1.5 * RATE) + RATE]
    assert abs(float(np.abs(later).max()) - float(np.abs(expected).max())) < 0.05


def test_a_conversion_needs_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.aiff"
    with soundfile.SoundFile(path, "w", RATE, 2, "PCM_16") as file:
        for _ in range(20):
            file.write(np.zeros((30 * RATE, 2), "int16"))
    sound = sound_of(Track(path, path), tmp_path, False)
    tracemalloc.start()
    assert sum(map(len, sound.read(0, sound.size))) == sound.size == 44 + 600 * RATE * 4
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_position_late_in_a_long_file_starts_at_once(start_review: StartReview, tmp_path: Path) -> None:
    """20 minutes of FLAC, as it is and converted, and of what FFmpeg decodes."""
    block = (np.random.default_rng(0).normal(0, 0.1, (RATE * 60, 2))).astype("float32")
    with soundfile.SoundFile(tmp_path / "long.flac", "w", RATE, 2, "PCM_16") as file:
        for _ in range(20):
            file.write(block)
    server = start_review(tmp_path).enter()
    for query in ("", "?wav=1"):
        size = int(server.request("HEAD", f"/api/tracks/0/audio{query}").headers["content-length"])
        started = time.monotonic()
        start = size * 9 // 10
        answer = server.get(f"/api/tracks/0/audio{query}", Range=f"bytes={start}-{start + 65535}")
        assert (answer.status, len(answer.body)) == (206, 65536)
        assert time.monotonic() - started < 0.5


def test_links_out_and_what_is_no_audio_are_refused(tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    outside = write_tone(tmp_path / "outside.wav")
    link = tmp_path / "music" / "link.wav"
    link.symlink_to(outside)
    with pytest.raises(AudioError, match="leads out"):
        sound_of(Track(link, link), tmp_path / "music", False)
    assert sound_of(Track(link, link), tmp_path / "music", True).path == outside
    fake = tmp_path / "music" / "fake.mp3"
    fake.write_text("no sound")
    with pytest.raises(AudioError):
        sound_of(Track(fake, fake), tmp_path / "music", False)


def test_a_picture_shows_where_and_how_high_the_sound_is(tmp_path: Path) -> None:
    """A low tone in the first half at half the level, silence, then a high tone."""
    time_axis = np.arange(4 * RATE) / RATE
    wave = np.sin(2 * np.pi * np.where(time_axis < 2, 200, 5000) * time_axis)
    wave[time_axis < 2] *= 0.5
    wave[(time_axis >= 2) & (time_axis < 3)] = 0
    soundfile.write(tmp_path / "a.wav", wave, RATE)
    data = np.frombuffer(picture(tmp_path / "a.wav"), np.uint8)
    peaks, levels = data[: 2 * PEAKS].reshape(PEAKS, 2), data[2 * PEAKS :].reshape(COLUMNS, ROWS)
    highs = (peaks[:, 1] - 128.0) / 127
    assert highs[50:450].mean() == pytest.approx(0.5, abs=0.02)
    assert highs[520:730].max() == 0
    assert highs[800:].mean() == pytest.approx(1.0, abs=0.02)
    low, high = levels[100].argmax(), levels[450].argmax()
    assert low < high
    assert levels[300].max() == 0


def test_a_file_without_sound_has_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a damaged file whose header is whole; found by benchmarks/fuzz.py."""
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16_000)

    @contextlib.contextmanager
    def without_blocks(audio: Path) -> Iterator[Source]:
        yield Source(16_000, iter(()), 0.1)

    monkeypatch.setattr(pictures, "open_source", without_blocks)
    with pytest.raises(AudioError, match=r"no sound in a\.wav"):
        picture(tmp_path / "a.wav")


@pytest.mark.parametrize("seconds", [0.01, 0.3, 7.77])
def test_pictures_of_any_length_have_one_size(tmp_path: Path, seconds: float) -> None:
    path = write_tone(tmp_path / "a.wav", seconds)
    assert len(Pictures().get(0, path)) == 2 * PEAKS + COLUMNS * ROWS
