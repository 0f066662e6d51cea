"""The clip that the model gets: rate, channels, length, excerpts, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musicflamingo_cli.audio.clip import prepared, write_clip
from musicflamingo_cli.errors import AudioError, FailureKind, NoRoomError, SilentError, TooShortError
from musicflamingo_cli.types import Excerpt
from tests.audio.test_decoding import encode
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


def loudest_hertz(samples: np.ndarray, rate: int = 16_000) -> float:
    """The frequency of the strongest component."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.fft.rfftfreq(len(samples), 1 / rate)[spectrum.argmax()])


@pytest.mark.parametrize(("name", "options"), SNDFILE)
def test_formats_of_libsndfile_become_a_clip(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    source = tmp_path / name
    soundfile.write(source, tone(2, 1000, 48_000, 2), 48_000, **options)
    check_clip(source)


@pytest.mark.parametrize(("name", "codec"), FFMPEG)
def test_formats_of_ffmpeg_become_a_clip(tmp_path: Path, name: str, codec: str) -> None:
    source = tmp_path / name
    encode(source, codec, tone(2, 1000, 48_000, 2), 48_000)
    check_clip(source)


def check_clip(source: Path) -> None:
    """Check the clip of 2 s of a 1 kHz tone at half of full scale."""
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


def test_frequencies_above_8_khz_do_not_alias(make_wav: MakeWav, tmp_path: Path) -> None:
    """A 10 kHz tone is above half the clip's sample rate: it must vanish, not appear at 6 kHz."""
    soundfile.write(tmp_path / "high.wav", tone(2, 10_000, 44_100) + 0.01 * tone(2, 500, 44_100), 44_100)
    samples, _ = soundfile.read(write_clip(tmp_path / "high.wav", tmp_path / "clip.wav").path)
    middle = samples[8000:-8000]
    assert loudest_hertz(middle) == pytest.approx(500, abs=3)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = tone(1, 500), tone(1, 2000)
    soundfile.write(tmp_path / "wide.wav", np.hstack([left, right, 0 * left, 0 * left, 0 * left, right]), 16_000)
    samples, _ = soundfile.read(write_clip(tmp_path / "wide.wav", tmp_path / "clip.wav").path)
    np.testing.assert_allclose(samples, ((left + 2 * right) / 6)[:, 0], atol=1e-4)


def anti_phase(path: Path) -> None:
    """Write a tone whose right channel is the negative of the left one, and a little louder than after any codec."""
    left = tone(4, 1000, 48_000)
    samples = np.hstack([left, -left])
    if path.name == "a.wav":  # with dither of the lowest bit
        dither = np.random.RandomState(0).uniform(-1, 1, samples.shape) / 32768
        soundfile.write(path, samples + dither, 48_000, subtype="PCM_16")
    elif path.stem == "offset":  # which does not cancel out, and is no sound
        soundfile.write(path, 0.5 * samples + 0.2, 48_000)
    elif path.suffix == ".flac":  # six channels, of which two pairs cancel out
        soundfile.write(path, np.hstack([samples, 0 * left, 0 * left, 0.5 * samples]), 48_000)
    else:
        encode(path, {".m4a": "aac", ".opus": "libopus", ".mp3": "libmp3lame"}[path.suffix], samples, 48_000)


@pytest.mark.parametrize("name", ["a.wav", "offset.flac", "a.flac", "a.m4a", "a.opus", "a.mp3"])
def test_channels_that_cancel_out_leave_the_louder_one(tmp_path: Path, name: str) -> None:
    """The mix would be the noise of the codec or of the dither."""
    anti_phase(tmp_path / name)
    with prepared(tmp_path / name) as clip:
        samples, _ = soundfile.read(clip.path)
        assert clip.channel in (1, 2)
    assert loudest_hertz(samples - samples.mean()) == pytest.approx(1000, abs=3)
    assert np.abs(samples).max() == pytest.approx(0.45 if name == "offset.flac" else 0.5, abs=0.08)


def test_only_the_part_that_is_used_decides_about_channels(tmp_path: Path) -> None:
    both, left = tone(3, 500, channels=2), tone(3, 1000)
    soundfile.write(tmp_path / "a.wav", np.vstack([both, np.hstack([0.8 * left, -left])]), 16_000)
    whole = write_clip(tmp_path / "a.wav", tmp_path / "whole.wav")
    rest = write_clip(tmp_path / "a.wav", tmp_path / "rest.wav", Excerpt(start=3.5))
    assert (whole.channel, rest.channel) == (None, 2)
    assert loudest_hertz(soundfile.read(rest.path)[0]) == pytest.approx(1000, abs=3)


@pytest.mark.parametrize("right", [0.0, -0.3, 1.0])
def test_channels_that_differ_are_still_averaged(tmp_path: Path, right: float) -> None:
    """One silent channel, a partly cancelled one, two of independent noise: most of the mix is left."""
    left, noise = tone(2, 1000), np.random.RandomState(0).uniform(-0.3, 0.3, (32_000, 1))
    second = noise if right == 1 else right * left
    soundfile.write(tmp_path / "a.wav", np.hstack([left, second]), 16_000, subtype="FLOAT")
    clip = write_clip(tmp_path / "a.wav", tmp_path / "clip.wav")
    assert clip.channel is None
    np.testing.assert_allclose(soundfile.read(clip.path)[0], ((left + second) / 2)[:, 0], atol=1e-6)


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


def test_a_clip_is_cut_at_the_limit_and_marked(make_wav: MakeWav, tmp_path: Path) -> None:
    clip = write_clip(make_wav(seconds=5), tmp_path / "clip.wav", excerpt=Excerpt(max_seconds=2))
    assert clip.was_cut
    assert clip.seconds == 2
    assert clip.source_seconds == 5
    assert not write_clip(make_wav(seconds=2), tmp_path / "clip.wav", excerpt=Excerpt(max_seconds=2)).was_cut


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30, -7.0])
def test_invalid_samples_become_valid(tmp_path: Path, bad: float) -> None:
    samples = tone(1)
    samples[1000:1200] = bad
    soundfile.write(tmp_path / "bad.wav", samples, 16_000, subtype="DOUBLE")
    samples, _ = soundfile.read(write_clip(tmp_path / "bad.wav", tmp_path / "clip.wav").path)
    assert np.isfinite(samples).all()
    assert np.abs(samples).max() < 1.5


@pytest.mark.parametrize("level", [0.0, 0.7, -1.0])
def test_silence_and_a_constant_are_refused(tmp_path: Path, level: float) -> None:
    soundfile.write(tmp_path / "quiet.wav", np.full(32_000, level), 16_000)
    with pytest.raises(SilentError, match=r"no sound in quiet\.wav"):
        write_clip(tmp_path / "quiet.wav", tmp_path / "clip.wav")


def test_a_quiet_track_keeps_its_resolution(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "quiet.wav", 0.001 * tone(2, 1000), 16_000, subtype="PCM_24")
    samples, _ = soundfile.read(write_clip(tmp_path / "quiet.wav", tmp_path / "clip.wav").path)
    np.testing.assert_allclose(samples, 0.001 * tone(2, 1000)[:, 0], atol=2e-7)


def test_under_half_a_second_is_refused(make_wav: MakeWav, tmp_path: Path) -> None:
    with pytest.raises(TooShortError, match="too short"):
        write_clip(make_wav(seconds=0.4), tmp_path / "clip.wav")


def test_a_track_under_the_least_length_is_refused_by_its_header(make_wav: MakeWav, tmp_path: Path) -> None:
    """Whatever part of it is used; where the header holds no length, once it is decoded."""
    wav, excerpt = make_wav(seconds=3), Excerpt(max_seconds=1, min_seconds=4)
    with pytest.raises(TooShortError, match=r"too short: 3\.00 s"):
        write_clip(wav, tmp_path / "clip.wav", excerpt)
    assert not (tmp_path / "clip.wav").exists()
    data = bytearray(wav.read_bytes())
    data[4:8] = data[40:44] = bytes(4)
    wav.write_bytes(data)
    with pytest.raises(TooShortError, match=r"too short: 3\.00 s"):
        write_clip(wav, tmp_path / "clip.wav", Excerpt(min_seconds=4))
    assert write_clip(wav, tmp_path / "clip.wav", Excerpt(max_seconds=1, min_seconds=2)).seconds == 1


def test_the_temporary_folder_is_removed_after_an_error(make_wav: MakeWav) -> None:
    folder = None
    with pytest.raises(KeyboardInterrupt), prepared(make_wav()) as clip:  # noqa: PT012
        folder = clip.path.parent
        raise KeyboardInterrupt
    assert folder
    assert not folder.exists()


@pytest.mark.parametrize(
    ("excerpt", "start", "seconds"),
    [
        (Excerpt(), 0, 10),
        (Excerpt(start=4), 4, 6),
        (Excerpt(fraction=0.6), 0, 6),
        (Excerpt(start=4, fraction=0.5), 4, 3),
        (Excerpt(start=4, max_seconds=2), 4, 2),
        (Excerpt(fraction=0.6, max_seconds=2), 0, 2),
    ],
)
def test_an_excerpt_of_a_track(
    make_wav: MakeWav, tmp_path: Path, excerpt: Excerpt, start: float, seconds: float
) -> None:
    whole = write_clip(make_wav("whole.wav", 10), tmp_path / "whole-clip.wav")
    clip = write_clip(tmp_path / "whole.wav", tmp_path / "clip.wav", excerpt)
    assert clip.seconds == pytest.approx(seconds, abs=0.01)
    assert (clip.start, clip.was_cut) == (start, excerpt != Excerpt())
    assert clip.source_seconds == pytest.approx(10, abs=0.01)
    samples, expected = soundfile.read(clip.path)[0], soundfile.read(whole.path)[0]
    np.testing.assert_array_equal(samples, expected[int(start * 16_000) :][: len(samples)])


def test_a_start_beyond_the_end_is_too_short(make_wav: MakeWav, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="too short") as caught:
        write_clip(make_wav(seconds=2), tmp_path / "clip.wav", Excerpt(start=5))
    assert "--start 5" in str(caught.value)


def test_a_clip_too_large_for_the_temporary_disk_is_refused(
    make_wav: MakeWav, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = make_wav(seconds=60)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=18 << 20))
    with pytest.raises(NoRoomError) as caught:
        write_clip(audio, tmp_path / "clip.wav")
    assert caught.value.kind == FailureKind.NO_SPACE
    assert "TMPDIR" in caught.value.hint
    assert write_clip(audio, tmp_path / "clip.wav", Excerpt(max_seconds=20)).seconds == pytest.approx(20, abs=0.1)
