"""The hearing test must pass on what hears, and fail, with the likely cause, on what does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from musicflamingo_cli.config import Settings
from musicflamingo_cli.demo.songs import songs
from musicflamingo_cli.doctor import hearing
from musicflamingo_cli.doctor.checks import FAILURE, OK
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.system.processes import Guarded
from tests.fakes.engines import ScriptedEngine
from tests.fakes.mtmd_cli import write_fake


def ignore(text: str) -> None:
    """Remarks of the engine."""


@pytest.mark.real
@pytest.mark.parametrize("engine", ["auto", "mtmd-cli", "embedded"])
def test_both_tests_pass_on_what_hears(engine: str, random_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = []
    start = Guarded.__init__

    def counted(self: Guarded, *arguments: Any, **options: Any) -> None:
        starts.append(arguments)
        start(self, *arguments, **options)

    monkeypatch.setattr(Guarded, "__init__", counted)
    known, own = hearing.hearing_tests(replace(random_settings, engine=engine), ignore)
    assert (known.status, own.status) == (OK, OK), (known, own)
    assert "musicflamingo-tiny" in known.detail
    assert "random.F32" in own.detail
    assert len(starts) == (0 if engine == "mtmd-cli" else 2)  # one server hears all clips of a test


@pytest.mark.real
def test_a_model_that_knows_no_music_fails_on_known_songs(
    random_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "resolve", lambda name, folder: resolve("F32", folder))
    known = next(hearing.hearing_tests(random_settings, ignore))
    assert known.status == FAILURE
    assert "hears wrongly" in known.detail
    assert "musicflamingo build" in known.hint


def test_the_tiny_model_itself_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ScriptedEngine(lambda prompt, sampling: " ".join(p for song in songs() for p in song.truth.values()))
    monkeypatch.setattr(hearing, "open_engine", lambda *arguments: (engine, "a test"))
    (check,) = hearing.hearing_tests(Settings(model="tiny"), ignore)
    assert check.status == OK
    assert engine.closed


@pytest.mark.parametrize(
    ("answers", "heard", "said"),
    [
        (["a", "a", "a"], 750, "the audio does not reach the model"),
        (["a", "b", "c"], 750, "the seed is random"),
        (["a", "a", "b"], 0, "never reached the model (0 of 750 tokens)"),
        (["a", "a", "b"], 750, ""),
    ],
)
def test_each_fault_has_its_name(
    answers: list[str], heard: int, said: str, random_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said_so_far = iter(["", *answers])
    engine = ScriptedEngine(lambda prompt, sampling: next(said_so_far), heard=heard)
    monkeypatch.setattr(hearing, "open_engine", lambda *arguments: (engine, "a test"))
    _, check = hearing.hearing_tests(Settings(model="F32", models_dir=random_models), ignore)
    assert said in check.detail
    assert (check.status == FAILURE) == bool(said)
    assert bool(check.hint) == bool(said)
    assert engine.closed


def test_an_engine_that_crashes_is_a_failed_check(tmp_path: Path) -> None:
    folder = write_fake(tmp_path / "llama", "crash")
    (check,) = hearing.hearing_tests(Settings(model="tiny", llama_dir=folder, engine="mtmd-cli"), ignore)
    assert check.status == FAILURE
    assert check.hint
