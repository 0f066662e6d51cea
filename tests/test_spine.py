"""The main job on real input: real files of every kind, the real binary, real sidecars. Nothing here is a double."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mutagen
import numpy as np
import pytest
import soundfile

from musicflamingo_cli.config import Settings
from tests.audio.test_decoding import damaged_flac, encode
from tests.conftest import start_batch, tone

pytestmark = [pytest.mark.real, pytest.mark.slow]

PRESETS = ["full", "technical"]
ASK = [part for preset in PRESETS for part in ("--preset", preset)]
LONG_NAME = "n" * 196 + ".wav"  # 200 bytes
FOREIGN: dict[str, Any] = {f"feature_{i}": i / 7 for i in range(97)} | {
    "not_a_number": math.nan,
    "infinite": -math.inf,
    "nested": {"labels": ["drums", "bass"], "deep": {"é": None}},
}


def make_good_tracks(root: Path) -> dict[str, str]:
    """Write the tracks that must be captioned; maps each to its sidecar."""
    soundfile.write(root / "hires.wav", tone(3, 300, 96_000, 2), 96_000, subtype="PCM_24")
    soundfile.write(root / "phone.wav", tone(3, 400, 8_000), 8_000)
    soundfile.write(root / "vbr.mp3", tone(3, 500, 44_100, 2), 44_100, bitrate_mode="VARIABLE")
    tags = mutagen.File(root / "vbr.mp3", easy=True)
    tags.add_tags()
    tags.update(title="Blue", artist="Nina", genre="Jazz", date="1964")
    tags.save()
    soundfile.write(root / "vorbis.ogg", tone(3, 600, 44_100, 2), 44_100)
    soundfile.write(root / "voice.opus", tone(3, 700, 48_000, 2), 48_000, format="OGG", subtype="OPUS")
    encode(root / "phone call.m4a", "aac", tone(3, 800, 44_100, 2), 44_100)
    soundfile.write(root / "old.aiff", tone(3, 900, 44_100, 2), 44_100)
    soundfile.write(root / "long.flac", tone(22 * 60, 440, 8_000), 8_000)
    soundfile.write(root / "thirty.wav", tone(30.0), 16_000)
    for name in ("Artist, Title.flac", 'it\'s "quoted".wav', "🎵 émoji.wav", "-dash.wav", LONG_NAME):
        soundfile.write(root / name, tone(1, 350 + 10 * len(name)), 16_000)
    song = root / "Song One"
    song.mkdir()
    for name in ("full_mix", "drums", "vocals"):
        soundfile.write(song / f"{name}.flac", tone(2, 450), 16_000)
    soundfile.write(root / "rich.wav", tone(2, 550), 16_000)
    (root / "rich.INFO").write_text(json.dumps(FOREIGN, indent=2, ensure_ascii=False))
    tracks = [path for path in root.iterdir() if path.is_file() and path.suffix != ".INFO"]
    return {path.name: f"{path.stem}.INFO" for path in tracks} | {"Song One/full_mix.flac": "Song One/Song One.INFO"}


def make_bad_tracks(root: Path) -> dict[str, str]:
    """Write the tracks that must fail; maps each to the reason that must be told."""
    (root / "zero.wav").touch()
    (root / "text.mp3").write_text("this is a text\n" * 400)
    damaged_flac(root / "truncated.flac")
    soundfile.write(root / "silent.wav", np.zeros(32_000), 16_000)
    (root / "loop.wav").symlink_to(root / "loop.wav")
    soundfile.write(root / "broken.wav", tone(2), 16_000)
    (root / "broken.INFO").write_text('{"bpm": 120,')
    reasons = {
        "zero.wav": "is an empty file",
        "text.mp3": "is not audio",
        "truncated.flac": "is damaged",
        "silent.wav": "no sound in",
        "loop.wav": "cannot read",
        "broken.wav": "not valid JSON",
    }
    if os.geteuid() != 0:  # root reads everything
        soundfile.write(root / "closed.wav", tone(2), 16_000)
        (root / "closed.wav").chmod(0)
        reasons["closed.wav"] = "Permission denied"
    return reasons


@dataclass(frozen=True)
class Run:
    root: Path
    good: dict[str, str]
    bad: dict[str, str]
    code: int
    tracks: dict[str, dict[str, Any]]
    stderr: str
    options: list[str]
    engine: str

    def info(self, track: str) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.root / self.good[track]).read_text(encoding="utf-8"))
        return data


def batch(root: Path, options: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "musicflamingo_cli", "batch", root.name, "--json", *options]
    return subprocess.run(command, cwd=root.parent, capture_output=True, text=True, timeout=500)


@pytest.fixture(scope="module", params=["mtmd-cli", "server"])
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, real_llama_dir: Path, random_models: Path
) -> Run:
    """One batch over the whole tree with each engine, in a temporary folder of its own."""
    root = tmp_path_factory.mktemp("work") / "music, of mine"
    root.mkdir()
    good = make_good_tracks(root)
    bad = make_bad_tracks(root)
    options = [
        "--model",
        "F32",
        "--models-dir",
        str(random_models),
        "--llama-dir",
        str(real_llama_dir),
        "--threads",
        "1",
    ]
    options += ["--engine", request.param]
    options += ASK
    scratch = tmp_path_factory.mktemp("scratch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(scratch))
        done = batch(root, options)
    assert list(scratch.iterdir()) == [], "temporary files are left"
    told = [json.loads(line) for line in done.stdout.splitlines()]
    tracks = {os.path.relpath(item["track"], root.name): item for item in told}
    return Run(root, good, bad, done.returncode, tracks, done.stderr, options, request.param)


def test_it_ends_with_exit_code_1_because_some_failed(run: Run) -> None:
    assert run.code == 1, run.stderr
    assert set(run.tracks) == set(run.good) | set(run.bad)
    assert f"{len(run.good)} captioned, 0 already complete, {len(run.bad)} failed" in run.stderr


def test_every_good_track_is_captioned_on_disk(run: Run) -> None:
    for track in run.good:
        info = run.info(track)
        for preset in PRESETS:
            assert len(info[f"music_flamingo_{preset}"].split()) >= 3, track
            assert info["music_flamingo_provenance"][preset]["toy"] is True
        assert run.tracks[track]["failures"] == []
        assert run.tracks[track]["captions"] == {preset: info[f"music_flamingo_{preset}"] for preset in PRESETS}


def test_every_bad_track_is_named_with_its_reason(run: Run) -> None:
    for track, reason in run.bad.items():
        (failure,) = run.tracks[track]["failures"]
        assert reason in failure["reason"], track
        assert failure["hint"]
        assert any(track in line and reason in line for line in run.stderr.splitlines()), track
        assert not (run.root / track).with_suffix(".INFO").exists() or track == "broken.wav"
    assert (run.root / "broken.INFO").read_text() == '{"bpm": 120,'


def test_no_foreign_key_is_changed(run: Run) -> None:
    text = (run.root / "rich.INFO").read_text(encoding="utf-8")
    assert text.startswith(json.dumps(FOREIGN, indent=2, ensure_ascii=False).removesuffix("\n}"))
    assert len(FOREIGN) == 100


def test_nothing_is_left_behind(run: Run) -> None:
    there = {path.relative_to(run.root).as_posix() for path in run.root.rglob("*") if not path.is_dir()}
    expected = {*run.good, *run.good.values(), *run.bad, "broken.INFO", "Song One/drums.flac", "Song One/vocals.flac"}
    assert there == expected


def test_different_tracks_have_different_captions(run: Run) -> None:
    captions = {run.info(track)["music_flamingo_full"] for track in run.good}
    assert len(captions) == len(run.good)


def test_the_long_track_is_cut_at_twenty_minutes_and_says_so(run: Run) -> None:
    assert run.tracks["long.flac"]["audio_seconds"] == pytest.approx(1200, abs=0.1)
    assert "long.flac: used the first 1200 s of 1320 s" in run.stderr
    assert run.info("long.flac")["music_flamingo_provenance"]["full"]["source_seconds"] == pytest.approx(1320, abs=0.1)


def test_a_second_run_does_nothing_and_takes_seconds(run: Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.root.rglob("*.INFO")}
    for track in run.bad:
        (run.root / track).rename(run.root / f"{track}.away")
    try:
        started = time.monotonic()
        done = batch(run.root, run.options)
        seconds = time.monotonic() - started
    finally:
        for track in run.bad:
            (run.root / f"{track}.away").rename(run.root / track)
    assert done.returncode == 0, done.stderr
    assert f"0 tracks to caption, {len(run.good)} complete" in done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(os.path.relpath(item["track"], run.root.name) for item in told) == sorted(run.good)
    assert {(item["skipped"], len(item["captions"])) for item in told} == {("complete", 0)}
    assert seconds < 5
    assert {path: path.stat().st_mtime_ns for path in run.root.rglob("*.INFO")} == before


def test_ctrl_c_saves_what_is_finished_and_kills_the_child(run: Run, random_settings: Settings, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for index in range(30):
        soundfile.write(data / f"{index:02}.wav", tone(20, 300 + 20 * index), 16_000)
    options = ("--engine", run.engine, *ASK)
    child = start_batch(data, random_settings, *options, scratch=tmp_path)
    assert child.stderr
    for line in child.stderr:
        if line.startswith("[3/30]"):
            break
    child.send_signal(2)
    said = child.stderr.read()
    assert child.wait(20) == 130
    assert "finished captions are saved" in said
    assert "3 captioned" in said
    saved = list(data.glob("*.INFO"))
    assert 3 <= len(saved) <= 4
    assert all(json.loads(path.read_text()) for path in saved)
    assert not list(tmp_path.glob("musicflamingo-*"))
    assert not list(data.glob("*.lock"))
    listed = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in listed
