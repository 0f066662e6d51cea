"""Pipes, devices and endless files where text should be: an error each, and no command waits."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from musicflamingo_cli.config import load_settings
from musicflamingo_cli.errors import ConfigError, MusicFlamingoError, SidecarError
from musicflamingo_cli.models.adapters import check_adapter
from musicflamingo_cli.models.generators import resolve_generator
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.paths import read_regular
from musicflamingo_cli.prompts import read_presets
from musicflamingo_cli.sidecars import leftovers
from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar

OURS = {"music_flamingo_full": "A calm piece."}


def error_of(call: Callable[[], object]) -> MusicFlamingoError | None:
    """Return the error of a call, which must end within some seconds."""
    found: list[MusicFlamingoError | None] = []

    def run() -> None:
        try:
            call()
            found.append(None)
        except MusicFlamingoError as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)  # so that one that hangs does not keep pytest
    thread.start()
    thread.join(10)
    assert found, "it waits"
    return found[0]


@pytest.fixture(params=["pipe", "device", "large"])
def bad(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A path at which reading may never end, or takes too long."""
    path = tmp_path / f"bad.{request.param}"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "device":
        path.symlink_to("/dev/null")
    else:
        path.write_text(" " * (1 << 25) + "{}")
    return path


def test_settings_are_read_from_regular_files(bad: Path) -> None:
    assert isinstance(error_of(lambda: load_settings({}, bad)), ConfigError)


def test_presets_are_read_from_regular_files(bad: Path) -> None:
    assert isinstance(error_of(lambda: read_presets(bad)), ConfigError)


def test_sidecars_are_read_from_regular_files(bad: Path, tmp_path: Path) -> None:
    sidecar = bad.rename(tmp_path / "a.INFO")
    assert isinstance(error_of(lambda: read_sidecar(sidecar)), SidecarError)
    assert isinstance(error_of(lambda: merge_sidecar(sidecar, OURS)), SidecarError)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_a_file_that_is_larger_than_it_says_is_not_read() -> None:
    assert Path("/proc/self/maps").stat().st_size == 0
    with pytest.raises(OSError, match="it is larger than"):
        read_regular(Path("/proc/self/maps"), 100)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("size", [0, 70_000, 1_000_000])
def test_a_file_that_is_larger_than_it_says_is_read_whole(size: int) -> None:
    """The environment of a process: a file whose size is said to be 0."""
    script = "import sys; from pathlib import Path; from musicflamingo_cli.paths import read_regular\n"
    script += "sys.stdout.buffer.write(read_regular(Path('/proc/self/environ')))"
    environment = {**{f"LONG{at}": "x" * 50_000 for at in range(-(-size // 50_000))}, "LAST": "end"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True)
    assert len(done.stdout) >= size
    assert done.stdout.endswith(b"LAST=end\0")


def test_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "a.INFO").write_text("{}")
    tracemalloc.start()
    assert read_sidecar(tmp_path / "a.INFO") == {}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000  # and not as much as the largest that is read


def test_a_lock_file_must_be_a_regular_file(bad: Path, tmp_path: Path) -> None:
    lock = bad.rename(tmp_path / "a.INFO.lock")
    error = error_of(lambda: merge_sidecar(tmp_path / "a.INFO", OURS))
    if lock.is_file():  # however large, its content does not matter
        assert error is None
    else:
        assert isinstance(error, SidecarError)
        assert "a.INFO.lock is not a regular file" in str(error)
    assert os.path.lexists(lock)


def test_a_lock_file_that_is_a_link_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("text")
    (tmp_path / "a.INFO.lock").symlink_to(tmp_path / "precious")
    error = error_of(lambda: merge_sidecar(tmp_path / "a.INFO", OURS))
    assert "a.INFO.lock is not a regular file" in str(error)
    assert (tmp_path / "precious").read_text() == "text"


def test_a_sweep_does_not_wait_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.INFO.lock")
    assert error_of(lambda: leftovers.sweep(tmp_path / "a.INFO.lock")) is None
    assert os.path.lexists(tmp_path / "a.INFO.lock")


def test_a_folder_of_nobody_is_one_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MUSICFLAMINGO_MODELS_DIR", "~nobody99/models")
    with pytest.raises(ConfigError, match="there is no folder ~nobody99"):
        load_settings({})
    monkeypatch.delenv("MUSICFLAMINGO_MODELS_DIR")
    for find in (resolve, lambda name, folder: check_adapter(Path(name)), resolve_generator):
        with pytest.raises(ConfigError, match="there is no folder ~nobody99"):
            find("~nobody99/x.gguf", tmp_path)
