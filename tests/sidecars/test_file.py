from __future__ import annotations

import json
import multiprocessing
import os
import stat
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock
from packaging.requirements import Requirement

from musicflamingo_cli.errors import SidecarError, StorageError
from musicflamingo_cli.sidecars import file as sidecar_file
from musicflamingo_cli.sidecars.leftovers import has_our_mark
from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar

OURS = {"music_flamingo_full": "A calm piece.", "music_flamingo_provenance": {"full": {"seed": 1}}}


def test_permissions_and_symlinks_survive(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "song.INFO"
    real.write_text("{}")
    real.chmod(0o640)
    link.symlink_to(real)
    merge_sidecar(link, OURS)
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert read_sidecar(real) == OURS


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_keeps_the_file_when_root_merges(tmp_path: Path) -> None:
    path = tmp_path / "song.INFO"
    path.write_text("{}")
    os.chown(path, 1000, 1001)
    merge_sidecar(path, OURS)
    assert (path.stat().st_uid, path.stat().st_gid) == (1000, 1001)


def test_a_lock_file_of_others_stays(tmp_path: Path) -> None:
    """Its owner's filelock may be too old to notice that the file it locked is gone."""
    lock = tmp_path / "song.INFO.lock"
    lock.touch()
    merge_sidecar(tmp_path / "song.INFO", OURS)
    assert lock.exists()


def test_locking_keeps_the_mark_in_our_lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, a lock file that a killed process left would never be swept. Old releases of filelock empty it."""
    marked, fsync = [], os.fsync

    def noted(descriptor: int) -> None:
        marked.append(has_our_mark(tmp_path / "song.INFO.lock"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    merge_sidecar(tmp_path / "song.INFO", OURS)
    assert marked[0]
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    (needed,) = (each for each in map(Requirement, project["dependencies"]) if each.name == "filelock")
    assert "4.2.10" not in needed.specifier


def test_file_and_folder_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    merge_sidecar(tmp_path / "song.INFO", OURS)
    assert synced == [False, True]


def test_many_threads_make_sidecars_and_none_changes_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: merge_sidecar(tmp_path / f"{n}.INFO", {"music_flamingo_full": "x"}), range(200)))
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


@pytest.mark.parametrize("is_link", [False, True])
def test_what_is_write_protected_is_left_alone(tmp_path: Path, is_link: bool) -> None:
    """A person meant it; or it is an object in a store of versions, to which git-annex and DVC make links."""
    path = tmp_path / "a.INFO"
    store = tmp_path / "store" if is_link else path
    store.write_text('{"bpm": 120}')
    if is_link:
        path.symlink_to(store)
    store.chmod(0o444)
    obstacle = sidecar_file.obstacle(path)
    assert obstacle
    assert (obstacle.kind, obstacle.reason) == ("no permission", "a.INFO is write-protected")
    assert "chmod u+w" in obstacle.hint
    with pytest.raises(StorageError, match="write-protected") as caught:
        merge_sidecar(path, {"music_flamingo_full": "x"})
    assert caught.value.kind == "no permission"
    assert store.read_text() == '{"bpm": 120}'
    assert len(list(tmp_path.iterdir())) == 1 + is_link


def test_a_new_sidecar_has_ordinary_permissions(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        merge_sidecar(tmp_path / "song.INFO", OURS)
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "song.INFO").stat().st_mode) == 0o644


def test_a_held_lock_is_awaited_then_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecar_file, "LOCK_TIMEOUT", 0.2)
    with FileLock(tmp_path / "song.INFO.lock"), pytest.raises(SidecarError, match="held the lock"):
        merge_sidecar(tmp_path / "song.INFO", OURS)
    assert not (tmp_path / "song.INFO").exists()


def test_a_failing_write_leaves_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "song.INFO"
    path.write_text('{"x": 1}')

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SidecarError, match="No space left"):
        merge_sidecar(path, OURS)
    assert path.read_text() == '{"x": 1}'
    assert list(tmp_path.iterdir()) == [path]


def _write_many(path: Path, name: str, use_ours: bool) -> None:
    for index in range(40):
        if use_ours:
            merge_sidecar(path, {f"music_flamingo_{name}{index}": index})
        else:  # as the other tools do it: lock, read, write whole
            with FileLock(f"{path}.lock", timeout=60):
                data = json.loads(path.read_text()) if path.exists() else {}
                data[f"{name}{index}"] = index
                part = path.with_name(f"{name}.part")
                part.write_text(json.dumps(data, indent=2))
                part.replace(path)


def test_writers_in_several_processes_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "song.INFO"
    jobs = [("a", True), ("b", True), ("foreign", False)]
    processes = [multiprocessing.Process(target=_write_many, args=(path, *job)) for job in jobs]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    expected = {f"music_flamingo_{n}{i}" for n in "ab" for i in range(40)} | {f"foreign{i}" for i in range(40)}
    assert set(read_sidecar(path)) == expected


def test_a_write_without_lock_during_a_merge_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "song.INFO"
    path.write_text('{"bpm": 120}')
    fsync, others = os.fsync, iter(['{"bpm": 121}', '{"bpm": 121, "key": "C"}'])

    def meanwhile(descriptor: int) -> None:
        fsync(descriptor)
        if text := next(others, ""):
            path.write_text(text)

    monkeypatch.setattr(os, "fsync", meanwhile)
    assert merge_sidecar(path, OURS)
    assert read_sidecar(path) == {"bpm": 121, "key": "C", **OURS}
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_made_without_lock_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, fsync = tmp_path / "song.INFO", os.fsync

    def meanwhile(descriptor: int) -> None:
        fsync(descriptor)
        if not path.exists():
            path.write_text('{"bpm": 120}')

    monkeypatch.setattr(os, "fsync", meanwhile)
    merge_sidecar(path, OURS)
    assert read_sidecar(path) == {"bpm": 120, **OURS}


@pytest.mark.parametrize("half", ["", '{"bpm": 1', '{"name": "\u00e9'])
def test_a_write_in_progress_is_awaited(tmp_path: Path, half: str) -> None:
    path = tmp_path / "song.INFO"
    path.write_bytes(half.encode()[: -1 if half.endswith("\u00e9") else None])
    writer = threading.Timer(0.1, path.write_text, ['{"bpm": 120}'])
    writer.start()
    merge_sidecar(path, OURS)
    writer.join()
    assert read_sidecar(path) == {"bpm": 120, **OURS}


def test_a_file_that_never_settles_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, fsync, count = tmp_path / "song.INFO", os.fsync, iter(range(10**6))

    def meanwhile(descriptor: int) -> None:
        fsync(descriptor)
        path.write_text(json.dumps({"count": next(count)}) + " " * next(count))

    monkeypatch.setattr(os, "fsync", meanwhile)
    with pytest.raises(SidecarError, match="keeps changing"):
        merge_sidecar(path, OURS)
    assert list(tmp_path.iterdir()) == [path]
