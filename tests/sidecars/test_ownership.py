"""What a merge must keep of a sidecar besides its text: who may read and write it, and under which names it is."""

from __future__ import annotations

import multiprocessing
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from musicflamingo_cli.errors import SidecarError
from musicflamingo_cli.sidecars.file import obstacle
from musicflamingo_cli.sidecars.merge import merge_sidecar

OURS = {"music_flamingo_full": "A calm piece."}
_ACL = "system.posix_acl_access"


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user may write into."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def _merge_as_somebody(path: Path) -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    assert obstacle(path)
    with pytest.raises(SidecarError, match="may not write"):
        merge_sidecar(path, OURS)


def test_a_file_that_the_user_may_not_write_stays(shared: Path) -> None:
    path = shared / "a.INFO"
    path.write_text("{}")
    path.chmod(0o644 if os.geteuid() == 0 else 0o464)
    child = multiprocessing.get_context("fork").Process(target=_merge_as_somebody, args=(path,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert path.read_text() == "{}"
    assert list(shared.iterdir()) == [path]


def test_hard_links_are_not_parted(tmp_path: Path) -> None:
    path, other = tmp_path / "a.INFO", tmp_path / "backup.INFO"
    path.write_text("{}")
    other.hardlink_to(path)
    found = obstacle(path)
    assert found
    assert "hard links" in found.reason
    with pytest.raises(SidecarError, match="hard links"):
        merge_sidecar(path, OURS)
    assert path.samefile(other)
    assert path.read_text() == "{}"


def _access_list(reader: int) -> bytes:
    """An access list by which this user may read, too; tag, rights and id of each entry (Linux's acl_ea.h)."""
    entries = [(1, 6, -1), (2, 4, reader), (4, 4, -1), (0x10, 4, -1), (0x20, 0, -1)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)


def _set(path: Path, attribute: str, value: bytes) -> None:
    try:
        os.setxattr(path, attribute, value)
    except (OSError, AttributeError) as error:
        pytest.skip(f"no extended attributes here: {error}")


def test_access_lists_and_attributes_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.INFO"
    path.write_text("{}")
    _set(path, "user.origin", b"studio")
    _set(path, _ACL, _access_list(1234))
    mode = path.stat().st_mode
    merge_sidecar(path, OURS)
    assert os.getxattr(path, "user.origin") == b"studio"
    assert os.getxattr(path, _ACL) == _access_list(1234)
    assert path.stat().st_mode == mode


def test_a_default_access_list_does_not_widen_access(tmp_path: Path) -> None:
    path = tmp_path / "a.INFO"
    path.write_text("{}")
    path.chmod(0o640)
    _set(tmp_path, "system.posix_acl_default", _access_list(1234))
    merge_sidecar(path, OURS)
    assert _ACL not in os.listxattr(path)
    assert path.stat().st_mode & 0o777 == 0o640


def test_attributes_that_cannot_be_kept_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.INFO"
    path.write_text("{}")
    _set(path, _ACL, _access_list(1234))

    def refuse(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setxattr", refuse)
    with pytest.raises(SidecarError, match="cannot be kept"):
        merge_sidecar(path, OURS)
    assert path.read_text() == "{}"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
@pytest.mark.parametrize("group", [0, 1001], ids=["the same", "another"])
def test_a_group_that_cannot_be_kept_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    """A new file of the user's own group would give that group the rights that the old one had."""
    path = tmp_path / "a.INFO"
    path.write_text("{}")
    os.chown(path, 1000, group)

    def refuse(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    if group == 0:
        assert merge_sidecar(path, OURS)
        return
    with pytest.raises(SidecarError, match="its group cannot be kept"):
        merge_sidecar(path, OURS)
    assert path.read_text() == "{}"
    assert list(tmp_path.iterdir()) == [path]
