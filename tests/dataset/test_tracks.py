from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicflamingo_cli.dataset.tracks import EXTENSIONS, find_tracks, track_for
from musicflamingo_cli.types import Skipped, Track


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(root: Path) -> list[str]:
    return [item.audio.relative_to(root).as_posix() for item in find_tracks(root) if isinstance(item, Track)]


@pytest.mark.parametrize(
    ("audio", "sidecar"),
    [
        ("Song/full_mix.flac", "Song/Song.INFO"),
        ("Song/full_mix_crop1.flac", "Song/full_mix_crop1.INFO"),
        ("a.b.mp3", "a.b.INFO"),
        ("no extension/x.WAV", "no extension/x.INFO"),
    ],
)
def test_which_sidecar_a_track_has(tmp_path: Path, audio: str, sidecar: str) -> None:
    assert track_for(tmp_path / audio).sidecar == tmp_path / sidecar


def test_a_full_mix_named_without_its_folder_knows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Song").mkdir()
    monkeypatch.chdir(tmp_path / "Song")
    assert track_for(Path("full_mix.wav")).sidecar == Path("Song.INFO")


def test_a_folder_reached_by_another_name_keeps_its_sidecar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "Song/full_mix.wav", "Song/sub/x.wav")
    (tmp_path / "Alias").symlink_to(tmp_path / "Song", target_is_directory=True)
    assert track_for(tmp_path / "Alias" / "full_mix.wav").sidecar == tmp_path / "Alias" / "Song.INFO"
    monkeypatch.chdir(tmp_path / "Song" / "sub")
    assert track_for(Path("../full_mix.wav")).sidecar == Path("../Song.INFO")


def test_overlapping_roots_are_walked_once(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.wav")
    visited: set[tuple[int, int]] = set()
    both = [item for root in (tmp_path, tmp_path / "a") for item in find_tracks(root, visited)]
    assert len(both) == 1


def test_finds_tracks_in_sorted_order_and_passes_over_the_rest(tmp_path: Path) -> None:
    touch(tmp_path, "b.wav", "a.MP3", "notes.txt", ".hidden.wav", "._a.MP3", ".cache/x.wav", "sub/c.opus", "sub/c.INFO")
    touch(tmp_path, "Song/full_mix.flac", "Song/drums.flac", "Song/Vocals.flac", "Song/full_mix_crop.flac")
    touch(tmp_path, "kit/drums.wav")  # no full mix beside it: a track like any other
    (tmp_path / "folder.wav").mkdir()
    assert found(tmp_path) == [
        "a.MP3",
        "b.wav",
        "Song/full_mix.flac",
        "Song/full_mix_crop.flac",
        "kit/drums.wav",
        "sub/c.opus",
    ]


def test_files_that_would_share_a_sidecar_are_captioned_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp3", "a.wav", "a.flac", "Song/full_mix.mp3", "Song/full_mix.wav", "Song/Song.flac")
    items = list(find_tracks(tmp_path))
    assert found(tmp_path) == ["a.flac", "Song/full_mix.wav"]
    skipped = {item.path.name: item.reason for item in items if isinstance(item, Skipped)}
    assert set(skipped) == {"a.wav", "a.mp3", "full_mix.mp3", "Song.flac"}
    assert "a.flac has the same sidecar" in skipped["a.mp3"]


def test_where_case_does_not_count_one_sidecar_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS and exFAT: there the second would be complete without having been heard."""
    for name in ("Song.flac", "song.wav", "other.wav"):
        (tmp_path / name).touch()
    assert len([item for item in find_tracks(tmp_path) if isinstance(item, Track)]) == 3

    def exists(path: Path) -> bool:
        return path.name.lower() in [other.name.lower() for other in tmp_path.iterdir()]

    monkeypatch.setattr(Path, "exists", exists)
    items = list(find_tracks(tmp_path))
    assert [item.audio.name for item in items if isinstance(item, Track)] == ["Song.flac", "other.wav"]
    assert [item.reason for item in items if isinstance(item, Skipped)] == ["Song.flac has the same sidecar, Song.INFO"]


def test_symlink_loops_end(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.wav")
    (tmp_path / "x" / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "gone.wav")
    (tmp_path / "itself.wav").symlink_to(tmp_path / "itself.wav")
    assert found(tmp_path) == [
        "dangling.wav",
        "itself.wav",
        "x/a.wav",
    ]  # a file that cannot be read is a track until then


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every folder")
def test_an_unreadable_folder_is_reported(tmp_path: Path) -> None:
    touch(tmp_path, "closed/a.wav", "open/b.wav")
    (tmp_path / "closed").chmod(0)
    try:
        items = list(find_tracks(tmp_path))
    finally:
        (tmp_path / "closed").chmod(0o755)
    assert [type(item).__name__ for item in items] == ["Skipped", "Track"]
    assert isinstance(items[0], Skipped)
    assert items[0].failed


def test_a_file_is_a_dataset_of_one(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    assert list(find_tracks(tmp_path / "a.wav")) == [track_for(tmp_path / "a.wav")]


names = st.sampled_from(["a", "b", "full_mix", "drums", ".x", "é 🎵", "-v", "c,d"])


files_of_a_tree = st.lists(
    st.tuples(st.lists(names, max_size=2), names, st.sampled_from([*EXTENSIONS, ".txt"])), max_size=8
)


@given(files_of_a_tree)
def test_no_two_tracks_ever_share_a_sidecar(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[list[str], str, str]]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for folders, stem, extension in files:
        touch(root, "/".join([*folders, stem + extension]))
    tracks = [item for item in find_tracks(root) if isinstance(item, Track)]
    assert len({track.sidecar for track in tracks}) == len(tracks)
    assert [t.audio for t in tracks] == [t.audio for t in find_tracks(root) if isinstance(t, Track)]


def peak_of_search(folder: Path) -> int:
    """Find all tracks, and return the most memory it took meanwhile, in bytes."""
    tracemalloc.start()
    try:
        assert sum(1 for _ in find_tracks(folder)) == 10_000
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_flat_folder_costs_little_memory(tmp_path: Path) -> None:
    """Less than 300 bytes a file, of which the name is 100; entries and paths of all files would be 1000.

    The least of three: the interpreter's table of names grows by megabytes now and then.
    """
    for number in range(10_000):
        (tmp_path / f"Artist name - Track title {number:05d}.flac").touch()
    assert min(peak_of_search(tmp_path) for _ in range(3)) < 300 * 10_000
