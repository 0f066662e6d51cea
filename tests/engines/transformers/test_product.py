"""Engine `transformers` behind the commands and the Python API, with the tiny model as a checkpoint."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from musicflamingo_cli import MusicFlamingoTransformers
from musicflamingo_cli.choices import EngineName
from musicflamingo_cli.config import Settings
from musicflamingo_cli.demo.songs import songs
from musicflamingo_cli.doctor.checks import CheckStatus
from musicflamingo_cli.doctor.hearing import hearing_tests
from musicflamingo_cli.models.model import Checkpoint
from musicflamingo_cli.sidecars.merge import read_sidecar

pytestmark = pytest.mark.slow
COMMAND = (sys.executable, "-m", "musicflamingo_cli")
OPTIONS = ("--engine", "transformers", "--threads", "1", "--temperature", "0")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Twelve tracks: the demo's songs, four times each."""
    folder = tmp_path / "music"
    folder.mkdir()
    for song in songs():
        for number in range(4):
            shutil.copyfile(song.path, folder / f"{song.path.stem} {number}.mp3")
    return folder


def test_the_documented_use_of_the_api(caplog: pytest.LogCaptureFixture) -> None:
    song = songs()[1]
    with caplog.at_level(logging.WARNING):
        flamingo = MusicFlamingoTransformers(model_id="tiny", use_flash_attention=True, temperature=0.0, threads=1)
    assert "flash-attention is not installed" in caplog.text
    with flamingo:
        text = flamingo.analyze(song.path, prompt_type="full")
        assert song.missed(text) == []
        assert set(flamingo.analyze(song.path)) == {"full", "technical", "genre_mood", "instrumentation", "structure"}
        analyses = list(flamingo.analyze_many([song.path] * 2, "full", progress=False))
        assert [analysis.captions["full"] for analysis in analyses] == [text, text]
        with flamingo.chat(song.path) as chat:
            assert "120" in chat.ask("What are the tempo and the key of this track?")


def test_a_checkpoint_by_its_folder(checkpoints: dict[str, Checkpoint]) -> None:
    song = songs()[0]
    command = [*COMMAND, "caption", str(song.path), "--model", str(checkpoints["tiny"].folder), "-p", "full", "--json"]
    done = subprocess.run([*command, "--temperature", "0"], capture_output=True, text=True, check=True)
    (row,) = map(json.loads, done.stdout.splitlines())
    assert row["engine"] == "transformers"
    assert song.missed(row["captions"]["full"]) == []


def test_a_batch_that_is_killed_goes_on(dataset: Path) -> None:
    command = [*COMMAND, "batch", str(dataset), "--model", "tiny", *OPTIONS, "-p", "technical"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as first:
        deadline = time.monotonic() + 120
        while not list(dataset.glob("*.INFO")) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(first.pid, signal.SIGKILL)
    done = {path: path.read_bytes() for path in dataset.glob("*.INFO")}
    assert 0 < len(done) < 12
    subprocess.run(command, stderr=subprocess.PIPE, check=True)
    for song in songs():
        for number in range(4):
            text = read_sidecar(dataset / f"{song.path.stem} {number}.INFO")["music_flamingo_technical"]
            assert song.missed(text, ("tempo", "key")) == []
    assert all(path.read_bytes() == before for path, before in done.items())  # none is made twice


def test_the_hearing_test_passes() -> None:
    (check,) = hearing_tests(Settings(engine=EngineName.TRANSFORMERS, model="tiny", threads=1))
    assert check.status == CheckStatus.OK, check.detail
    assert "transformers with musicflamingo-tiny" in check.detail


def test_without_the_extra_a_command_ends_with_one_message(tmp_path: Path) -> None:
    """The packages are hidden from the program, as if they had not been installed."""
    hide = "import sys; sys.modules.update(torch=None, transformers=None); from musicflamingo_cli.__main__ import main"
    command = [sys.executable, "-c", f"{hide}; main()", "caption", str(songs()[0].path), "--model", "tiny", *OPTIONS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 2
    assert "pip install 'musicflamingo[transformers]'" in done.stderr
