"""The place of an export: what it may replace, and what interruptions leave."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.exports import ExportOptions
from musicflamingo_cli.system.temporary import owner
from tests.exports.conftest import ALL_CAPTIONS, PRESETS, fingerprint, run, write_track

TECHNICAL = ExportOptions(weights={"technical": 1}, columns=PRESETS)


def test_foreign_and_edited_files_are_never_replaced(captioned: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.doc").write_text("years of work")
    with pytest.raises(ConfigError, match="is not empty and not an export"):
        run("txt", captioned, out, overwrite=True)
    (out / "thesis.doc").unlink()
    run("txt", captioned, out)
    with pytest.raises(ConfigError, match="already holds an export"):
        run("txt", captioned, out)
    (out / "a" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"not part of the export: a/notes\.txt"):
        run("txt", captioned, out, overwrite=True)
    assert (out / "a" / "notes.txt").read_text() == "mine"
    (out / "a" / "notes.txt").unlink()
    edited = next(out.rglob("Track*.txt"))
    edited.write_text("edited by hand")
    with pytest.raises(ConfigError, match="edited after the export"):
        run("txt", captioned, out, overwrite=True)
    assert edited.read_text() == "edited by hand"


def test_an_edit_that_keeps_the_size_is_noticed(captioned: Path, tmp_path: Path) -> None:
    run("audiofolder", captioned, tmp_path / "out")
    metadata = tmp_path / "out" / "metadata.jsonl"
    size = metadata.stat().st_size
    metadata.write_text(metadata.read_text("utf-8").replace("slow", "fast"), "utf-8")
    assert metadata.stat().st_size == size
    with pytest.raises(ConfigError, match="edited after the export"):
        run("audiofolder", captioned, tmp_path / "out", overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_that_appear_during_an_export_stay(
    captioned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    out = tmp_path / "out"
    if overwrite:
        run("txt", captioned, out)
    accepts_length = ExportOptions.accepts_length

    def meanwhile(self: ExportOptions, caption: str) -> bool:
        out.mkdir(exist_ok=True)
        (out / "thesis.doc").write_text("years of work")
        return accepts_length(self, caption)

    monkeypatch.setattr(ExportOptions, "accepts_length", meanwhile)
    with pytest.raises(ConfigError, match=r"not an export|not part of the export"):
        run("txt", captioned, out, overwrite=overwrite)
    assert (out / "thesis.doc").read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_slower_of_two_exports_fails(captioned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    accepts_length = ExportOptions.accepts_length
    calls: list[int] = []

    def other_is_faster(self: ExportOptions, caption: str) -> bool:
        if not calls:
            calls.append(1)
            run("txt", captioned, out, TECHNICAL)
        return accepts_length(self, caption)

    monkeypatch.setattr(ExportOptions, "accepts_length", other_is_faster)
    with pytest.raises(ConfigError, match="already holds an export"):
        run("txt", captioned, out)
    assert "technical" in next(out.rglob("*.txt")).read_text()


@pytest.mark.parametrize("at", [1, 2])
def test_an_interruption_between_renames_loses_nothing(
    captioned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Ctrl-C right after the first rename, and right after the second."""
    out = tmp_path / "out"
    run("txt", captioned, out)
    old = fingerprint(out)
    original = Path.rename
    calls: list[int] = []

    def rename(self: Path, target: Path) -> Path:
        renamed = original(self, target)
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt
        return renamed

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        run("txt", captioned, out, TECHNICAL, overwrite=True)
    monkeypatch.undo()
    is_old = fingerprint(out) == old
    assert is_old == (at == 1)
    assert len(list(out.rglob("*.txt"))) == 50


def test_names_with_newlines_can_be_replaced(tmp_path: Path) -> None:
    """The marker lists file names line by line."""
    sidecar = tmp_path / "music" / "x\ny.INFO"
    out = tmp_path / "out"
    write_track(sidecar.with_suffix(".wav"), {"music_flamingo_full": "The first caption."})
    run("txt", tmp_path / "music", out)
    assert (out / "x\ny.txt").read_text() == "The first caption."
    sidecar.write_text('{"music_flamingo_full": "The second caption."}')
    run("txt", tmp_path / "music", out, overwrite=True)
    assert (out / "x\ny.txt").read_text() == "The second caption."
    assert (out / "x\ny.wav").resolve() == sidecar.with_suffix(".wav").resolve()


@pytest.mark.parametrize("name", ["txt", "webdataset"])
def test_an_export_into_the_dataset_is_rejected(captioned: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="inside the dataset"):
        run(name, captioned, captioned / "exported")


def test_unsuitable_places_are_rejected(music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link inside the dataset, the working folder, and a name that is not UTF-8."""
    (music / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="inside the dataset"):
        run("txt", music, music / "out")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ConfigError, match="cannot be replaced"):
        run("txt", music, Path())
    with pytest.raises(ConfigError, match="not UTF-8"):
        run("stable-audio", music, tmp_path / "x\udcff")


def test_a_link_to_a_folder_stays_a_link(captioned: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    for overwrite in (False, True):
        run("txt", captioned, tmp_path / "out", overwrite=overwrite)
        assert (tmp_path / "out").is_symlink()
        assert len(list((tmp_path / "real").rglob("*.txt"))) == 50
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "real"]


@pytest.mark.parametrize("name", ["csv", "txt"])
def test_a_place_below_a_file_is_a_config_error(captioned: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="cannot write"):
        run(name, captioned, tmp_path / "file" / "out")


def test_a_full_disk_is_a_config_error_and_leaves_nothing(captioned: Path, tmp_path: Path) -> None:
    """In a process of its own, which may write only files under 20 kB."""
    script = f"""
import resource, signal
from pathlib import Path
from musicflamingo_cli.errors import ConfigError
from tests.exports.conftest import run

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    run("webdataset", Path({str(captioned)!r}), Path({str(tmp_path / "out")!r}))
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert f"cannot write {tmp_path / 'out'}: File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_restored(captioned: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("txt", captioned, out)
    before = fingerprint(out)
    dead = owner().replace(str(os.getpid()), "999999999")
    out.rename(tmp_path / f".out.mf-export-{dead}-ab12.old")  # as if killed between two renames
    (tmp_path / f".out.mf-export-{dead}-ab12").mkdir()
    living = tmp_path / f".out.mf-export-{owner()}-cd34"
    living.mkdir()
    with pytest.raises(ConfigError, match="already holds an export"):
        run("txt", captioned, out, ExportOptions(weights={"nothing": 1}, columns=[]))
    assert fingerprint(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["out", living.name])


def test_an_interrupted_export_leaves_the_old_one(
    captioned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("csv", captioned, tmp_path / "t.csv")
    run("txt", captioned, tmp_path / "out")
    before = fingerprint(tmp_path / "t.csv") | fingerprint(tmp_path / "out")

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ExportOptions, "accepts_length", interrupted)
    for name, out in (("csv", "t.csv"), ("txt", "out")):
        with pytest.raises(KeyboardInterrupt):
            run(name, captioned, tmp_path / out, ALL_CAPTIONS, overwrite=True)
    assert fingerprint(tmp_path / "t.csv") | fingerprint(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "t.csv"]
