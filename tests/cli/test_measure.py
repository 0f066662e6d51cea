"""`musicflamingo measure` and `batch --measure`."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from musicflamingo_cli.cli import app
from musicflamingo_cli.demo.songs import songs
from musicflamingo_cli.sidecars.captions import MEASURED_KEY
from musicflamingo_cli.sidecars.merge import read_sidecar
from tests.conftest import MakeWav


def measure(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["measure", *map(str, arguments)])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two songs and a file that is no audio."""
    folder = tmp_path / "data"
    folder.mkdir()
    for song in songs()[:2]:
        shutil.copy(song.path, folder)
    (folder / "x.wav").write_text("not audio")
    return folder


def test_results_are_data_and_the_rest_messages(data: Path) -> None:
    (data / "slow organ.INFO").write_text('{"bpm": 81, "key": "Am"}')
    done = measure(data, "--workers", 1)
    assert done.exit_code == 1  # one is no audio
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [str(data / "house loop.mp3"), str(data / "slow organ.mp3")]
    assert " BPM (or " in lines[0]
    assert "C major" in lines[0]
    assert lines[1].endswith("; the sidecar says bpm 81, key Am")
    assert "x.wav is not audio" in done.stderr
    assert "2 measured, 0 already measured, 1 failed" in done.stderr


def test_json_has_the_documented_shape(data: Path) -> None:
    measure(data / "slow organ.mp3")
    done = measure(data, "--json")
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    assert {Path(each["track"]).name: each["is_new"] for each in objects} == {
        "house loop.mp3": True,
        "slow organ.mp3": False,
        "x.wav": False,
    }
    for each in objects:
        assert list(each) == ["track", "sidecar", "measured", "stated", "is_new", "failure", "skipped"]
    organ = next(each for each in objects if "organ" in each["track"])
    assert organ["measured"] == read_sidecar(data / "slow organ.INFO")[MEASURED_KEY]
    assert organ["measured"]["key"]["name"] == "A minor"
    (failed,) = (each for each in objects if each["failure"])
    assert failed["failure"]["reason"].startswith("x.wav is not audio")


def test_a_limit_counts_what_is_not_measured(data: Path) -> None:
    (data / "x.wav").unlink()
    assert "1 measured, 0 already" in measure(data, "--limit", 1).stderr
    assert "1 measured, 1 already" in measure(data, "--limit", 1).stderr
    assert "0 measured, 2 already" in measure(data).stderr
    assert "2 measured, 0 already" in measure(data, "--overwrite").stderr


def test_shards_share_the_work(data: Path) -> None:
    (data / "x.wav").unlink()
    measured = [len(measure(data, "--shard", f"{part}/2", "--json").stdout.splitlines()) for part in (1, 2)]
    assert sum(measured) == 2
    assert len(list(data.glob("*.INFO"))) == 2


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    done = measure(tmp_path / "none")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "no such file or folder" in done.stderr


def test_skipped_files_are_named(data: Path) -> None:
    shutil.copy(data / "slow organ.mp3", data / "slow organ.flac")
    done = measure(data, "--json")
    (skipped,) = (json.loads(line) for line in done.stdout.splitlines() if '"skipped": "' in line)
    assert "has the same sidecar" in skipped["skipped"]


def test_batch_measures_before_it_asks(make_wav: MakeWav, tmp_path: Path) -> None:
    """The captions' prompts use the values, and stdout holds one object a track all the same."""
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(songs()[0].path, folder)
    prompts = tmp_path / "prompts.yaml"
    prompts.write_text("presets:\n  full: 'The key is {measured_key}. Describe it.'\n")
    arguments = [
        "batch",
        str(folder),
        "--model",
        "tiny",
        "--prompts",
        str(prompts),
        "-p",
        "full",
        "--json",
        "--measure",
    ]
    done = CliRunner().invoke(app, arguments)
    sidecar = read_sidecar(next(folder.glob("*.INFO")))
    assert sidecar[MEASURED_KEY]["key"]["name"] == songs()[0].truth["key"]
    assert "1 measured" in done.stderr
    assert all("captions" in json.loads(line) for line in done.stdout.splitlines())


def test_batch_dry_run_measures_nothing(data: Path) -> None:
    CliRunner().invoke(app, ["batch", str(data), "--model", "tiny", "--dry-run", "--measure"])
    assert not list(data.glob("*.INFO"))


def test_data_goes_to_a_file_while_a_bar_is_live(data: Path, tmp_path: Path) -> None:
    """The bar on the terminal (stderr) must not draw what belongs on stdout."""
    terminal, screen = pty.openpty()
    termios.tcsetwinsize(screen, (24, 100))  # a terminal without a size has no room for the view
    out = tmp_path / "out.jsonl"
    with out.open("w") as file:
        command = [sys.executable, "-m", "musicflamingo_cli", "measure", str(data), "--json"]
        child = subprocess.Popen(command, stdout=file, stderr=screen, env={**os.environ, "TERM": "xterm"})
        os.close(screen)
        shown = b""
        while True:
            try:
                if not (piece := os.read(terminal, 4096)):
                    break
            except OSError:  # the terminal is gone with the child
                break
            shown += piece
        assert child.wait() == 1
    os.close(terminal)
    assert len([json.loads(line) for line in out.read_text().splitlines()]) == 3
    assert b'"track"' not in shown
    assert b"\x1b[?25l" in shown  # the live view hides the cursor
