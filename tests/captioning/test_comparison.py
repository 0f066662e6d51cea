"""Several sides asked about the same tracks, most of them a fake llama-mtmd-cli."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from musicflamingo_cli.captioning import captioner, comparison
from musicflamingo_cli.captioning.comparison import Side, SideName, ask_all, find_sides
from musicflamingo_cli.choices import EngineName
from musicflamingo_cli.config import Settings
from musicflamingo_cli.errors import ConfigError, ModelError, ToolMissingError
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.types import Workload
from tests.conftest import MakeWav
from tests.fakes.mtmd_cli import write_fake

PRESETS = [Preset("full", "Describe it."), Preset("brief", "Be brief.")]
WORKLOAD = Workload(2, 2)
FAKE = SideName(EngineName.MTMD_CLI, "F32")


@pytest.mark.parametrize(
    ("text", "engine", "model"),
    [
        ("server:Q6_K", "server", "Q6_K"),
        ("server", "server", "auto"),
        ("server:", "server", "auto"),
        ("auto", "auto", "auto"),
        ("auto:tiny", "auto", "tiny"),
        ("tiny", "auto", "tiny"),
        ("mtmd-cli:/models/x:y.gguf", "mtmd-cli", "/models/x:y.gguf"),
        ("/models/x:y.gguf", "auto", "/models/x:y.gguf"),
        ("server:owner/name-GGUF:Q6_K", "server", "owner/name-GGUF:Q6_K"),
        ("owner/name-GGUF:Q6_K", "auto", "owner/name-GGUF:Q6_K"),
    ],
)
def test_a_side_is_an_engine_a_model_or_both(text: str, engine: str, model: str) -> None:
    assert SideName.parse(text) == SideName(EngineName(engine), model)


def test_a_misspelt_engine_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no engine 'servr'; did you mean server"):
        SideName.parse("servr:Q6_K")
    monkeypatch.chdir(tmp_path)
    Path("my:model.gguf").touch()
    assert SideName.parse("my:model.gguf").model == "my:model.gguf"


@pytest.fixture
def side(tmp_path: Path, random_models: Path) -> Any:
    """``side(behaviour)`` returns a side whose engine behaves like this."""

    def find(behaviour: str) -> Side:
        settings = Settings(models_dir=random_models, llama_dir=write_fake(tmp_path / behaviour, behaviour), retries=0)
        (found,) = find_sides([FAKE], settings, WORKLOAD)
        return found

    return find


def test_a_failure_of_one_side_leaves_the_others(side: Any, make_wav: MakeWav) -> None:
    audio = make_wav()
    (found,) = ask_all([(audio, PRESETS)], [side("answer"), side("crash"), side("answer")], WORKLOAD)
    assert found.has_failures
    texts = [caption.text for caption in found.presets["brief"].captions]
    assert texts == ["A warm track with drums.", "", "A warm track with drums."]
    shown = found.as_json()["presets"]["full"]
    assert shown["sides"][0]["failure"] is None
    assert "SIGSEGV" in shown["sides"][1]["failure"]["reason"]
    assert shown["sides"][1]["seconds"] is None
    assert shown["agreement"] == [
        None,
        {
            "tempo": "neither",
            "key": "neither",
            "genres": {"shared": (), "only_first": (), "only_second": ()},
            "instruments": {"shared": ("drums",), "only_first": (), "only_second": ()},
        },
    ]
    assert list(audio.parent.glob("*.INFO")) == []


def test_one_engine_is_closed_before_the_next_opens(
    side: Any, make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each is opened once for all tracks."""
    events: list[str] = []
    opening = captioner.open_captioner

    @contextmanager
    def watched(settings: Settings, *more: Any) -> Iterator[Any]:
        name = settings.llama_dir.name if settings.llama_dir else ""
        events.append(f"open {name}")
        with opening(settings, *more) as opened:
            yield opened
        events.append(f"close {name}")

    sides = [side("answer"), side("echo")]
    monkeypatch.setattr(comparison, "open_captioner", watched)
    found = ask_all([(make_wav("a.wav"), PRESETS), (make_wav("b.wav"), PRESETS[:1])], sides, WORKLOAD)
    assert events == ["open answer", "close answer", "open echo", "close echo"]
    assert [(each.track.name, list(each.presets)) for each in found] == [
        ("a.wav", ["full", "brief"]),
        ("b.wav", ["full"]),
    ]
    assert not any(each.has_failures for each in found)


def test_an_engine_that_vanishes_fails_its_tracks_only(side: Any, make_wav: MakeWav) -> None:
    gone = side("echo")
    (gone.settings.llama_dir / "llama-mtmd-cli").unlink()
    found = ask_all([(make_wav("a.wav"), PRESETS), (make_wav("b.wav"), PRESETS)], [gone, side("answer")], WORKLOAD)
    for track in found:
        first, second = track.presets["full"].captions
        assert first.failure
        assert "no llama-mtmd-cli" in first.failure.reason
        assert second.text


def test_prompts_get_the_sidecar_and_a_broken_one_is_no_failure(side: Any, make_wav: MakeWav) -> None:
    audio, broken = make_wav("a.wav"), make_wav("b.wav")
    audio.with_suffix(".INFO").write_text('{"bpm": 123}')
    broken.with_suffix(".INFO").write_text("{")
    presets = [Preset("full", "It has {bpm} BPM. Describe it.")]
    found = ask_all([(audio, presets), (broken, presets)], [side("echo"), side("answer")], WORKLOAD)
    assert "It has 123 BPM." in found[0].presets["full"].captions[0].text
    assert "BPM" not in found[1].presets["full"].captions[0].text
    assert broken.with_suffix(".INFO").read_text() == "{"


def test_sides_are_checked_before_any_is_asked(random_models: Path, tmp_path: Path) -> None:
    settings = Settings(models_dir=random_models, llama_dir=write_fake(tmp_path / "llama", "answer"))
    with pytest.raises(ModelError, match="no Q6_K model"):
        find_sides([FAKE, SideName(EngineName.MTMD_CLI, "Q6_K")], settings, WORKLOAD)
    with pytest.raises(ToolMissingError, match="llama-server"):
        find_sides([FAKE, SideName(EngineName.SERVER, "F32")], settings, WORKLOAD)


def test_a_side_takes_no_projector_of_the_settings(random_models: Path, tmp_path: Path) -> None:
    """It belongs to the settings' own model."""
    fake = write_fake(tmp_path / "llama", "answer")
    settings = Settings(models_dir=random_models, llama_dir=fake, model="tiny", mmproj=tmp_path / "other.gguf", seed=7)
    sides = find_sides([FAKE, SideName(EngineName.AUTO, "tiny")], settings, WORKLOAD)
    assert [each.settings.seed for each in sides] == [7, 7]
    assert [each.model_name for each in sides] == ["random.F32.gguf", "musicflamingo-tiny.Q8_0.gguf"]
    assert [each.engine for each in sides] == ["mtmd-cli", "mtmd-cli"]
