"""Exports of segments: exact lengths, samples without loss, one item a segment, tracks never on both sides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from musicflamingo_cli.audio.segments import Cutting, Span, spans_of
from musicflamingo_cli.cli import app
from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.errors import AudioError, ConfigError, ExitCode
from musicflamingo_cli.exports import ExportOptions
from musicflamingo_cli.exports.cutting import Cutter
from musicflamingo_cli.sidecars.checks import digests_of, segment_descriptions
from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar
from musicflamingo_cli.sidecars.segments import Segment, keys_with
from musicflamingo_cli.system.identity import file_identity
from tests.exports.conftest import read_csv, read_jsonl, read_parquet, run

RATE = 22_050
SEGMENTS = ExportOptions(weights={"full": 1}, columns=["full"], segments=True)
LENGTHS = [3.0, 4.321, 5.5, 2.4]  # seconds of tracks that are cut into pieces of 1 s
NAMES = ["a/first.wav", "a/second.flac", "b c/third v1.2.ogg", "Song/full_mix.flac"]


def write_music(path: Path, seconds: float, rate: int = RATE, channels: int = 2, **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(int(seconds * 1000))
    soundfile.write(path, random.uniform(-0.5, 0.5, (round(seconds * rate), channels)), rate, **more)


def caption_segments(audio: Path, seconds: float, cutting: Cutting, **keys: Any) -> list[Span]:
    """Give a track's segments captions of their own, as a batch does."""
    spans = spans_of(0.0, seconds, cutting)
    sidecar = track_for(audio).sidecar
    for number, span in enumerate(spans):
        text = f"Segment {number} of {audio.stem}: a warm jazz piece at {100 + number} BPM in A minor with piano."
        made = {"full": {"model": "music-flamingo-hf.Q6_K.gguf"}}
        merge_sidecar(sidecar, keys_with(read_sidecar(sidecar), spans, Segment(span, {"full": text}, made), {}))
    merge_sidecar(sidecar, {"music_flamingo_full": "The whole of it.", **keys})
    return spans


@pytest.fixture
def cut_music(tmp_path: Path) -> Path:
    """Four tracks with 16 captioned segments."""
    for name, seconds in zip(NAMES, LENGTHS, strict=True):
        write_music(tmp_path / "music" / name, seconds)
        caption_segments(tmp_path / "music" / name, seconds, Cutting(1, 1))
    return tmp_path / "music"


EXPECTED = {"a/first.wav": 3, "a/second.flac": 4, "b c/third v1.2.ogg": 6, "Song/full_mix.flac": 2}


def test_tables_have_a_row_for_each_segment(cut_music: Path, tmp_path: Path) -> None:
    for name in ("csv", "jsonl", "parquet"):
        stats = run(name, cut_music, tmp_path / f"t.{name}", SEGMENTS)
        assert stats.exported == 15
        run(name, cut_music, tmp_path / f"t.{name}", SEGMENTS, overwrite=True)
    rows = [read_csv(tmp_path / "t.csv"), read_jsonl(tmp_path / "t.jsonl"), read_parquet(tmp_path / "t.parquet")]
    for found in rows:
        assert {name: sum(row["path"] == name for row in found) for name in EXPECTED} == EXPECTED
        assert [float(row["start"]) for row in found if row["path"] == "a/first.wav"] == [0, 1, 2]
        assert [float(row["end"]) for row in found if row["path"] == "b c/third v1.2.ogg"] == [1, 2, 3, 4, 5, 5.5]
        assert all(row["full"] == row["text"] != "The whole of it." for row in found)
    assert all(isinstance(row["start"], float) for found in rows[1:] for row in found)


def test_the_pieces_of_a_track_are_its_samples(cut_music: Path, tmp_path: Path) -> None:
    """Put together they are the track, to the last bit, where its format has no loss."""
    run("txt", cut_music, tmp_path / "out", SEGMENTS)
    for name, number in EXPECTED.items():
        track = cut_music / name
        suffix = ".wav" if track.suffix == ".wav" else ".flac"
        files = [tmp_path / "out" / Path(name).parent / f"{track.stem}-{n:03d}{suffix}" for n in range(number)]
        assert not (tmp_path / "out" / Path(name).parent / f"{track.stem}-{number:03d}{suffix}").exists()
        whole = soundfile.read(track, dtype="int16")[0]
        parts = [soundfile.read(file, dtype="int16")[0] for file in files]
        assert [len(part) for part in parts[:-1]] == [RATE] * (number - 1)
        joined = np.concatenate(parts)
        if track.suffix == ".ogg":
            decoded = np.clip(soundfile.read(track)[0], -1, 1)[: len(joined)]
            assert np.abs(joined / 32768 - decoded).max() < 1.1 / 32768
        else:
            assert np.array_equal(joined, whole[: len(joined)])
        assert all("Segment" in file.with_suffix(".txt").read_text() for file in files)


@pytest.mark.parametrize(
    ("suffix", "subtype", "expected"),
    [
        (".wav", "PCM_16", "PCM_16"),
        (".wav", "PCM_24", "PCM_24"),
        (".wav", "PCM_32", "PCM_32"),
        (".wav", "FLOAT", "FLOAT"),
        (".wav", "DOUBLE", "DOUBLE"),
        (".wav", "PCM_U8", "PCM_U8"),
        (".wav", "ALAW", "PCM_16"),
        (".flac", "PCM_16", "PCM_16"),
        (".flac", "PCM_24", "PCM_24"),
        (".flac", "PCM_S8", "PCM_S8"),
        (".aiff", "PCM_24", "PCM_24"),
        (".mp3", "MPEG_LAYER_III", "PCM_16"),
    ],
)
def test_how_samples_are_kept(suffix: str, subtype: str, expected: str, tmp_path: Path) -> None:
    audio, span = tmp_path / f"a{suffix}", Span(0.5, 1.25)
    write_music(audio, 2.0, 44_100, subtype=subtype)
    target = tmp_path / f"piece{'.wav' if suffix == '.wav' else '.flac'}"
    with Cutter() as cutter:
        cutter.cut(audio, span, target)
        measured = cutter.measure(audio, span)
    found = soundfile.info(target)
    assert (found.frames, found.samplerate, found.channels, found.subtype) == (33_075, 44_100, 2, expected)
    assert (measured.seconds, measured.rate) == (0.75, 44_100)
    if suffix != ".mp3" and subtype != "ALAW":
        with soundfile.SoundFile(audio) as file:
            file.seek(22_050)
            whole = file.read(33_075, dtype="float64")
        assert np.array_equal(soundfile.read(target, dtype="float64")[0], whole)


def test_a_segment_that_cannot_be_cut_leaves_no_file(tmp_path: Path) -> None:
    audio, target = tmp_path / "a.flac", tmp_path / "out" / "piece.flac"
    write_music(audio, 20.0, 44_100)
    data = bytearray(audio.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20_000] = bytes(20_000)
    audio.write_bytes(data)
    with Cutter() as cutter, pytest.raises(AudioError):
        cutter.cut(audio, Span(0.0, 20.0), target)
    assert not target.exists()


def test_webdataset_and_audiofolder(cut_music: Path, tmp_path: Path) -> None:
    import webdataset

    run("webdataset", cut_music, tmp_path / "wds", SEGMENTS, shard_size=6)
    shards = sorted(map(str, (tmp_path / "wds").glob("*.tar")))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
    assert (len(shards), len(samples)) == (3, 15)
    for sample in samples:
        about = sample["json"]
        (tmp_path / "piece").write_bytes(sample["wav" if about["path"].endswith(".wav") else "flac"])
        assert soundfile.info(tmp_path / "piece").duration == about["seconds_total"]
        assert about["end"] - about["start"] == pytest.approx(about["seconds_total"], abs=1 / RATE)
        assert about["text"].startswith("Segment ")
    run("audiofolder", cut_music, tmp_path / "folder", SEGMENTS)
    rows: list[dict[str, Any]] = list(read_jsonl(tmp_path / "folder" / "metadata.jsonl"))
    lengths = [soundfile.info(tmp_path / "folder" / row["file_name"]).frames for row in rows]
    assert lengths == [round((row["end"] - row["start"]) * RATE) for row in rows]


def test_a_track_is_on_one_side_of_a_split(tmp_path: Path) -> None:
    for number in range(30):
        audio = tmp_path / "music" / f"{number}.wav"
        write_music(audio, 0.5)
        caption_segments(audio, 4.0, Cutting(1, 1))
    options = replace(SEGMENTS, validation=0.3)
    run("csv", tmp_path / "music", tmp_path / "t.csv", options)
    rows = read_csv(tmp_path / "t.csv")
    sides = {(row["path"], row["split"]) for row in rows}
    assert len(rows) == 120
    assert len(sides) == 30
    assert {side for _, side in sides} == {"train", "validation"}
    run("csv", tmp_path / "music", tmp_path / "whole.csv", replace(options, segments=False))
    assert {(row["path"], row["split"]) for row in read_csv(tmp_path / "whole.csv")} == sides


def test_facts_are_those_of_the_segment(tmp_path: Path) -> None:
    audio = tmp_path / "music" / "a.wav"
    write_music(audio, 4.0)
    measured = {"version": 1, "seconds": 4.0, "silence": 0.0, "tempo": {"bpm": 77.0, "confidence": 0.9}}
    caption_segments(audio, 4.0, Cutting(2, 2), music_flamingo_measured=measured, music_flamingo_lyrics="La la.")
    sidecar = audio.with_suffix(".INFO")
    sidecar.write_text(json.dumps({"title": "T", "lyrics": "La la la.", **read_sidecar(sidecar)}))
    run("ace-step", tmp_path / "music", tmp_path / "out", SEGMENTS)
    about = [json.loads((tmp_path / "out" / f"a-00{n}.json").read_text()) for n in (0, 1)]
    assert [each["bpm"] for each in about] == [100, 101]
    assert not list((tmp_path / "out").glob("*lyrics*"))


def test_what_is_left_out(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        write_music(tmp_path / "music" / f"{name}.wav", 3.0)
    caption_segments(tmp_path / "music" / "a.wav", 3.0, Cutting(1, 1), music_flamingo_excluded=True)
    merge_sidecar(tmp_path / "music" / "b.INFO", {"music_flamingo_full": "The whole of it."})
    spans = caption_segments(tmp_path / "music" / "c.wav", 3.0, Cutting(1, 1))
    info = read_sidecar(tmp_path / "music" / "c.INFO")
    merge_sidecar(tmp_path / "music" / "c.INFO", keys_with(info, spans, Segment(spans[0], is_silent=True), {}))
    tiny = Segment(spans[1], {"full": "Tiny."}, {"full": {"toy": True}})
    info = read_sidecar(tmp_path / "music" / "c.INFO")
    merge_sidecar(tmp_path / "music" / "c.INFO", keys_with(info, spans, tiny, {}))
    caption_segments(tmp_path / "music" / "d.wav", 5.0, Cutting(1, 1))  # of a longer file that was there before
    stats = run("txt", tmp_path / "music", tmp_path / "out", SEGMENTS)
    assert stats.left_out == {
        "excluded in the review": 1,
        "no segments (make them with batch --segments)": 1,
        "silent segment": 1,
        "captions of the tiny model only": 1,
    }
    assert (stats.exported, stats.failures) == (4, 2)


def test_segments_of_an_earlier_file_are_left_out(tmp_path: Path) -> None:
    audio = tmp_path / "music" / "a.wav"
    write_music(audio, 3.0)
    caption_segments(audio, 3.0, Cutting(1, 1))
    whole = {"full": {"audio": file_identity(audio)}, "segments": {"audio": file_identity(audio)}}
    merge_sidecar(audio.with_suffix(".INFO"), {"music_flamingo_provenance": whole})
    assert run("txt", tmp_path / "music", tmp_path / "out", SEGMENTS).exported == 3
    write_music(audio, 3.5)
    write_music(tmp_path / "music" / "b.wav", 3.0)
    caption_segments(tmp_path / "music" / "b.wav", 3.0, Cutting(1, 1))
    stats = run("txt", tmp_path / "music", tmp_path / "later", SEGMENTS)
    reason = "segments of an earlier audio file (cut it again with batch --segments --stale)"
    assert (stats.exported, stats.left_out) == (3, {reason: 1})
    stats = run("jsonl", tmp_path / "music", tmp_path / "whole.jsonl", replace(SEGMENTS, segments=False))
    remark = "have captions of an earlier audio file (make them again with batch --stale)"
    assert (stats.exported, stats.remarks) == (2, {remark: 1})


def test_a_summary_is_exported_while_it_is_current(cut_music: Path, tmp_path: Path) -> None:
    sidecar = cut_music / "a" / "first.INFO"
    made = {"made_from": digests_of(segment_descriptions(read_sidecar(sidecar), of_tiny_model=False))}
    merge_sidecar(sidecar, {"music_flamingo_summary": "Jazz.", "music_flamingo_provenance": {"summary": made}})
    options = ExportOptions(weights={"summary": 1}, columns=["summary"])
    assert run("csv", cut_music, tmp_path / "t.csv", options).exported == 1
    info = read_sidecar(sidecar)
    changed = Segment(Span(0, 1), {"full": "Techno."}, {})
    merge_sidecar(sidecar, keys_with(info, [Span(0, 1), Span(1, 2), Span(2, 3)], changed, {}))
    with pytest.raises(ConfigError, match="outdated summary"):
        run("csv", cut_music, tmp_path / "t2.csv", options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("stable-audio",), "stable-audio takes whole tracks"),
        (("txt", "--audio", "link"), "--audio is about whole tracks"),
        (("txt", "--min-trust", "0"), "--min-trust is about whole tracks"),
        (("csv", "--approved"), "--approved is about whole tracks"),
    ],
)
def test_what_does_not_go_with_segments(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", words[0], str(tmp_path), str(tmp_path / "x"), "--segments", *words[1:]])
    assert (done.exit_code, message in done.output) == (ExitCode.USAGE, True), done.output
