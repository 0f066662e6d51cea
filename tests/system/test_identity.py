from __future__ import annotations

import os
from pathlib import Path

import pytest

from musicflamingo_cli.system.identity import digest, file_identity, is_replaced


@pytest.mark.parametrize("size", [0, 1, 1000, 40_000, 1_000_000])
def test_the_same_content_has_the_same_digest(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    for name in "ab":
        (tmp_path / name).write_bytes(data)
    assert digest([tmp_path / "a"]) == digest([tmp_path / "b"])
    (tmp_path / "b").write_bytes(data + b"x")
    assert digest([tmp_path / "a"]) != digest([tmp_path / "b"])
    assert digest([tmp_path / "none"]) is None


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_other_content_of_the_same_size_has_another_digest(tmp_path: Path, part: float) -> None:
    """As of two fine-tunes of one model, or of one track in two mixes."""
    data = bytearray(1_000_000)
    (tmp_path / "a").write_bytes(data)
    where = int((len(data) - 1) * part)
    data[where] = 1
    (tmp_path / "b").write_bytes(data)
    assert digest([tmp_path / "a"]) != digest([tmp_path / "b"])


def test_a_file_is_replaced_only_if_its_content_differs(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    recorded = file_identity(file)
    assert not is_replaced(file, recorded)
    os.utime(file, (1, 1))
    assert not is_replaced(file, recorded)
    file.write_bytes(b"two")
    assert is_replaced(file, recorded)
    file.write_bytes(b"three")
    assert is_replaced(file, recorded)
