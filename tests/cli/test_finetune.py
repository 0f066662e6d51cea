"""`musicflamingo finetune`: one clear error for each mistake, before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from musicflamingo_cli.cli import app
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.finetuning import job
from tests.conftest import MakeWav

pytestmark = pytest.mark.slow  # the tiny model's checkpoint is made for most of them


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["finetune", *map(str, arguments)])
    return done.exit_code, done.stderr


@pytest.fixture
def data(make_wav: MakeWav, tmp_path: Path) -> Path:
    for number in range(3):
        sidecar = make_wav(f"data/{number}.wav", 1 + number / 10).with_suffix(".INFO")
        sidecar.write_text(json.dumps({"music_flamingo_full": "A waltz.", "music_flamingo_approved": True}))
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--rate", "1"], 2, "--rate must be between 1e-06 and 0.002"),
        (["--validation", "0.9"], 2, "--validation must be between 0.01 and 0.5"),
        (["--model", "Q6_K"], 2, "Q6_K is a GGUF model, which runs under llama.cpp only"),
        (["--model", "nobody/nothing"], 4, "no checkpoint nobody/nothing"),
        (["--model", "tiny", "--preset", "nothing"], 2, "nothing"),
        (["--model", "tiny", "--preset", "brief"], 2, "no captions that a person approved"),
    ],
)
def test_mistakes_are_one_error_each(options: list[str], code: int, message: str, data: Path, tmp_path: Path) -> None:
    found, errors = run(data, "--out", tmp_path / "mine", *options)
    assert (found, message in errors) == (code, True), errors
    assert not (tmp_path / "mine").exists()


def test_one_track_is_not_enough(data: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        (data / f"{number}.INFO").unlink()
    code, errors = run(data, "--out", tmp_path / "mine", "--model", "tiny")
    assert code == 2
    assert "only one track has such captions" in errors


def test_a_missing_package_names_the_extra(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_PACKAGES", ("peft_that_is_missing",))
    code, errors = run(data, "--out", tmp_path / "mine", "--model", "tiny")
    assert code == 3
    assert "pip install 'musicflamingo[finetune]'" in errors


def test_too_little_memory_is_refused_first(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from musicflamingo_cli.llamacpp import memory

    monkeypatch.setattr(memory, "ram", lambda: memory.Memory(10**8, 10**9, "RAM"))
    options = (data, "--out", tmp_path / "mine", "--model", "tiny", "--device", "cpu", "--dry-run")
    code, errors = run(*options)
    assert code == 2
    assert "0.1 GB of main memory are free" in errors
    assert run(*options, "--no-memory-check")[0] == 0


def test_a_dry_run_trains_nothing(data: Path, tmp_path: Path) -> None:
    code, errors = run(data, "--out", tmp_path / "mine", "--model", "tiny", "--dry-run", "--device", "cpu")
    assert code == 0, errors
    assert "training musicflamingo-tiny on 2 captions of 2 tracks, validating on 1 of 1" in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_an_adapter_behind_a_link_is_replaced_itself(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link cannot be removed as a folder is: hours of training would end in an error."""
    (tmp_path / "adapters").mkdir()
    (tmp_path / "mine").symlink_to(tmp_path / "adapters" / "mine")
    there = []

    def prepare(training: job.Training, *_: bool) -> bool:
        there.append(training.out)
        raise ConfigError("stop here")

    monkeypatch.setattr(job.Training, "prepare", prepare)
    assert run(data, "--out", tmp_path / "mine", "--model", "tiny", "--no-memory-check")[0] == 2
    assert there == [tmp_path.resolve() / "adapters" / "mine"]
