"""Metadata from tags and sidecars."""

from __future__ import annotations

from pathlib import Path

import mutagen
import numpy as np
import pytest
import soundfile

from musicflamingo_cli.audio.tags import describe


def tagged(path: Path, **tags: str) -> Path:
    """Write a silent file with tags, by mutagen's easy names."""
    soundfile.write(path, np.zeros((8000, 1)), 8000)
    file = mutagen.File(path, easy=True)
    if file.tags is None:
        file.add_tags()
    for name, value in tags.items():
        file[name] = value
    file.save()
    return path


@pytest.mark.parametrize("name", ["a.flac", "a.mp3", "a.ogg"])
def test_tags_of_common_formats(tmp_path: Path, name: str) -> None:
    path = tagged(
        tmp_path / name, title="Blue", artist="Nina", album="Live", date="1964-03-21", genre="Jazz", bpm="118.7"
    )
    values = describe(path, {}, 185.4)
    assert values == {
        "title": "Blue",
        "artist": "Nina",
        "album": "Live",
        "year": "1964",
        "genre": "Jazz",
        "bpm": "119",
        "duration": "3:05",
        "metadata": "This track was released in 1964, filed under Jazz.",
    }


def test_id3_in_wav(tmp_path: Path) -> None:
    from mutagen.id3 import TIT2, TPE1

    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(8000), 8000)
    file = mutagen.File(path)
    file.add_tags()
    file.tags.add(TIT2(encoding=3, text="Blue"))
    file.tags.add(TPE1(encoding=3, text=["Nina", "Miles"]))
    file.save()
    values = describe(path, {}, 1)
    assert (values["title"], values["artist"]) == ("Blue", "Nina, Miles")


def test_the_sidecar_takes_precedence_over_tags(tmp_path: Path) -> None:
    path = tagged(tmp_path / "a.flac", title="Tag", genre="Tag")
    values = describe(
        path, {"genres": ["House", "Techno"], "release_year": 1999, "label": "Warp", "bpm": float("nan")}, 1
    )
    assert values["title"] == "Tag"
    assert values["genre"] == "House, Techno"
    assert values["metadata"] == "This track was released in 1999, on the label Warp, filed under House, Techno."
    assert "bpm" not in values


@pytest.mark.parametrize(
    ("sidecar", "year"),
    [
        ({"release_year": "unknown"}, None),
        ({"release_year": 0}, None),
        ({"release_year": "n/a", "track_metadata_year": 1999}, "1999"),
        ({"release_year": "1999-05-01"}, "1999"),
    ],
)
def test_only_a_valid_year_is_used(tmp_path: Path, sidecar: dict[str, object], year: str | None) -> None:
    values = describe(tmp_path / "none.wav", sidecar, 1)
    assert values.get("year") == year
    assert ("metadata" in values) == (year is not None)


@pytest.mark.parametrize("content", [b"", b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f", b"fLaC" + bytes(100), b"RIFF"])
def test_broken_tags_are_ignored(tmp_path: Path, content: bytes) -> None:
    for name in ("a.mp3", "a.flac", "a.wav", "a.m4a"):
        (tmp_path / name).write_bytes(content)
        assert describe(tmp_path / name, {}, 61) == {"duration": "1:01"}
