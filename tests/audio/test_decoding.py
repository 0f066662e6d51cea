"""Decoding: damaged and truncated files, files written to a pipe, memory."""

from __future__ import annotations

import functools
import io
import os
import re
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musicflamingo_cli.audio import decoding
from musicflamingo_cli.audio.chained import Streams, streams_in
from musicflamingo_cli.audio.clip import measure, write_clip
from musicflamingo_cli.errors import AudioError
from musicflamingo_cli.types import Excerpt
from tests.conftest import MakeWav, tone


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


def damaged_flac(path: Path) -> None:
    """Write a FLAC file and cut it."""
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
def test_a_bad_file_is_an_error_of_one_line(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    BAD_FILES[name](tmp_path / name)
    with pytest.raises(AudioError) as caught:
        write_clip(tmp_path / name, tmp_path / "clip.wav")
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert capfd.readouterr() == ("", "")  # the decoders print nothing to the terminal


def write_noise(path: Path) -> None:
    """Write 20 s of noise, which no codec compresses well: half of the bytes are half of the audio."""
    noise = np.random.RandomState(0).uniform(-0.3, 0.3, (20 * 48_000, 2)).astype(np.float32)
    codec = {".m4a": "aac", ".mka": "libopus", ".webm": "libopus", ".mp3": "libmp3lame"}.get(path.suffix)
    if codec is None:
        soundfile.write(path, noise, 48_000)
    elif codec == "aac":  # the index before the audio, as in files for the web
        encode(path, codec, noise, 48_000, movflags="faststart")
    else:
        encode(path, codec, noise, 48_000)


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.au", "a.flac", "a.mp3", "a.m4a", "a.mka", "a.webm"])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str) -> None:
    """Its caption would pass for that of the whole track, and some decoders report no error."""
    write_noise(tmp_path / name)
    assert write_clip(tmp_path / name, tmp_path / "clip.wav").seconds == pytest.approx(20, abs=0.1)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * 0.99)])  # an inexact header is tolerated
    assert write_clip(tmp_path / name, tmp_path / "clip.wav").seconds > 19.5
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match="is damaged: the audio ends after"):
        write_clip(tmp_path / name, tmp_path / "clip.wav")


@pytest.mark.parametrize("name", ["a.ogg", "a.opus"])
def test_half_a_download_of_ogg_is_refused(tmp_path: Path, name: str) -> None:
    """Its header says nothing of the length; its last page does."""
    audio = tmp_path / name
    noise = np.random.RandomState(0).uniform(-0.3, 0.3, (20 * 48_000, 2)).astype(np.float32)
    if name == "a.ogg":
        soundfile.write(audio, noise, 48_000)
    else:
        encode(audio, "libopus", noise, 48_000)
    assert write_clip(audio, tmp_path / "clip.wav").seconds == pytest.approx(20, abs=0.1)
    data = audio.read_bytes()
    audio.write_bytes(data + b"a comment of some program")
    assert write_clip(audio, tmp_path / "clip.wav").seconds == pytest.approx(20, abs=0.1)
    audio.write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match="is truncated"):
        write_clip(audio, tmp_path / "clip.wav")
    pages = [match.start() for match in re.finditer(b"OggS", data)]
    headers, third = data[: pages[2]], len(pages) // 3  # a broadcast, recorded from its middle on and stopped
    audio.write_bytes(headers + data[pages[third] : pages[2 * third] + 99])
    assert write_clip(audio, tmp_path / "clip.wav").seconds < 15
    audio.write_bytes(data[: pages[len(pages) // 2]])  # a recorded broadcast, which ends with any page
    assert write_clip(audio, tmp_path / "clip.wav").seconds < 15


def ogg_checksum(page: bytearray) -> int:
    """The CRC-32 of an Ogg page, whose own four bytes are zero: neither reflected nor inverted."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ 0x04C11DB7 if value & 0x80000000 else value << 1) & 0xFFFFFFFF
    return value


def announce_more(ogg: Path, samples: int) -> None:
    """Raise the length in the last page of an Ogg file."""
    data = ogg.read_bytes()
    start = data.rindex(b"OggS")
    page = bytearray(data[start:])
    page[6:14] = (int.from_bytes(page[6:14], "little") + samples).to_bytes(8, "little")
    page[22:26] = bytes(4)
    page[22:26] = ogg_checksum(page).to_bytes(4, "little")
    ogg.write_bytes(data[:start] + page)


@pytest.mark.parametrize("missing", [0.13, 0.4, 3.0])
def test_an_ogg_that_announces_too_much_is_decoded(tmp_path: Path, missing: float) -> None:
    """libsndfile takes the length from the last page and delivers less; FFmpeg's libraries decode all there is."""
    ogg = tmp_path / "a.ogg"
    soundfile.write(ogg, tone(8, 440, 48_000, 2), 48_000)
    announce_more(ogg, int(missing * 48_000))
    assert soundfile.info(ogg).duration == pytest.approx(8 + missing, abs=0.01)
    if missing < 0.5:
        assert write_clip(ogg, tmp_path / "clip.wav").seconds == pytest.approx(8, abs=0.03)  # whole Vorbis blocks
    else:
        with pytest.raises(AudioError, match=r"is damaged: the audio ends after 8\.0 s"):
            write_clip(ogg, tmp_path / "clip.wav")


def test_where_one_decoder_stops_short_the_other_decides(tmp_path: Path) -> None:
    """libsndfile gives up at bytes that are not FLAC; FFmpeg's decoder continues after them."""
    noise = np.random.RandomState(0).uniform(-0.3, 0.3, (8 * 48_000, 2))
    flac = tmp_path / "a.flac"
    soundfile.write(flac, noise, 48_000)
    data = flac.read_bytes()
    half = len(data) // 2
    flac.write_bytes(data[:half] + bytes(20_000) + data[half:])
    assert write_clip(flac, tmp_path / "clip.wav").seconds == pytest.approx(8, abs=0.2)
    flac.write_bytes(data[:half] + data[half + len(data) // 8 :])  # a second is gone
    with pytest.raises(AudioError, match="is damaged"):
        write_clip(flac, tmp_path / "clip.wav")


CHAINED: dict[str, dict[str, str]] = {"a.ogg": {}, "a.flac": {}, "a.opus": {"format": "OGG", "subtype": "OPUS"}}


def write_chain(audio: Path, rate: int = 48_000) -> None:
    """Write 8 s at 440 Hz, followed by a second stream of 6 s at 880 Hz and ``rate``."""
    data = b""
    for seconds, hertz, own_rate in ((8, 440, 48_000), (6, 880, rate)):
        soundfile.write(audio, tone(seconds, hertz, own_rate, 2), own_rate, **CHAINED[audio.name])
        data += audio.read_bytes()
    audio.write_bytes(data)


@pytest.mark.parametrize("name", CHAINED)
def test_all_of_a_chained_stream_is_heard(tmp_path: Path, name: str) -> None:
    write_chain(tmp_path / name)
    clip = write_clip(tmp_path / name, tmp_path / "clip.wav")
    assert clip.seconds == pytest.approx(14, abs=0.05)
    end = soundfile.read(clip.path)[0][-64_000:]
    spectrum = np.abs(np.fft.rfft(end * np.hanning(len(end))))
    assert np.fft.rfftfreq(len(end), 1 / 16_000)[spectrum.argmax()] == pytest.approx(880, abs=2)
    if name != "a.flac":  # of a FLAC only the header is read
        assert measure(tmp_path / name).seconds == pytest.approx(14, abs=0.05)


@pytest.mark.parametrize("name", CHAINED)
def test_a_chain_behind_a_tag_is_heard(tmp_path: Path, name: str) -> None:
    write_chain(tmp_path / name)
    tag = b"ID3\4\0\0\0\0\2\0" + bytes(256)
    (tmp_path / name).write_bytes(tag + (tmp_path / name).read_bytes())
    assert write_clip(tmp_path / name, tmp_path / "clip.wav").seconds == pytest.approx(14, abs=0.05)
    if name != "a.flac":  # of a FLAC only the header is read
        assert measure(tmp_path / name).seconds == pytest.approx(14, abs=0.05)


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "odd.wav", "a.m4a"])
def test_a_second_file_behind_the_first_is_reported(tmp_path: Path, name: str) -> None:
    """Decoders stop where the first file ends by its header; its caption would pass for that of both."""
    audio = tmp_path / name
    if name == "a.m4a":
        encode(audio, "aac", tone(4, 440, 48_000, 2), 48_000)
    else:
        samples = tone(1, 440)[:8001]
        soundfile.write(audio, samples, 16_000, subtype="PCM_U8" if name == "odd.wav" else "PCM_16")
    one = audio.read_bytes()
    audio.write_bytes(one + b"TAG" + bytes(125))
    assert write_clip(audio, tmp_path / "clip.wav").seconds > 0.4
    audio.write_bytes(one + one)
    for use in (lambda: write_clip(audio, tmp_path / "clip.wav"), lambda: measure(audio)):
        with pytest.raises(AudioError, match="holds a second file behind its first one"):
            use()


@pytest.mark.parametrize("size", [2**40, 2**63 - 1, 2**64 - 1], ids=str)
def test_a_box_that_ends_beyond_any_file_is_no_second_file(tmp_path: Path, size: int) -> None:
    encode(tmp_path / "a.m4a", "aac", tone(4, 440, 48_000, 2), 48_000)
    with (tmp_path / "a.m4a").open("ab") as file:
        file.write(b"\0\0\0\1free" + size.to_bytes(8, "big"))
    assert not streams_in(tmp_path / "a.m4a").is_chained


def test_fragments_of_a_stream_are_no_second_file(tmp_path: Path) -> None:
    encode(
        tmp_path / "a.mp4", "aac", tone(8, 440, 48_000, 2), 48_000, movflags="frag_keyframe+empty_moov+frag_every_frame"
    )
    assert write_clip(tmp_path / "a.mp4", tmp_path / "clip.wav").seconds == pytest.approx(8, abs=0.1)


def test_a_chain_of_two_formats_is_heard_or_refused(tmp_path: Path) -> None:
    write_chain(tmp_path / "a.flac", rate=24_000)
    assert write_clip(tmp_path / "a.flac", tmp_path / "clip.wav").seconds == pytest.approx(14, abs=0.05)
    write_chain(tmp_path / "a.ogg", rate=24_000)
    with pytest.raises(AudioError, match=r"streams of different formats: only the first 8\.0 s can be decoded"):
        write_clip(tmp_path / "a.ogg", tmp_path / "clip.wav")


@pytest.mark.parametrize("name", CHAINED)
def test_bytes_inside_an_ogg_are_skipped_or_refused(tmp_path: Path, name: str) -> None:
    """Bytes between pages or frames cost under half a second; where audio is lost, the file is refused."""
    audio = tmp_path / name
    soundfile.write(audio, tone(8, 440, 48_000, 2), 48_000, **CHAINED[name])
    data = audio.read_bytes()
    half = len(data) // 2
    for middle in (bytes(20_000), np.random.RandomState(0).bytes(20_000)):
        audio.write_bytes(data[:half] + middle + data[half:])
        assert write_clip(audio, tmp_path / "clip.wav").seconds > 7.5
    audio.write_bytes(data[:half] + bytes(20_000) + data[half + len(data) // 8 :])
    with pytest.raises(AudioError, match="is damaged"):
        write_clip(audio, tmp_path / "clip.wav")


@pytest.mark.parametrize(
    ("first", "after", "is_refused"), [(4, 5, False), (4, 8, True), (-6, -1, True), (6, 6, False)], ids=str
)
def test_lost_pages_of_ogg_are_damage(tmp_path: Path, first: int, after: int, is_refused: bool) -> None:
    """Each page is about a second here: one is tolerated; libsndfile and FFmpeg continue after several, silently."""
    audio = tmp_path / "a.ogg"
    soundfile.write(audio, 0.3 * np.random.RandomState(0).uniform(-1, 1, 16_000 * 20), 16_000)
    data = audio.read_bytes()
    pages = [match.start() for match in re.finditer(b"OggS", data)]
    audio.write_bytes(data[: pages[first]] + data[pages[after] :])
    if is_refused:
        with pytest.raises(AudioError, match=r"is damaged: about \d+ % of it is lost"):
            write_clip(audio, tmp_path / "clip.wav")
    else:
        assert write_clip(audio, tmp_path / "clip.wav").seconds > 18.5


def test_pages_without_a_position_are_not_lost(tmp_path: Path) -> None:
    """Where a packet is longer than a page, as in FLAC of many channels, only its last page has a position."""
    audio = tmp_path / "a.oga"
    random = np.random.RandomState(0)
    with av.open(str(audio), "w") as container:
        stream = container.add_stream("flac", rate=48_000, layout="7.1")
        assert isinstance(stream, av.AudioStream)
        stream.format = av.AudioFormat("s32")
        for number in range(20):
            noise = random.randint(-(2**31), 2**31, (1, 4608 * 8), np.int32)
            frame = av.AudioFrame.from_ndarray(noise, format="s32", layout="7.1")
            frame.sample_rate, frame.pts = 48_000, number * 4608
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert b"\xff" * 8 in audio.read_bytes()
    assert streams_in(audio) == Streams(is_chained=False, lost=0.0)


@pytest.mark.parametrize(("first", "second"), [(48_000, 24_000), (24_000, 48_000), (44_100, 48_000)])
def test_a_change_of_the_sample_rate_is_followed(tmp_path: Path, first: int, second: int) -> None:
    """Joined MP3s: what follows the change must keep its pitch and its length."""
    for name, rate in (("a.mp3", first), ("b.mp3", second)):
        encode(tmp_path / name, "libmp3lame", tone(4, 440, rate, 2), rate, write_xing="0", id3v2_version="0")
    (tmp_path / "both.mp3").write_bytes((tmp_path / "a.mp3").read_bytes() + (tmp_path / "b.mp3").read_bytes())
    clip = write_clip(tmp_path / "both.mp3", tmp_path / "clip.wav")
    assert clip.seconds == pytest.approx(8, abs=0.2)
    samples, _ = soundfile.read(clip.path)
    for part in (samples[8_000:56_000], samples[-56_000:-8_000]):
        spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part))))
        assert np.fft.rfftfreq(len(part), 1 / 16_000)[spectrum.argmax()] == pytest.approx(440, abs=2)


def test_a_change_of_the_channels_is_followed(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.mp3", tone(4, 440, 48_000, 2), 48_000)
    soundfile.write(tmp_path / "b.mp3", tone(4, 440, 48_000, 1), 48_000)
    (tmp_path / "both.mp3").write_bytes((tmp_path / "a.mp3").read_bytes() + (tmp_path / "b.mp3").read_bytes())
    clip = write_clip(tmp_path / "both.mp3", tmp_path / "clip.wav")
    assert clip.seconds == pytest.approx(8, abs=0.2)


def estimated_seconds(audio: Path) -> float:
    """The length that FFmpeg gives, which may be an estimate from a bit rate."""
    with av.open(str(audio)) as container:
        return (container.duration or 0) / av.time_base


def write_without_length(audio: Path) -> None:
    """Write 10 s of silence and 60 s of noise in a format without a length; the silence misleads the estimate."""
    noise = np.random.RandomState(0).uniform(-0.3, 0.3, (60 * 48_000, 2))
    samples = np.concatenate([np.zeros((10 * 48_000, 2)), noise])
    if audio.suffix == ".aac":
        encode(audio, "aac", samples, 48_000)
        return
    for name, part, bits in (("a.mp3", samples[:480_000], 32_000), ("b.mp3", samples[480_000:], 320_000)):
        encode(audio.with_name(name), "libmp3lame", part, 48_000, bits, write_xing="0", id3v2_version="0")
    audio.write_bytes(audio.with_name("a.mp3").read_bytes() + audio.with_name("b.mp3").read_bytes())


@pytest.mark.parametrize("name", ["c.aac", "c.mp3"])
def test_an_estimated_length_is_not_taken_for_the_length(tmp_path: Path, name: str) -> None:
    write_without_length(tmp_path / name)
    assert estimated_seconds(tmp_path / name) > 300
    assert measure(tmp_path / name).seconds == pytest.approx(70, abs=0.3)
    half = write_clip(tmp_path / name, tmp_path / "clip.wav", Excerpt(fraction=0.5))
    assert half.seconds == pytest.approx(35, abs=0.3)
    assert half.source_seconds == pytest.approx(70, abs=0.3)
    short = write_clip(tmp_path / name, tmp_path / "clip.wav", Excerpt(fraction=0.5, max_seconds=40))
    assert short.seconds == pytest.approx(35, abs=0.3)
    start = write_clip(tmp_path / name, tmp_path / "clip.wav", Excerpt(max_seconds=40))
    assert (start.was_cut, start.source_seconds) == (True, None)  # not worth decoding all of it


@pytest.mark.parametrize("name", ["a.mp3", "a.m4a", "a.mka", "a.wma", "a.opus"])
def test_a_length_in_the_header_needs_no_decoding(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = {".mp3": "libmp3lame", ".m4a": "aac", ".wma": "wmav2"}.get(Path(name).suffix, "libopus")
    encode(tmp_path / name, codec, tone(5, 440, 48_000, 2), 48_000)
    monkeypatch.setattr(decoding, "_ffmpeg_blocks", lambda *_: iter(()))
    assert measure(tmp_path / name).seconds == pytest.approx(5, abs=0.15)


def test_an_mp3_without_a_length_is_decoded(tmp_path: Path) -> None:
    """FFmpeg estimates its length from the bit rate of its first frames, which must not count as declared."""
    loud = np.random.RandomState(0).uniform(-0.3, 0.3, (10 * 48_000, 2))
    for name, samples, rate in (("low.mp3", tone(1, 440, 48_000, 2), 32_000), ("high.mp3", loud, 320_000)):
        encode(tmp_path / name, "libmp3lame", samples, 48_000, rate, write_xing="0", id3v2_version="0")
    both = tmp_path / "both.mp3"
    both.write_bytes((tmp_path / "low.mp3").read_bytes() + (tmp_path / "high.mp3").read_bytes())
    assert estimated_seconds(both) > 30
    assert measure(both).seconds == pytest.approx(11, abs=0.2)
    assert write_clip(both, tmp_path / "clip.wav").seconds == pytest.approx(11, abs=0.2)


def test_an_mp3_with_data_behind_its_frames_is_decoded(tmp_path: Path) -> None:
    """FFmpeg then estimates the length from the bit rate; a cover at the end must not count as truncation."""
    write_noise(tmp_path / "a.mp3")
    data = (tmp_path / "a.mp3").read_bytes()
    for name, more in (("cover.mp3", b"APETAGEX" + bytes(len(data) // 4)), ("twice.mp3", data)):
        (tmp_path / name).write_bytes(data + more)
        assert estimated_seconds(tmp_path / name) > 24
        heard = write_clip(tmp_path / name, tmp_path / "clip.wav").seconds
        assert heard == pytest.approx(20 if name == "cover.mp3" else 40, abs=0.2)
        assert measure(tmp_path / name).seconds == pytest.approx(heard, abs=0.1)


def test_a_matroska_file_without_a_length_is_decoded(tmp_path: Path) -> None:
    """FFmpeg estimates one from the bit rate of its first frames, which are silence here."""
    noise = np.random.RandomState(0).uniform(-0.3, 0.3, (2, 9 * 48_000)).astype(np.float32)
    with av.open(str(tmp_path / "piped.mka"), "w", options={"live": "1"}) as container:
        stream = container.add_stream("libmp3lame", rate=48_000, layout="stereo")
        assert isinstance(stream, av.AudioStream)
        stream.codec_context.flags |= av.codec.context.Flags.qscale  # a variable bit rate
        stream.codec_context.global_quality = 0
        resampler = av.AudioResampler(format=stream.format, layout="stereo", rate=48_000)
        samples = np.concatenate([np.zeros((2, 48_000), np.float32), noise], axis=1)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        frame.sample_rate = 48_000
        for piece in [*resampler.resample(frame), None]:
            container.mux(stream.encode(piece))
    assert estimated_seconds(tmp_path / "piped.mka") > 50
    assert measure(tmp_path / "piped.mka").seconds == pytest.approx(10, abs=0.2)
    assert write_clip(tmp_path / "piped.mka", tmp_path / "clip.wav").seconds == pytest.approx(10, abs=0.2)


@pytest.mark.parametrize("size", [0, 0x7F000000, 0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_wav_written_to_a_pipe_is_decoded_completely(make_wav: MakeWav, tmp_path: Path, size: int) -> None:
    wav = make_wav("stream.wav", 3)
    data = bytearray(wav.read_bytes())
    data[4:8] = data[40:44] = size.to_bytes(4, "little")
    wav.write_bytes(data)
    assert write_clip(wav, tmp_path / "clip.wav").seconds == pytest.approx(3, abs=0.01)


def test_a_flac_written_to_a_pipe_is_decoded_completely(tmp_path: Path) -> None:
    flac = tmp_path / "stream.flac"
    soundfile.write(flac, tone(3), 16_000)
    data = bytearray(flac.read_bytes())
    data[21] &= 0xF0  # STREAMINFO's 36 bits of total samples
    data[22:26] = bytes(4)
    flac.write_bytes(data)
    assert write_clip(flac, tmp_path / "clip.wav").seconds == pytest.approx(3, abs=0.01)


def test_memory_does_not_grow_with_the_track(
    make_wav: MakeWav, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder reads blocks, never the whole file."""
    largest = 0
    read = soundfile.SoundFile.read

    def counted(self: soundfile.SoundFile, frames: int = -1, *args: object, **more: object) -> np.ndarray:
        nonlocal largest
        result: np.ndarray = read(self, frames, *args, **more)
        largest = max(largest, len(result))
        return result

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    write_clip(make_wav(seconds=60), tmp_path / "clip.wav")
    assert 0 < largest <= decoding.BLOCK_FRAMES


@pytest.mark.parametrize("rate", [1, 100, 999, 2_000_000, 2**31 - 1])
def test_an_absurd_sample_rate_is_refused(make_wav: MakeWav, tmp_path: Path, rate: int) -> None:
    """50 kB at 1 Hz would become 7 hours at 16 kHz, and take 4 GB."""
    wav = make_wav(seconds=1)
    data = bytearray(wav.read_bytes())
    data[24:28] = rate.to_bytes(4, "little")
    wav.write_bytes(data)
    for use in (lambda: write_clip(wav, tmp_path / "clip.wav"), lambda: measure(wav)):
        with pytest.raises(AudioError, match=f"has a sample rate of {rate} Hz"):
            use()


@pytest.mark.parametrize("rate", [1, 999, 2_000_000])
def test_an_absurd_sample_rate_is_refused_by_ffmpeg(tmp_path: Path, rate: int) -> None:
    audio = tmp_path / "a.mka"
    with av.open(str(audio), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 5000), np.int16), format="s16", layout="mono")
        frame.sample_rate = rate
        for piece in (frame, None):
            container.mux(stream.encode(piece))
    for use in (lambda: write_clip(audio, tmp_path / "clip.wav"), lambda: measure(audio)):
        with pytest.raises(AudioError, match=f"has a sample rate of {rate} Hz"):
            use()


@pytest.mark.parametrize("rate", [1000, 768_000])
def test_the_lowest_and_highest_real_rates_are_decoded(make_wav: MakeWav, tmp_path: Path, rate: int) -> None:
    assert write_clip(make_wav(seconds=2, hertz=200, rate=rate), tmp_path / "clip.wav").seconds == pytest.approx(2)


def test_blocks_are_bounded_whatever_the_channels_and_rate(tmp_path: Path) -> None:
    """A block has as many bytes with 200 channels as with two, and as many at 16 kHz as at the lowest rate."""
    soundfile.write(tmp_path / "wide.wav", np.zeros((40_000, 200), np.int16), 1000)
    with decoding.open_source(tmp_path / "wide.wav") as source:
        largest = max(block.nbytes for block in source.blocks)
    assert largest <= decoding.BLOCK_FRAMES * 2 * 4


@functools.cache
def specimen(extension: str) -> bytes:
    """One second of sound in a container that libsndfile writes."""
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(1, 440), 16_000, format=extension.upper())
    return buffer.getvalue()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["wav", "flac", "ogg", "mp3", "aiff"]),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=12),
    st.integers(0, 100),
)
def test_a_mutated_file_is_decoded_or_refused_in_one_line(
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
