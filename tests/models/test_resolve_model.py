"""Which model the settings mean: a GGUF pair, or a checkpoint."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from musicflamingo_cli.choices import EngineName
from musicflamingo_cli.config import Settings
from musicflamingo_cli.errors import ConfigError, ModelError, MusicFlamingoError, ToolMissingError
from musicflamingo_cli.models.model import Checkpoint, ModelPair
from musicflamingo_cli.models.resolve import resolve_model
from musicflamingo_cli.paths import checkpoint_cache_dir
from tests.fakes.checkpoints import put_checkpoint

BEST = "nvidia/music-flamingo-2601-hf"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(models_dir=tmp_path / "models")


def with_transformers(settings: Settings, model: str) -> Settings:
    return replace(settings, engine=EngineName.TRANSFORMERS, model=model)


def test_auto_means_gguf_where_one_is_installed(settings: Settings, random_models: Path) -> None:
    with pytest.raises(ModelError, match="no Music Flamingo in") as caught:
        resolve_model(settings)
    assert "models pull auto" in caught.value.hint
    put_checkpoint(settings.models_folder / "nvidia--music-flamingo-hf", "audioflamingo3")
    found = resolve_model(settings)
    assert (found.name, found.reason) == ("nvidia/music-flamingo-hf", "no GGUF model is installed")
    with pytest.raises(ModelError, match="no Music Flamingo in"):
        resolve_model(replace(settings, engine=EngineName.SERVER))
    for file, name in (("*F32.gguf", "music-flamingo-hf.Q6_K.gguf"), ("*mmproj*", "music-flamingo-hf.mmproj-f16.gguf")):
        shutil.copy(next(random_models.glob(file)), settings.models_folder / name)
    assert isinstance(resolve_model(settings), ModelPair)


def test_auto_under_transformers_means_the_best_checkpoint(settings: Settings) -> None:
    auto = with_transformers(settings, "auto")
    with pytest.raises(ModelError, match="no checkpoint in") as caught:
        resolve_model(auto)
    assert f"musicflamingo models pull {BEST}" in caught.value.hint
    put_checkpoint(settings.models_folder / "a-tune")
    assert (resolve_model(auto).name, resolve_model(auto).reason) == ("a-tune", "no other is installed")
    put_checkpoint(settings.models_folder / "nvidia--audio-flamingo-3-hf", "audioflamingo3")
    put_checkpoint(settings.models_folder / "nvidia--music-flamingo-2601-hf")
    assert (resolve_model(auto).name, resolve_model(auto).reason) == (BEST, "it is the best that is installed")


@pytest.mark.parametrize("engine", [EngineName.AUTO, EngineName.TRANSFORMERS])
def test_a_named_checkpoint(settings: Settings, engine: EngineName) -> None:
    folder = put_checkpoint(settings.models_folder / "nvidia--music-flamingo-2601-hf")
    for name in (BEST, "music-flamingo-2601-hf", str(folder)):
        found = resolve_model(replace(settings, engine=engine, model=name))
        assert isinstance(found, Checkpoint)
        assert (found.folder, found.name, found.reason) == (folder, BEST, "")


@pytest.mark.parametrize(
    ("name", "error", "message", "hint"),
    [
        ("Q6_K", ConfigError, "Q6_K is a GGUF model, which runs under llama.cpp only", "leave --engine out"),
        ("i1-IQ3_M", ConfigError, "llama.cpp only", "models list"),
        ("some/where:Q6_K", ConfigError, "llama.cpp only", "models list"),
        ("/gone/x.gguf", ConfigError, "llama.cpp only", "models list"),
        ("nonsense", ConfigError, "neither a checkpoint nor a path", "models list"),
        ("some/where", ModelError, "no checkpoint some/where", "models pull some/where"),
        ("./gone", ModelError, "no checkpoint at", "models list"),
    ],
)
def test_what_transformers_cannot_run(
    settings: Settings, name: str, error: type[MusicFlamingoError], message: str, hint: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        resolve_model(with_transformers(settings, name))
    assert hint in caught.value.hint


def test_tiny_is_made_a_checkpoint_once(settings: Settings) -> None:
    found = resolve_model(with_transformers(settings, "tiny"))
    assert isinstance(found, Checkpoint)
    assert (found.name, found.label, found.is_tiny) == ("musicflamingo-tiny", "hf_tiny", True)
    assert (found.model_type, found.context_length, found.max_seconds) == ("audioflamingo3", 32768, 600)
    assert found.folder.parent == checkpoint_cache_dir()
    written = (found.folder / "model.safetensors").stat().st_mtime_ns
    assert resolve_model(with_transformers(settings, "tiny")) == found
    assert (found.folder / "model.safetensors").stat().st_mtime_ns == written
    assert isinstance(resolve_model(replace(settings, model="tiny")), ModelPair)


def test_a_new_release_makes_tiny_anew(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    first = resolve_model(with_transformers(settings, "tiny"))
    monkeypatch.setattr("musicflamingo_cli.models.resolve.__version__", "99.0")
    assert resolve_model(with_transformers(settings, "tiny")).path != first.path


def test_tiny_without_the_extra_names_the_command(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)  # importing it fails
    with pytest.raises(ToolMissingError, match="needs gguf") as caught:
        resolve_model(with_transformers(settings, "tiny"))
    assert "pip install 'musicflamingo[transformers]'" in caught.value.hint


def test_a_cache_that_cannot_be_written(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="cannot write the tiny model's checkpoint"):
        resolve_model(with_transformers(settings, "tiny"))
