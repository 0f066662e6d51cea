"""Room on disks, also of folders to come."""

from __future__ import annotations

import shutil
from pathlib import Path

from musicflamingo_cli.system.disk import free_bytes, nearest_existing


def test_a_folder_to_come_lies_on_its_parents_disk(tmp_path: Path) -> None:
    to_come = tmp_path / "a" / "b" / "c"
    assert nearest_existing(to_come) == tmp_path
    assert nearest_existing(tmp_path) == tmp_path
    total = shutil.disk_usage(tmp_path).total
    assert 0 < free_bytes(to_come) <= total
    assert not (tmp_path / "a").exists()
