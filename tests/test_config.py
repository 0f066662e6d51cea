from __future__ import annotations

from pathlib import Path

import pytest

from musicflamingo_cli.config import Settings, load_settings
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.paths import user_config_dir


def write(text: str, file: Path | None = None) -> Path:
    file = file or user_config_dir() / "config.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_defaults() -> None:
    assert load_settings({}) == Settings()


def test_flag_over_environment_over_file_over_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write("models_dir: from_file\nseed: 7\ntemperature: 1\n")
    assert load_settings({}).models_dir == user_config_dir() / "from_file"
    monkeypatch.setenv("MUSICFLAMINGO_MODELS_DIR", "/from/environment")
    assert load_settings({}).models_dir == Path("/from/environment")
    settings = load_settings({"models_dir": tmp_path, "seed": None})
    assert (settings.models_dir, settings.seed, settings.temperature) == (tmp_path, 7, 1.0)
    monkeypatch.setenv("MUSICFLAMINGO_CONFIG", str(write("seed: 9", tmp_path / "other.yaml")))
    assert load_settings({}).seed == 9


@pytest.mark.parametrize(("text", "value"), [("false", False), ("off", False), ("true", True), ("null", None)])
def test_a_switch_that_is_left_to_llama_cpp_unless_set(text: str, value: bool | None) -> None:
    write(f"flash_attention: {text}")
    assert load_settings({}).flash_attention is value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sede: 7", "did you mean seed?"),
        ("seed: seven", "seed cannot be 'seven'"),
        ("seed: true", "seed cannot be True"),
        ("model: 3", "model cannot be 3"),
        ("- seed", "name: value"),
        ("seed: [", "cannot be read as YAML"),
        ("top_p: 3", "top_p must be between"),
        ("retries: -1", "retries must be between"),
    ],
)
def test_a_mistake_is_named(text: str, said: str) -> None:
    write(text)
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")) as caught:
        load_settings({})
    assert caught.value.hint
