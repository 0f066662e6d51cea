"""Which engine is opened, and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from musicflamingo_cli.choices import EngineName
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines import open_engine
from musicflamingo_cli.engines.native import engine as native
from musicflamingo_cli.engines.server import embedded
from musicflamingo_cli.errors import ToolMissingError
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.types import Workload
from tests.engines.server.test_server import fake_server
from tests.fakes.mtmd_cli import write_fake

SINGLE, MANY = Workload(1, 1), Workload(20, 5, at_once=20)
TALK = Workload(1, 100, is_conversation=True)


@pytest.mark.parametrize(
    ("installed", "workload", "name", "expected"),
    [
        ("native mtmd-cli server embedded", SINGLE, "mtmd-cli", "one prompt about one track"),
        ("native mtmd-cli server embedded", MANY, "native", "audio once for all prompts"),
        ("mtmd-cli server embedded", MANY, "server", "not native: no-such-package is not installed"),
        ("mtmd-cli server embedded", SINGLE, "mtmd-cli", "one prompt about one track"),
        ("mtmd-cli server embedded", MANY, "server", "audio once for all prompts"),
        ("mtmd-cli server embedded", Workload(1, 2), "server", "audio once for all prompts"),
        ("mtmd-cli", MANY, "mtmd-cli", "not server: no llama-server in"),
        ("server", SINGLE, "server", "not mtmd-cli: no llama-mtmd-cli in"),
        ("native mtmd-cli server embedded", TALK, "native", "audio once for all prompts"),
        ("mtmd-cli embedded", TALK, "embedded", "not server: no llama-server in"),
        ("embedded", MANY, "embedded", "not mtmd-cli: llama-mtmd-cli is not installed"),
    ],
)
def test_auto(  # more than six parameters: fixtures, and a table of four columns
    tmp_path: Path,
    random_models: Path,
    monkeypatch: pytest.MonkeyPatch,
    installed: str,
    workload: Workload,
    name: str,
    expected: str,
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
    engine, reason = open_engine(Settings(llama_dir=named), resolve("F32", random_models), workload)
    assert engine.name == name
    assert expected in reason


def test_auto_without_any_engine_hints_at_three_solutions(
    tmp_path: Path, random_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "WHEEL", "no_such_wheel")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ToolMissingError) as caught:
        open_engine(Settings(), resolve("F32", random_models), MANY)
    for solution in ("musicflamingo build", "pip install xllamacpp", "--llama-dir"):
        assert solution in caught.value.hint


def test_mtmd_cli_alone_holds_no_conversation(
    tmp_path: Path, random_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "WHEEL", "no_such_wheel")
    settings = Settings(llama_dir=write_fake(tmp_path, "answer"))
    with pytest.raises(ToolMissingError, match="no engine for conversations"):
        open_engine(settings, resolve("F32", random_models), TALK)


def test_an_empty_llama_dir_is_an_error(tmp_path: Path, random_models: Path) -> None:
    with pytest.raises(ToolMissingError, match="no llama-mtmd-cli in"):
        open_engine(Settings(llama_dir=tmp_path), resolve("F32", random_models), MANY)


def test_a_chosen_engine_is_opened(tmp_path: Path, random_models: Path) -> None:
    settings = Settings(llama_dir=write_fake(tmp_path, "answer"), engine=EngineName.MTMD_CLI)
    engine, reason = open_engine(settings, resolve("F32", random_models), MANY)
    assert (engine.name, reason) == ("mtmd-cli", "chosen with --engine")
