"""The hearing tests pass on models that process audio, and fail, with the likely cause, on others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from musicflamingo_cli.choices import EngineName
from musicflamingo_cli.config import Settings
from musicflamingo_cli.demo.songs import songs
from musicflamingo_cli.doctor import hearing
from musicflamingo_cli.doctor.checks import CheckStatus
from musicflamingo_cli.models.model import Checkpoint, Model, ModelPair
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.system.processes import Guarded
from musicflamingo_cli.types import Workload
from tests.fakes.checkpoints import put_checkpoint
from tests.fakes.endpoint import FakeEndpoint
from tests.fakes.engines import ScriptedEngine
from tests.fakes.mtmd_cli import write_fake


@pytest.mark.real
@pytest.mark.parametrize("engine", [EngineName.AUTO, EngineName.MTMD_CLI, EngineName.EMBEDDED])
def test_both_tests_pass_with_real_engines(
    engine: EngineName, random_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = []
    start = Guarded.__init__

    def counted(self: Guarded, *arguments: Any, **options: Any) -> None:
        starts.append(arguments)
        start(self, *arguments, **options)

    monkeypatch.setattr(Guarded, "__init__", counted)
    known, own = hearing.hearing_tests(replace(random_settings, engine=engine))
    assert (known.status, own.status) == (CheckStatus.OK, CheckStatus.OK), (known, own)
    assert "musicflamingo-tiny" in known.detail
    assert "random.F32" in own.detail
    assert len(starts) == (0 if engine is EngineName.MTMD_CLI else 2)  # one server for all clips of a test


@pytest.mark.real
def test_a_model_with_random_weights_fails_on_known_songs(
    random_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "_tiny_model", lambda settings: resolve("F32", settings.models_folder))
    known = next(hearing.hearing_tests(random_settings))
    assert known.status == CheckStatus.FAILURE
    assert "is wrong" in known.detail
    assert "musicflamingo build" in known.hint


def test_the_tiny_model_is_tested_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ScriptedEngine(lambda prompt, sampling: " ".join(p for song in songs() for p in song.truth.values()))
    monkeypatch.setattr(hearing, "open_engine", lambda *arguments: (engine, "a test"))
    (check,) = hearing.hearing_tests(Settings(model="tiny"))
    assert check.status == CheckStatus.OK
    assert engine.closed


def test_an_endpoint_is_asked_about_its_own_model_only() -> None:
    """It has no tiny model; and nothing of llama.cpp is needed on this machine."""
    with FakeEndpoint() as fake:
        (check,) = hearing.hearing_tests(Settings(endpoint=fake.url))
    assert check.name == "model's hearing"
    assert "no model tiny" not in check.detail


@pytest.mark.parametrize(
    ("settings", "has_checkpoint", "is_checkpoint"),
    [
        (Settings(), False, False),
        (Settings(), True, True),
        (Settings(engine=EngineName.SERVER), True, False),
        (Settings(engine=EngineName.TRANSFORMERS), False, True),
        (Settings(model="some/tune"), False, True),
        (Settings(model="tiny"), True, False),
    ],
)
def test_the_tiny_model_has_the_models_form(
    settings: Settings, has_checkpoint: bool, is_checkpoint: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint is not proved by a GGUF pair, which another engine runs."""
    if has_checkpoint:
        put_checkpoint(tmp_path / "models" / "nvidia--music-flamingo-hf", "audioflamingo3")
    used: list[Model] = []

    def opened(settings: Settings, model: Model, workload: Workload) -> tuple[ScriptedEngine, str]:
        used.append(model)
        return ScriptedEngine(lambda prompt, sampling: "wrong"), "a test"

    monkeypatch.setattr(hearing, "open_engine", opened)
    known = next(hearing.hearing_tests(replace(settings, models_dir=tmp_path / "models")))
    assert known.status == CheckStatus.FAILURE
    (model,) = used
    assert model.is_tiny
    assert isinstance(model, Checkpoint if is_checkpoint else ModelPair)


@pytest.mark.parametrize(
    ("answers", "audio_tokens", "message"),
    [
        (["a", "a", "a"], 750, "the audio does not reach the model"),
        (["a", "b", "c"], 750, "the seed is random"),
        (["a", "a", "b"], 0, "never reached the model (0 of 750 tokens)"),
        (["a", "a", "b"], 750, ""),
    ],
)
def test_each_fault_has_its_own_message(
    answers: list[str], audio_tokens: int, message: str, random_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = iter(["", *answers])
    engine = ScriptedEngine(lambda prompt, sampling: next(script), audio_tokens=audio_tokens)
    monkeypatch.setattr(hearing, "open_engine", lambda *arguments: (engine, "a test"))
    _, check = hearing.hearing_tests(Settings(model="F32", models_dir=random_models))
    assert message in check.detail
    assert (check.status == CheckStatus.FAILURE) == bool(message)
    assert bool(check.hint) == bool(message)
    assert engine.closed


def test_an_engine_that_crashes_is_a_failed_check(tmp_path: Path) -> None:
    folder = write_fake(tmp_path / "llama", "crash")
    (check,) = hearing.hearing_tests(Settings(model="tiny", llama_dir=folder, engine=EngineName.MTMD_CLI))
    assert check.status == CheckStatus.FAILURE
    assert check.hint
