"""Where messages cannot be written, because the disk is full, a long run goes on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from musicflamingo_cli.sidecars.merge import read_sidecar
from tests.conftest import MakeWav
from tests.fakes.mtmd_cli import write_fake


@pytest.mark.parametrize("more", [[], ["-v"], ["--run-log", "/dev/full"], ["--json"]])
def test_a_full_disk_behind_stderr_ends_nothing(
    make_wav: MakeWav, tmp_path: Path, random_models: Path, more: list[str]
) -> None:
    music = tmp_path / "music"
    music.mkdir()
    audio = make_wav()
    for name in ("a.wav", "b.wav"):
        shutil.copy(audio, music / name)
    (music / "bad.wav").write_text("no audio")
    folder = write_fake(tmp_path / "llama", "answer")
    command = [sys.executable, "-m", "musicflamingo_cli", "batch", str(music), "--preset", "full", "--model", "F32"]
    command += ["--llama-dir", str(folder), "--models-dir", str(random_models), "--engine", "mtmd-cli", *more]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 1  # of the track that is no audio
    for name in ("a", "b"):
        assert read_sidecar(music / f"{name}.INFO")["music_flamingo_full"] == "A warm track with drums."


def test_a_full_disk_behind_stdout_is_an_error() -> None:
    command = [sys.executable, "-m", "musicflamingo_cli", "prompts", "list"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode != 0
