from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from musicflamingo_cli.choices import EngineName, Quantization
from musicflamingo_cli.config import Settings
from musicflamingo_cli.doctor import checks as doctor
from musicflamingo_cli.doctor.checks import Check, CheckStatus, examine
from musicflamingo_cli.engines.transformers.environment import Environment
from musicflamingo_cli.errors import ExitCode, ToolMissingError
from tests.fakes.checkpoints import put_checkpoint
from tests.fakes.endpoint import FakeEndpoint
from tests.fakes.mtmd_cli import write_fake

GPU = Environment(
    torch="2.9.1",
    transformers="5.23.0",
    device="cuda",
    device_name="A Card, CUDA 12.8",
    free=20_000_000_000,
    total=24_000_000_000,
    has_bf16=True,
    libraries={"accelerate": "1.10"},
)


def checks_of(settings: Settings) -> dict[str, Check]:
    return {check.name: check for check in examine(settings)}


def status_of(settings: Settings) -> dict[str, CheckStatus]:
    return {check.name: check.status for check in examine(settings)}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_hub", lambda: doctor.Check.ok("hub", "not asked in this test"))


@pytest.fixture(autouse=True)
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing the real torch takes seconds; tests/engines/transformers asks it."""
    monkeypatch.setattr(doctor, "describe_environment", lambda device: GPU)


def without_torch(device: str | None) -> Environment:
    raise ToolMissingError("torch is not installed", "pip install 'musicflamingo[transformers]'")


@pytest.mark.real
def test_a_complete_machine(random_settings: Settings) -> None:
    found = status_of(random_settings)
    assert found.pop("model") == CheckStatus.WARNING  # random weights
    assert found.pop("memory") in (CheckStatus.OK, CheckStatus.WARNING)  # there may be no GPU
    assert found.pop("models' disk") in (CheckStatus.OK, CheckStatus.WARNING)
    assert found.pop("temporary disk") in (CheckStatus.OK, CheckStatus.WARNING)
    assert set(found.values()) == {CheckStatus.OK}
    names = {"llama-server", "llama-mtmd-cli", "embedded", "libsndfile", "FFmpeg", "folders", "transformers"}
    assert names <= set(found)


def test_an_empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("musicflamingo_cli.engines.server.embedded.WHEEL", "no_such_wheel")
    checks = list(examine(Settings(llama_dir=tmp_path, models_dir=tmp_path / "models")))
    failed = {check.name for check in checks if check.status == CheckStatus.FAILURE}
    assert failed == {"embedded", "model"}
    assert all(check.hint for check in checks if check.status == CheckStatus.FAILURE)


def test_an_endpoint_needs_no_engine_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("musicflamingo_cli.engines.server.embedded.WHEEL", "no_such_wheel")
    with FakeEndpoint() as fake:
        settings = Settings(llama_dir=tmp_path, models_dir=tmp_path / "models", endpoint=fake.url)
        assert status_of(settings)["embedded"] != CheckStatus.FAILURE


def test_transformers_and_the_best_checkpoint(tmp_path: Path) -> None:
    found = checks_of(Settings(models_dir=tmp_path))
    assert found["transformers"].detail == (
        "5.23.0, torch 2.9.1 on cuda (A Card, CUDA 12.8, 20.0 of 24.0 GB free, bf16);"
        " accelerate 1.10, flash-attn not installed, bitsandbytes not installed, torchao not installed"
    )
    assert "models pull nvidia/music-flamingo-2601-hf" in found["checkpoint"].hint
    folder = put_checkpoint(tmp_path / "nvidia--music-flamingo-hf", "audioflamingo3")
    found = checks_of(Settings(models_dir=tmp_path))
    name = "nvidia/music-flamingo-hf (audioflamingo3, at most 600 s of audio)"
    assert found["checkpoint"].detail == f"{name} in {folder}"
    assert "nvidia/music-flamingo-hf" in found["models"].detail
    (folder / "model.safetensors").write_bytes(b"")
    found = checks_of(Settings(models_dir=tmp_path))
    assert (found["checkpoint"].status, "cut short" in found["checkpoint"].detail) == (CheckStatus.WARNING, True)


def test_a_machine_without_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "describe_environment", without_torch)
    found = checks_of(Settings(models_dir=tmp_path))
    assert found["transformers"].status == CheckStatus.OK
    assert found["transformers"].detail == "not available: torch is not installed"
    assert "pip install 'musicflamingo[transformers]'" in found["transformers"].hint
    assert "checkpoint" not in found
    named = checks_of(Settings(models_dir=tmp_path, engine=EngineName.TRANSFORMERS))["transformers"]
    assert (named.status, named.exit_code) == (CheckStatus.FAILURE, ExitCode.TOOL_MISSING)


def test_a_machine_with_transformers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("musicflamingo_cli.engines.server.embedded.WHEEL", "no_such_wheel")
    put_checkpoint(tmp_path / "models" / "nvidia--music-flamingo-2601-hf")
    found = checks_of(Settings(llama_dir=tmp_path, models_dir=tmp_path / "models"))
    assert [check for check in found.values() if check.status == CheckStatus.FAILURE] == []
    assert "no GGUF model is installed" in found["model"].detail
    assert "memory" not in found  # llama.cpp's


def test_a_library_that_a_setting_needs(tmp_path: Path) -> None:
    settings = Settings(models_dir=tmp_path, quantize=Quantization.NF4, model="tiny")
    assert "libraries" not in checks_of(settings)
    check = checks_of(replace(settings, engine=EngineName.TRANSFORMERS))["libraries"]
    assert check.status == CheckStatus.FAILURE
    assert "bitsandbytes" in check.hint


def test_a_binary_without_audio_support_is_a_failure(tmp_path: Path, random_models: Path) -> None:
    folder = write_fake(tmp_path / "llama", "nothing")  # its --help names no --mmproj
    found = status_of(Settings(llama_dir=folder, models_dir=random_models, model="F32"))
    assert found["llama-mtmd-cli"] == CheckStatus.FAILURE


def test_a_wrong_projector_is_a_failure(tmp_path: Path, random_models: Path) -> None:
    model = next(random_models.glob("*F32.gguf"))
    (check,) = [c for c in examine(Settings(model=str(model), mmproj=model)) if c.name == "model"]
    assert check.status == CheckStatus.FAILURE
    assert "not a projector" in check.detail


def test_a_folder_that_cannot_be_written_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: not str(path).startswith(str(tmp_path / "locked")))
    (tmp_path / "locked").mkdir()
    (check,) = [c for c in examine(Settings(models_dir=tmp_path / "locked")) if c.name == "folders"]
    assert check.status == CheckStatus.FAILURE
    assert str(tmp_path / "locked") in check.detail


def test_json_shows_every_setting_and_its_source(tmp_path: Path, random_models: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("seed: 7\n")
    command = [sys.executable, "-m", "musicflamingo_cli", "doctor", "--json", "--no-hearing", "--config", str(config)]
    command += ["--models-dir", str(random_models), "--model", "F32"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    report = json.loads(done.stdout)
    assert report["settings"]["seed"] == {"value": 7, "from": str(config)}
    assert report["settings"]["model"] == {"value": "F32", "from": "flag"}
    assert report["settings"]["top_p"]["from"] == "default"
    assert {"check", "status", "detail", "hint"} == set(report["checks"][0])
