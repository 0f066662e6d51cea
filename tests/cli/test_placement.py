"""`--ray`, `--gpus` and their like: which of them go together."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from musicflamingo_cli.cli import app


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ray", "10.0.0.1"], "10.0.0.1 has no port; for example: --ray 10.0.0.1:6379"),
        (["--ray", "localhost"], "localhost has no port; for example: --ray localhost:6379"),
        (["--ray", "10.0.0.1:6379", "--gpus", "all"], "--gpus is about this machine, not a cluster"),
        (["--ray", "--actors", "some"], "--actors some is neither a number nor max"),
        (["--actors", "4"], "--actors is about a cluster"),
    ],
)
def test_what_does_not_fit_is_one_error(tmp_path: Path, options: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["batch", *options, str(tmp_path), "--model", "tiny"])
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.replace("│", " ").split()) + str(result.exception)
