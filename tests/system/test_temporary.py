"""Whose temporary things are, and which of them go."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from musicflamingo_cli.system.temporary import folder_prefix, is_abandoned, owner, sweep_temporary_folders


def test_only_folders_of_killed_runs_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = tmp_path / folder_prefix().replace(str(os.getpid()), "999999999")
    alive = tmp_path / f"{folder_prefix()}x"
    foreign = tmp_path / "musicflamingo-0123456789ab-999999999-x"
    for folder in (dead, alive, foreign):
        folder.mkdir()
    sweep_temporary_folders()
    assert sorted(tmp_path.iterdir()) == sorted([alive, foreign])


def test_a_living_process_or_another_host_is_not_abandoned() -> None:
    assert not is_abandoned(owner())
    assert not is_abandoned("elsewhere-999999999")
    assert is_abandoned(owner().replace(str(os.getpid()), "999999999"))
