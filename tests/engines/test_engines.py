"""Which engine is opened, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines import open_engine
from musicflamingo_cli.engines.native import engine as native
from musicflamingo_cli.engines.server import embedded
from musicflamingo_cli.errors import ConfigError, ToolMissingError
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.types import Load
from tests.engines.server.test_server import fake_server, ignore
from tests.fakes.mtmd_cli import write_fake

SINGLE, MANY = Load(1, 1), Load(20, 5, at_once=20)


@pytest.mark.parametrize(
    ("installed", "load", "name", "why"),
    [
        ("native mtmd-cli server embedded", SINGLE, "mtmd-cli", "one prompt about one track"),
        ("native mtmd-cli server embedded", MANY, "native", "heard once"),
        ("mtmd-cli server embedded", MANY, "server", "not native: no-such-package is not installed"),
        ("mtmd-cli server embedded", SINGLE, "mtmd-cli", "one prompt about one track"),
        ("mtmd-cli server embedded", MANY, "server", "heard once"),
        ("mtmd-cli server embedded", Load(1, 2), "server", "heard once"),
        ("mtmd-cli", MANY, "mtmd-cli", "not server: no llama-server in"),
        ("server", SINGLE, "server", "not mtmd-cli: no llama-mtmd-cli in"),
        ("embedded", MANY, "embedded", "not mtmd-cli: llama-mtmd-cli is not installed"),
    ],
)
def test_auto(
    tmp_path: Path,
    random_models: Path,
    monkeypatch: pytest.MonkeyPatch,
    installed: str,
    load: Load,
    name: str,
    why: str,
) -> None:
    folder = tmp_path / "llama"
    folder.mkdir()
    if "mtmd-cli" in installed:
        write_fake(folder, "answer")
    if "server" in installed:
        fake_server(folder, "exit 1")
    if "native" in installed:
        monkeypatch.setattr(native, "native_libraries", lambda settings: (folder, "b11434"))
    else:
        monkeypatch.setattr(native, "PACKAGE", "no-such-package")
    if "embedded" not in installed:
        monkeypatch.setattr(embedded, "WHEEL", "no_such_wheel")
    monkeypatch.setenv("PATH", "/nowhere")
    named = None if installed == "embedded" else folder
    engine, reason = open_engine(Settings(llama_dir=named), resolve("F32", random_models), load, ignore)
    assert engine.name == name
    assert why in reason


def test_auto_without_any_names_the_three_ways_out(
    tmp_path: Path, random_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "WHEEL", "no_such_wheel")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ToolMissingError) as caught:
        open_engine(Settings(), resolve("F32", random_models), MANY, ignore)
    for way_out in ("musicflamingo build", "pip install xllamacpp", "--llama-dir"):
        assert way_out in caught.value.hint


def test_a_folder_that_was_named_and_is_empty_is_not_passed_over(tmp_path: Path, random_models: Path) -> None:
    with pytest.raises(ToolMissingError, match="no llama-mtmd-cli in"):
        open_engine(Settings(llama_dir=tmp_path), resolve("F32", random_models), MANY, ignore)


def test_an_unknown_engine_lists_the_known(tmp_path: Path, random_models: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_engine(Settings(engine="magic"), resolve("F32", random_models), MANY, ignore)
    assert "embedded" in caught.value.hint
