"""`--shard`: by hand, and as Slurm numbers the tasks of a job array."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from musicflamingo_cli.cli.batch_run import parse_shard
from musicflamingo_cli.errors import ConfigError


def set_array(monkeypatch: pytest.MonkeyPatch, **values: int) -> None:
    for name in ("ID", "COUNT", "MIN", "MAX", "STEP"):
        monkeypatch.delenv(f"SLURM_ARRAY_TASK_{name}", raising=False)
    for name, value in values.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))


@pytest.mark.parametrize(
    ("values", "shard"),
    [
        ({"ID": 1, "COUNT": 8, "MIN": 1, "MAX": 8, "STEP": 1}, (1, 8)),
        ({"ID": 8, "COUNT": 8, "MIN": 1, "MAX": 8, "STEP": 1}, (8, 8)),
        ({"ID": 0, "COUNT": 4, "MIN": 0, "MAX": 3}, (1, 4)),
        ({"ID": 14, "COUNT": 3, "MIN": 10, "MAX": 14, "STEP": 2}, (3, 3)),
    ],
)
def test_a_task_of_an_array_is_a_shard(
    values: dict[str, int], shard: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_array(monkeypatch, **values)
    assert parse_shard("auto") == shard


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"ID": 3},
        {"ID": 7, "COUNT": 3, "MIN": 1, "MAX": 7, "STEP": 1},  # --array=1,5,7
        {"ID": 11, "COUNT": 3, "MIN": 10, "MAX": 14, "STEP": 2},
        {"ID": 0, "COUNT": 3, "MIN": 1},
    ],
)
def test_what_is_no_regular_array_is_refused(values: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    set_array(monkeypatch, **values)
    with pytest.raises(ConfigError):
        parse_shard("auto")


def test_the_tasks_share_a_dataset(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.wav").touch()
    shares = []
    for task in range(1, 4):
        array = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "musicflamingo_cli", "batch", str(tmp_path), "--shard", "auto", "--dry-run"],
            env={**os.environ, **array},
            capture_output=True,
            text=True,
            check=True,
        )
        shares.append({line.partition(":")[0] for line in done.stdout.splitlines()})
    assert all(shares)
    assert sum(map(len, shares)) == len(set.union(*shares)) == 40
