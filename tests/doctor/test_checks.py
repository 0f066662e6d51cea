from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from musicflamingo_cli.config import Settings
from musicflamingo_cli.doctor import checks as doctor
from musicflamingo_cli.doctor.checks import CheckStatus, examine
from tests.fakes.mtmd_cli import write_fake


def status_of(settings: Settings) -> dict[str, CheckStatus]:
    return {check.name: check.status for check in examine(settings)}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_hub", lambda: doctor.Check.ok("hub", "not asked in this test"))


@pytest.mark.real
def test_a_complete_machine(random_settings: Settings) -> None:
    found = status_of(random_settings)
    assert found.pop("model") == CheckStatus.WARNING  # random weights
    assert found.pop("memory") in (CheckStatus.OK, CheckStatus.WARNING)  # there may be no GPU
    assert found.pop("models' disk") in (CheckStatus.OK, CheckStatus.WARNING)
    assert found.pop("temporary disk") in (CheckStatus.OK, CheckStatus.WARNING)
    assert set(found.values()) == {CheckStatus.OK}
    assert {"llama-server", "llama-mtmd-cli", "embedded", "libsndfile", "FFmpeg", "folders"} <= set(found)


def test_an_empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("musicflamingo_cli.engines.server.embedded.WHEEL", "no_such_wheel")
    checks = list(examine(Settings(llama_dir=tmp_path, models_dir=tmp_path / "models")))
    failed = {check.name for check in checks if check.status == CheckStatus.FAILURE}
    assert failed == {"embedded", "model"}
    assert all(check.hint for check in checks if check.status == CheckStatus.FAILURE)


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
