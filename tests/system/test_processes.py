from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from musicflamingo_cli.cli import app
from musicflamingo_cli.engines.transformers.engine import environment
from musicflamingo_cli.llamacpp.binaries import child_environment
from musicflamingo_cli.models.adapter_gguf import CONVERTER, convert
from musicflamingo_cli.models.adapters import GGUF, check_adapter
from musicflamingo_cli.paths import llama_cache_dir
from musicflamingo_cli.system.processes import Guarded, probe
from tests.models.test_adapters import write_adapter

_SECRETS = ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "PGPASSWORD", "LLAMA_API_KEY", "GITHUB_TOKEN")
_HARMLESS = ("TOKENIZERS_PARALLELISM", "KEYBOARD", "CUDA_VISIBLE_DEVICES")
_SHOW = [sys.executable, "-c", "import os; print(sorted(os.environ))"]


@pytest.fixture(autouse=True)
def _set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*_SECRETS, *_HARMLESS):
        monkeypatch.setenv(name, "1")


def test_no_environment_of_a_child_has_secrets(tmp_path: Path) -> None:
    child = Guarded(_SHOW, tmp_path / "log")
    child.process.wait(20)
    child.kill()
    found = [*environment(), *child_environment(), probe(_SHOW).output, (tmp_path / "log").read_text()]
    assert not [name for name in _SECRETS if any(name in each for each in found)]


def test_a_build_gets_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It runs the scripts of a downloaded source."""
    (tmp_path / "bash").write_text("#!/bin/sh\nexec env\n")
    (tmp_path / "bash").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert CliRunner().invoke(app, ["build"]).exit_code == 0
    shown = capfd.readouterr().out
    assert all(f"{name}=1" in shown for name in _HARMLESS)
    assert not [name for name in _SECRETS if name in shown]


def test_a_converter_gets_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a script of the downloaded source, too."""
    script = llama_cache_dir() / "current" / "convert" / CONVERTER
    script.parent.mkdir(parents=True)
    script.write_text("import os, sys; open(sys.argv[sys.argv.index('--outfile') + 1], 'w').write(str(os.environ))")
    monkeypatch.setattr("musicflamingo_cli.models.adapter_gguf._PACKAGES", ())
    folder = write_adapter(tmp_path / "mine", "0" * 16)
    convert(check_adapter(folder))
    shown = (folder / GGUF).read_text()
    assert all(name in shown for name in _HARMLESS)
    assert not [name for name in _SECRETS if name in shown]


def test_other_variables_stay() -> None:
    assert set(_HARMLESS) <= set(child_environment())
    assert all(name in probe(_SHOW).output for name in _HARMLESS)
