"""Sidecars and folders that are links: what a downloaded dataset must not reach."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from musicflamingo_cli.captioning.batch import Dataset, scan
from musicflamingo_cli.cli import app
from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.dataset.tracks import find_tracks
from musicflamingo_cli.errors import SidecarError
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.claims import claimed
from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar
from musicflamingo_cli.types import Outcome, Skipped, Track
from tests.conftest import MakeWav

OURS = {"music_flamingo_full": "A calm piece."}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data" / "sub").mkdir(parents=True)
    return tmp_path / "data"


@pytest.mark.parametrize("exists", [False, True])
def test_a_sidecar_link_out_of_the_dataset_is_not_written(data: Path, tmp_path: Path, exists: bool) -> None:
    profile = tmp_path / ".profile"
    if exists:
        profile.write_text("{}")
    (data / "x.wav").touch()
    (data / "x.INFO").symlink_to(profile)
    with pytest.raises(SidecarError, match="out of the dataset"):
        merge_sidecar(data / "x.INFO", OURS)
    (found,) = scan([Dataset(data, [Preset("full", "What is it?")])], Selection())
    assert isinstance(found, Outcome)
    assert found.failures[0].kind == "sidecar"
    assert profile.exists() == exists
    assert not exists or profile.read_text() == "{}"
    assert sorted(path.name for path in data.iterdir()) == ["sub", "x.INFO", "x.wav"]


def test_a_sidecar_link_within_the_dataset_is_written(data: Path) -> None:
    (data / "sub" / "x.wav").touch()
    (data / "sub" / "x.INFO").symlink_to(data / "x.INFO")
    (track,) = (item for item in find_tracks(data) if isinstance(item, Track))
    merge_sidecar(track.sidecar, OURS, track.within)
    assert track.sidecar.is_symlink()
    assert read_sidecar(data / "x.INFO") == OURS


def test_two_links_to_one_sidecar_share_its_claim(data: Path) -> None:
    (data / "a.INFO").symlink_to(data / "sub" / "real.INFO")
    (data / "b.INFO").symlink_to(data / "sub" / "real.INFO")
    with claimed(data / "a.INFO") as first, claimed(data / "b.INFO") as second:
        assert (first, second) == (True, False)
    assert sorted(path.name for path in data.iterdir()) == ["a.INFO", "b.INFO", "sub"]


def test_two_links_to_one_sidecar_share_its_lock(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    from musicflamingo_cli.sidecars import file as sidecar_file

    monkeypatch.setattr(sidecar_file, "LOCK_TIMEOUT", 0.1)
    (data / "a.INFO").symlink_to(data / "sub" / "real.INFO")
    with FileLock(data / "sub" / "real.INFO.lock"), pytest.raises(SidecarError, match="held the lock"):
        merge_sidecar(data / "a.INFO", OURS, data)


def test_folder_links_out_of_the_dataset_are_skipped(data: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.wav").touch()
    (data / "sub" / "a.wav").touch()
    (data / "link").symlink_to(tmp_path / "other")
    (data / "up").symlink_to(tmp_path)
    items = list(find_tracks(data))
    assert [item.audio.name for item in items if isinstance(item, Track)] == ["a.wav"]
    reasons = {item.path.name: item.reason for item in items if isinstance(item, Skipped)}
    assert set(reasons) == {"link", "up"}
    assert all("leads out of the dataset" in reason for reason in reasons.values())


def test_folder_links_out_are_followed_when_asked(data: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.wav").touch()
    (tmp_path / "other" / "b.INFO").symlink_to(tmp_path / "other" / "store.json")
    (data / "link").symlink_to(tmp_path / "other")
    (track,) = find_tracks(data, follow_links=True)
    assert isinstance(track, Track)
    merge_sidecar(track.sidecar, OURS, track.within)
    assert read_sidecar(tmp_path / "other" / "store.json") == OURS


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["batch", "--dry-run"], "b.wav"),
        (["measure", "--workers", "1"], "b.wav"),
        (["check", "--dry-run"], "b.wav"),
        (["status"], '"tracks": 2'),
        (["report", "--out", "report.html"], '"tracks": 2'),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_commands_follow_links_only_when_asked(
    data: Path, make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch, command: list[str], shown: str
) -> None:
    for name in ("data/a", "other/b"):
        audio = make_wav(f"{name}.wav", 2)
        merge_sidecar(audio.with_suffix(".INFO"), OURS)
    (data / "link").symlink_to(data.parent / "other")
    monkeypatch.chdir(data.parent)
    for more in ([], ["--follow-links"]):
        done = CliRunner().invoke(app, [*command, "data", "--json", *more])
        assert done.exit_code == 0, done.output
        assert (shown in done.stdout) is bool(more), done.output
