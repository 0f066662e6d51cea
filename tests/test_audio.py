from __future__ import annotations

import functools
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musicflamingo_cli import audio
from musicflamingo_cli.audio import Part, prepared, write_clip
from musicflamingo_cli.errors import AudioError, NoRoomError, SilentError, TooShortError
from tests.conftest import MakeWav, tone

SNDFILE = [
    ("a.wav", {"subtype": "PCM_24"}),
    ("a.wav", {"subtype": "FLOAT"}),
    ("a.flac", {}),
    ("a.ogg", {}),
    ("a.opus", {"format": "OGG", "subtype": "OPUS"}),
    ("a.mp3", {}),
    ("a.aiff", {}),
    ("a.au", {}),
]
FFMPEG = [("a.m4a", "aac"), ("alac.m4a", "alac"), ("a.wma", "wmav2"), ("a.mka", "libopus"), ("a.webm", "libopus")]


def encode(path: Path, codec: str, samples: np.ndarray, rate: int, bits: int = 128_000, **options: str) -> None:
    """Write (frames, channels) samples with FFmpeg's encoders; ``options`` are the container's."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout="stereo", bit_rate=bits)
        assert isinstance(stream, av.AudioStream)
        resampler = av.AudioResampler(format=stream.format, layout="stereo", rate=rate)
        frame = av.AudioFrame.from_ndarray(samples.T.astype(np.float32).copy(), format="fltp", layout="stereo")
        frame.sample_rate = rate
        for piece in [*resampler.resample(frame), None]:
            container.mux(stream.encode(piece))


def loudest_hertz(samples: np.ndarray, rate: int = 16_000) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.fft.rfftfreq(len(samples), 1 / rate)[spectrum.argmax()])


@pytest.mark.parametrize(("name", "options"), SNDFILE)
def test_what_libsndfile_reads_becomes_a_clip(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    source = tmp_path / name
    soundfile.write(source, tone(2, 1000, 48_000, 2), 48_000, **options)
    check_clip(source)


@pytest.mark.parametrize(("name", "codec"), FFMPEG)
def test_what_ffmpeg_reads_becomes_a_clip(tmp_path: Path, name: str, codec: str) -> None:
    source = tmp_path / name
    encode(source, codec, tone(2, 1000, 48_000, 2), 48_000)
    check_clip(source)


def check_clip(source: Path) -> None:
    with prepared(source) as clip:
        samples, rate = soundfile.read(clip.path)
        assert rate == 16_000
        assert samples.ndim == 1
        assert len(samples) == clip.samples
        assert clip.seconds == pytest.approx(2, abs=0.1)
        assert not clip.was_cut
        assert loudest_hertz(samples) == pytest.approx(1000, abs=3)
        assert np.abs(samples).max() == pytest.approx(0.5, abs=0.08)
        folder = clip.path.parent
    assert not folder.exists()


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 96_000, 192_000])
def test_pitch_and_length_survive_every_rate(make_wav: MakeWav, tmp_path: Path, rate: int) -> None:
    clip = write_clip(make_wav(seconds=3, hertz=1500, rate=rate), tmp_path / "clip.wav")
    assert clip.samples == pytest.approx(48_000, abs=2)
    assert loudest_hertz(soundfile.read(clip.path)[0]) == pytest.approx(1500, abs=2)


def test_what_the_model_cannot_hear_does_not_fold_back(make_wav: MakeWav, tmp_path: Path) -> None:
    """A 10 kHz tone lies above the clip's 8 kHz: it must vanish, not turn up at 6 kHz."""
    soundfile.write(tmp_path / "high.wav", tone(2, 10_000, 44_100) + 0.01 * tone(2, 500, 44_100), 44_100)
    samples, _ = soundfile.read(write_clip(tmp_path / "high.wav", tmp_path / "clip.wav").path)
    middle = samples[8000:-8000]
    assert loudest_hertz(middle) == pytest.approx(500, abs=3)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = tone(1, 500), tone(1, 2000)
    soundfile.write(tmp_path / "wide.wav", np.hstack([left, right, 0 * left, 0 * left, 0 * left, right]), 16_000)
    samples, _ = soundfile.read(write_clip(tmp_path / "wide.wav", tmp_path / "clip.wav").path)
    np.testing.assert_allclose(samples, ((left + 2 * right) / 6)[:, 0], atol=1e-4)


@pytest.mark.parametrize(
    ("seconds", "samples"),
    [
        (29.9, 478_400),
        (29.99, 479_600),
        (30.0, 479_600),
        (30.02, 479_600),
        (30.1, 481_600),
        (60.0, 959_600),
        (0.6, 9_600),
    ],
)
def test_no_silent_window_for_a_multiple_of_30_seconds(
    make_wav: MakeWav, tmp_path: Path, seconds: float, samples: int
) -> None:
    clip = write_clip(make_wav(seconds=seconds), tmp_path / "clip.wav")
    assert clip.samples == samples
    assert soundfile.info(clip.path).frames == samples


def test_what_is_beyond_the_limit_is_cut_and_told(make_wav: MakeWav, tmp_path: Path) -> None:
    clip = write_clip(make_wav(seconds=5), tmp_path / "clip.wav", part=Part(max_seconds=2))
    assert clip.was_cut
    assert clip.seconds == 2
    assert clip.source_seconds == 5
    assert not write_clip(make_wav(seconds=2), tmp_path / "clip.wav", part=Part(max_seconds=2)).was_cut


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30, -7.0])
def test_samples_that_are_no_sound_do_not_crash_it(tmp_path: Path, bad: float) -> None:
    samples = tone(1)
    samples[1000:1200] = bad
    soundfile.write(tmp_path / "bad.wav", samples, 16_000, subtype="DOUBLE")
    heard, _ = soundfile.read(write_clip(tmp_path / "bad.wav", tmp_path / "clip.wav").path)
    assert np.isfinite(heard).all()
    assert np.abs(heard).max() < 1.5


@pytest.mark.parametrize("level", [0.0, 0.7, -1.0])
def test_silence_and_a_constant_are_refused(tmp_path: Path, level: float) -> None:
    soundfile.write(tmp_path / "quiet.wav", np.full(32_000, level), 16_000)
    with pytest.raises(SilentError, match=r"no sound in quiet\.wav"):
        write_clip(tmp_path / "quiet.wav", tmp_path / "clip.wav")


def test_a_quiet_track_is_heard_at_full_resolution(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "quiet.wav", 0.001 * tone(2, 1000), 16_000, subtype="PCM_24")
    samples, _ = soundfile.read(write_clip(tmp_path / "quiet.wav", tmp_path / "clip.wav").path)
    np.testing.assert_allclose(samples, 0.001 * tone(2, 1000)[:, 0], atol=2e-7)


def test_under_half_a_second_is_refused(make_wav: MakeWav, tmp_path: Path) -> None:
    with pytest.raises(TooShortError, match="too short"):
        write_clip(make_wav(seconds=0.4), tmp_path / "clip.wav")


def damaged_flac(path: Path) -> None:
    soundfile.write(path, np.random.RandomState(0).uniform(-0.5, 0.5, 160_000), 16_000, format="FLAC")
    path.write_bytes(path.read_bytes()[:100_000])


BAD_FILES: dict[str, Callable[[Path], object]] = {
    "empty.wav": lambda path: path.touch(),
    "text.mp3": lambda path: path.write_text("this is not music\n" * 500),
    "noise.flac": lambda path: path.write_bytes(np.random.RandomState(1).bytes(50_000)),
    "cut.flac": damaged_flac,
    "header.wav": lambda path: path.write_bytes(b"RIFF\x24\x00\x00\x00WAVEfmt "),
    "gone.wav": lambda path: None,
    "pipe.wav": lambda path: os.mkfifo(path),
    "folder.wav": lambda path: path.mkdir(),
    "loop.wav": lambda path: path.symlink_to(path),
    "picture.m4a": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(2000)),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_what_is_no_audio_is_one_sentence(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    BAD_FILES[name](tmp_path / name)
    with pytest.raises(AudioError) as caught:
        write_clip(tmp_path / name, tmp_path / "clip.wav")
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert capfd.readouterr() == ("", "")  # the decoders' own complaints stay off our terminal


def write_noise(path: Path) -> None:
    """20 s that no codec makes small: half of the bytes are half of the music."""
    noise = np.random.RandomState(0).uniform(-0.3, 0.3, (20 * 48_000, 2)).astype(np.float32)
    codec = {".m4a": "aac", ".mka": "libopus", ".webm": "libopus", ".mp3": "libmp3lame"}.get(path.suffix)
    if codec is None:
        soundfile.write(path, noise, 48_000)
    elif codec == "aac":  # the index before the music, as files for the web have it
        encode(path, codec, noise, 48_000, movflags="faststart")
    else:
        encode(path, codec, noise, 48_000)


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.au", "a.flac", "a.mp3", "a.m4a", "a.mka", "a.webm"])
def test_a_file_that_was_copied_half_is_refused(tmp_path: Path, name: str) -> None:
    """Its caption would be taken for the whole track's; that some decoders go on without a word is no excuse."""
    write_noise(tmp_path / name)
    assert write_clip(tmp_path / name, tmp_path / "clip.wav").seconds == pytest.approx(20, abs=0.1)
    data = (tmp_path / name).read_bytes()
    if name != "a.flac":  # a header that is a little wrong is no damage, but a FLAC frame that breaks off is
        (tmp_path / name).write_bytes(data[: int(len(data) * 0.99)])
        assert write_clip(tmp_path / name, tmp_path / "clip.wav").seconds > 19.5
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match="is damaged: it breaks off after"):
        write_clip(tmp_path / name, tmp_path / "clip.wav")


def test_an_mp3_that_does_not_say_how_long_it_is_is_heard(tmp_path: Path) -> None:
    """FFmpeg reckons its length from the bit rate of its first frames, which proves nothing."""
    loud = np.random.RandomState(0).uniform(-0.3, 0.3, (10 * 48_000, 2))
    for name, samples, rate in (("low.mp3", tone(1, 440, 48_000, 2), 32_000), ("high.mp3", loud, 320_000)):
        encode(tmp_path / name, "libmp3lame", samples, 48_000, rate, write_xing="0", id3v2_version="0")
    both = tmp_path / "both.mp3"
    both.write_bytes((tmp_path / "low.mp3").read_bytes() + (tmp_path / "high.mp3").read_bytes())
    assert audio.measure(both).seconds > 30
    assert write_clip(both, tmp_path / "clip.wav").seconds == pytest.approx(11, abs=0.2)


def test_an_mp3_with_more_behind_it_than_it_counts_is_heard(tmp_path: Path) -> None:
    """FFmpeg then drops the count and reckons from the bit rate: a cover at the end would make it damaged."""
    write_noise(tmp_path / "a.mp3")
    data = (tmp_path / "a.mp3").read_bytes()
    for name, more in (("cover.mp3", b"APETAGEX" + bytes(len(data) // 4)), ("twice.mp3", data)):
        (tmp_path / name).write_bytes(data + more)
        assert audio.measure(tmp_path / name).seconds > 24
        assert write_clip(tmp_path / name, tmp_path / "clip.wav").seconds > 19.9


def test_a_matroska_file_that_names_no_length_is_heard(tmp_path: Path) -> None:
    """FFmpeg reckons one from the bit rate of its first frames, which are silence here."""
    noise = np.random.RandomState(0).uniform(-0.3, 0.3, (2, 9 * 48_000)).astype(np.float32)
    with av.open(str(tmp_path / "piped.mka"), "w", options={"live": "1"}) as container:
        stream = container.add_stream("libmp3lame", rate=48_000, layout="stereo")
        assert isinstance(stream, av.AudioStream)
        stream.codec_context.flags |= av.codec.context.Flags.qscale  # a bit rate that varies
        stream.codec_context.global_quality = 0
        resampler = av.AudioResampler(format=stream.format, layout="stereo", rate=48_000)
        samples = np.concatenate([np.zeros((2, 48_000), np.float32), noise], axis=1)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        frame.sample_rate = 48_000
        for piece in [*resampler.resample(frame), None]:
            container.mux(stream.encode(piece))
    assert audio.measure(tmp_path / "piped.mka").seconds > 50
    assert write_clip(tmp_path / "piped.mka", tmp_path / "clip.wav").seconds == pytest.approx(10, abs=0.2)


@pytest.mark.parametrize("size", [0, 0x7F000000, 0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_wav_written_to_a_pipe_is_heard_whole(make_wav: MakeWav, tmp_path: Path, size: int) -> None:
    wav = make_wav("stream.wav", 3)
    data = bytearray(wav.read_bytes())
    data[4:8] = data[40:44] = size.to_bytes(4, "little")
    wav.write_bytes(data)
    assert write_clip(wav, tmp_path / "clip.wav").seconds == pytest.approx(3, abs=0.01)


def test_a_flac_written_to_a_pipe_is_heard_whole(tmp_path: Path) -> None:
    flac = tmp_path / "stream.flac"
    soundfile.write(flac, tone(3), 16_000)
    data = bytearray(flac.read_bytes())
    data[21] &= 0xF0  # STREAMINFO's 36 bits of total samples
    data[22:26] = bytes(4)
    flac.write_bytes(data)
    assert write_clip(flac, tmp_path / "clip.wav").seconds == pytest.approx(3, abs=0.01)


def test_the_temporary_folder_goes_even_after_an_error(make_wav: MakeWav) -> None:
    folder = None
    with pytest.raises(KeyboardInterrupt), prepared(make_wav()) as clip:  # noqa: PT012
        folder = clip.path.parent
        raise KeyboardInterrupt
    assert folder
    assert not folder.exists()


def test_memory_does_not_grow_with_the_track(
    make_wav: MakeWav, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder is asked for blocks, never for the file."""
    largest = 0
    read = soundfile.SoundFile.read

    def counted(self: soundfile.SoundFile, frames: int = -1, *args: object, **more: object) -> np.ndarray:
        nonlocal largest
        result: np.ndarray = read(self, frames, *args, **more)
        largest = max(largest, len(result))
        return result

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    write_clip(make_wav(seconds=60), tmp_path / "clip.wav")
    assert 0 < largest <= audio._BLOCK_FRAMES


@pytest.mark.parametrize(
    ("part", "start", "seconds"),
    [
        (Part(), 0, 10),
        (Part(start=4), 4, 6),
        (Part(fraction=0.6), 0, 6),
        (Part(start=4, fraction=0.5), 4, 3),
        (Part(start=4, max_seconds=2), 4, 2),
        (Part(fraction=0.6, max_seconds=2), 0, 2),
    ],
)
def test_a_part_of_a_track(make_wav: MakeWav, tmp_path: Path, part: Part, start: float, seconds: float) -> None:
    whole = write_clip(make_wav("whole.wav", 10), tmp_path / "whole-clip.wav")
    clip = write_clip(tmp_path / "whole.wav", tmp_path / "clip.wav", part)
    assert clip.seconds == pytest.approx(seconds, abs=0.01)
    assert (clip.start, clip.was_cut) == (start, part != Part())
    assert clip.source_seconds == pytest.approx(10, abs=0.01)
    heard, expected = soundfile.read(clip.path)[0], soundfile.read(whole.path)[0]
    np.testing.assert_array_equal(heard, expected[int(start * 16_000) :][: len(heard)])


def test_a_start_beyond_the_end_is_too_short(make_wav: MakeWav, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="too short"):
        write_clip(make_wav(seconds=2), tmp_path / "clip.wav", Part(start=5))


@functools.cache
def specimen(extension: str) -> bytes:
    """A second of sound in a container that libsndfile writes."""
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(1, 440), 16_000, format=extension.upper())
    return buffer.getvalue()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["wav", "flac", "ogg", "mp3", "aiff"]),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=12),
    st.integers(0, 100),
)
def test_a_mutated_file_is_heard_or_refused_in_one_sentence(
    tmp_path: Path, extension: str, changes: list[tuple[int, int]], kept: int
) -> None:
    data = bytearray(specimen(extension))
    for position, value in changes:
        data[position % len(data)] = value
    audio = tmp_path / f"mutated.{extension}"
    audio.write_bytes(data[: len(data) * kept // 100] if kept > 20 else data)
    refusal: AudioError | None = None
    try:
        clip = write_clip(audio, tmp_path / "clip.wav")
    except AudioError as error:
        refusal = error
    if refusal is None:
        assert clip.samples == soundfile.info(clip.path).frames > 0
    else:
        assert "\n" not in str(refusal)
        assert refusal.hint


def test_a_clip_that_the_temporary_disk_cannot_hold_is_not_begun(
    make_wav: MakeWav, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = make_wav(seconds=60)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=18 << 20))
    with pytest.raises(NoRoomError) as caught:
        write_clip(audio, tmp_path / "clip.wav")
    assert caught.value.kind == "no space"
    assert "TMPDIR" in caught.value.hint
    assert write_clip(audio, tmp_path / "clip.wav", Part(max_seconds=20)).seconds == pytest.approx(20, abs=0.1)
