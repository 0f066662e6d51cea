"""The estimate of the time left."""

from __future__ import annotations

from pathlib import Path

import pytest

from musicflamingo_cli.captioning.batch import Dataset, make_plan
from musicflamingo_cli.cli.progress import BatchBar
from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.errors import FailureKind
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.types import Failure, Outcome, Track


def outcome(audio: Path, seconds: float) -> Outcome:
    failures = () if seconds else (Failure(preset="", kind=FailureKind.SILENT, reason="no sound"),)
    return Outcome(Track(audio, audio.with_suffix(".INFO")), failures=failures, audio_seconds=seconds)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One short track and nine that are ten times as long, as WAV; two MP3s with as much audio in fewer bytes."""
    for index in range(10):
        (tmp_path / f"{index}.wav").write_bytes(bytes(1_000 if index == 0 else 10_000))
    for index in range(2):
        (tmp_path / f"m{index}.mp3").write_bytes(bytes(1_000))
    return tmp_path


def test_the_time_left_is_weighed_by_audio_from_the_first_track(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("musicflamingo_cli.cli.progress.time.monotonic", lambda: now)
    plan = make_plan([Dataset(data, [Preset("full", "x")])], Selection())
    assert plan.sizes == {".wav": 91_000, ".mp3": 2_000}
    bar = BatchBar(plan.tasks, live=False, quiet=False, colour=False, sizes=plan.sizes)
    now = 2.0
    bar.finished(outcome(data / "0.wav", 10.0))  # 10 s of audio a kilobyte, 5 s of audio a second
    assert " 3 min 04 s left" in capsys.readouterr().err  # 92 more kilobytes; of MP3s nothing is known yet
    now = 4.0
    bar.finished(outcome(data / "m0.mp3", 100.0))  # 100 s of audio a kilobyte; 110 s of audio in 4 s
    assert " 36 s left" in capsys.readouterr().err  # 900 s of audio as WAV, 100 s as MP3
    bar.left_out(data / "m1.mp3")
    now = 5.0
    bar.finished(outcome(data / "1.wav", 0.0))
    assert " 36 s left" in capsys.readouterr().err  # eight tracks at 110 s of audio in 5 s


def test_before_any_audio_is_heard_tracks_are_counted(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bar = BatchBar(12, live=False, quiet=False, colour=False, sizes={})
    bar.finished(outcome(data / "gone.wav", 0.0))
    assert " left, 1 failed)" in capsys.readouterr().err
