"""Where messages or the run log cannot be written, because the disk is full, for example, a long run goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from musicflamingo_cli.sidecars.merge import read_sidecar
from tests.conftest import MakeWav
from tests.fakes.mtmd_cli import write_fake


@pytest.fixture
def music(make_wav: MakeWav, tmp_path: Path) -> Path:
    """Two tracks, and a file that is no audio."""
    folder = tmp_path / "music"
    folder.mkdir()
    audio = make_wav()
    for name in ("a.wav", "b.wav"):
        shutil.copy(audio, folder / name)
    (folder / "bad.wav").write_text("no audio")
    return folder


@pytest.fixture
def batch(music: Path, tmp_path: Path, random_models: Path) -> list[str]:
    """The command that captions them with a fake binary."""
    folder = write_fake(tmp_path / "llama", "answer")
    command = [sys.executable, "-m", "musicflamingo_cli", "batch", str(music), "--preset", "full", "--model", "F32"]
    return [*command, "--llama-dir", str(folder), "--models-dir", str(random_models), "--engine", "mtmd-cli"]


def require_captions(music: Path) -> None:
    for name in ("a", "b"):
        assert read_sidecar(music / f"{name}.INFO")["music_flamingo_full"] == "A warm track with drums."


@pytest.mark.parametrize("more", [[], ["-v"], ["--run-log", "/dev/full"], ["--json"]])
def test_a_full_disk_behind_stderr_ends_nothing(music: Path, batch: list[str], more: list[str]) -> None:
    command = [*batch, *more]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 1  # of the track that is no audio
    require_captions(music)


def test_a_run_goes_on_where_its_log_cannot_be_written(music: Path, batch: list[str], tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.touch()
    environment = {**os.environ, "XDG_STATE_HOME": str(state)}
    done = subprocess.run(batch, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1  # of the track that is no audio
    assert done.stderr.count("run log") == 1
    assert "the run has no log" in done.stderr
    assert "Traceback" not in done.stderr
    require_captions(music)


def test_a_run_log_of_ones_own_that_cannot_be_written_is_an_error(music: Path, batch: list[str]) -> None:
    command = [*batch, "--run-log", str(music / "a.wav" / "log.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "cannot write the run log" in done.stderr
    assert not (music / "a.INFO").exists()


def test_a_full_disk_behind_stdout_is_an_error() -> None:
    command = [sys.executable, "-m", "musicflamingo_cli", "prompts", "list"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert done.stderr.decode().startswith("error: cannot write to stdout: No space left on device")
    assert b"bug" not in done.stderr
