"""Whose captions are used, where clips may go, and what they are called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from musicflamingo_cli.dataset.tracks import NO_TRACKS, find_tracks
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.listening.sources import Wanted, require_outside, sample_sources, sources_of_tracks
from musicflamingo_cli.types import Skipped, Track

TEXT = "A slow piano piece."


def put(folder: Path, name: str, info: dict[str, Any] | None = None) -> Path:
    audio = folder / f"{name}.wav"
    audio.parent.mkdir(parents=True, exist_ok=True)
    audio.write_bytes(b"RIFF")
    if info is not None:
        audio.with_suffix(".INFO").write_text(json.dumps(info))
    return audio


def captions(*presets: str, **more: Any) -> dict[str, Any]:
    return {f"music_flamingo_{preset}": f"{preset}: {TEXT}" for preset in presets} | more


@pytest.mark.parametrize(
    ("info", "preset"),
    [
        (captions("full", "structure"), "full"),
        (captions("full", "brief"), "brief"),
        (captions("full", "genre_mood_inst"), "genre_mood_inst"),
        (captions("structure"), "structure"),
        (captions("brief", "full", music_flamingo_provenance={"full": {"edited": True}}), "full"),
        (captions("brief", "full", music_flamingo_provenance={"full": {"approved": True}}), "full"),
        (captions("brief", "full", music_flamingo_approved=True), "brief"),
        (captions("full", "brief", music_flamingo_provenance={"brief": {"toy": True}}), "full"),
        (captions("full", "short", music_flamingo_provenance={"short": {"made_from": {"full": "other"}}}), "full"),
        (captions("full", "short", music_flamingo_provenance={"short": {"edited": True}}), "short"),
        (captions("full", "lyrics", music_flamingo_provenance={"lyrics": {"edited": True}}), "full"),
        (captions("lyrics", "technical", "transcription"), "technical"),
    ],
)
def test_the_most_suitable_caption_is_used(tmp_path: Path, info: dict[str, Any], preset: str) -> None:
    (source,) = sources_of_tracks([put(tmp_path, "a", info)], Wanted())
    assert (source.preset, source.caption, source.failure) == (preset, f"{preset}: {TEXT}", None)


def test_named_presets_each_make_a_clip_or_a_failure(tmp_path: Path) -> None:
    audio = put(tmp_path, "a", captions("full", "brief"))
    found = sources_of_tracks([audio], Wanted(("brief", "lyrics")))
    assert [(each.name, each.caption is not None) for each in found] == [("a.brief", True), ("a.lyrics", False)]
    assert found[1].failure
    assert "--save -p lyrics" in found[1].failure.hint


@pytest.mark.parametrize("info", [None, {}, {"music_flamingo_full": "  "}, {"music_flamingo_full": "\ud800"}])
def test_a_track_without_a_caption_is_a_failure(tmp_path: Path, info: dict[str, Any] | None) -> None:
    (source,) = sources_of_tracks([put(tmp_path, "a", info)], Wanted())
    assert source.failure
    assert source.failure.reason == "no caption of this preset"


def test_captions_of_the_tiny_model_do_not_count(tmp_path: Path) -> None:
    info = captions("full", music_flamingo_provenance={"full": {"toy": True}})
    (source,) = sources_of_tracks([put(tmp_path, "a", info)], Wanted())
    assert source.failure
    assert "tiny model" in source.failure.reason


def test_a_broken_sidecar_is_a_failure_unless_a_text_is_given(tmp_path: Path) -> None:
    audio = put(tmp_path, "a")
    audio.with_suffix(".INFO").write_text("{")
    (source,) = sources_of_tracks([audio], Wanted())
    assert source.failure
    (source,) = sources_of_tracks([audio], Wanted(text=TEXT))
    assert (source.name, source.caption) == ("a.text", TEXT)
    (source,) = sources_of_tracks([audio], Wanted(is_unconditional=True))
    assert (source.name, source.caption, source.failure) == ("a.nothing", None, None)


def test_a_sample_is_the_same_again_and_has_captions(tmp_path: Path) -> None:
    for number in range(20):
        info = None if number % 3 == 0 else captions("full")
        put(tmp_path, f"{number % 4}/{number}", info)
    put(tmp_path, "excluded", captions("full", music_flamingo_excluded=True))
    first = sample_sources(tmp_path, Wanted(("full",)), 5, seed=1)
    assert len(first) == 5
    assert first == sample_sources(tmp_path, Wanted(("full",)), 5, seed=1)
    others = [sample_sources(tmp_path, Wanted(("full",)), 5, seed=seed) for seed in range(2, 6)]
    assert any(other != first for other in others)
    everything = sample_sources(tmp_path, Wanted(("full",)), 99, seed=1)
    assert len(everything) == 13
    assert not any("excluded" in each.name for each in everything)
    assert all(each.name.endswith(".full") and " - " in each.name for each in everything)


def test_names_are_different_and_not_too_long(tmp_path: Path) -> None:
    audio = [put(tmp_path / folder, "é" * 120, captions("full")) for folder in "xyz"]
    names = [each.name for each in sources_of_tracks([*audio, audio[0]], Wanted(("full",)))]
    assert len(set(names)) == len(names) == 3
    assert all(len(f"{name}.json".encode()) < 200 for name in names)


@pytest.mark.parametrize("out", ["music", "music/clips", "music/a/../clips", "link/clips", "elsewhere/back"])
def test_clips_never_go_into_the_dataset(tmp_path: Path, out: str) -> None:
    audio = put(tmp_path / "music", "a")
    (tmp_path / "link").symlink_to(tmp_path / "music")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "music" / "deep")
    for place in (audio, tmp_path / "music", tmp_path / "link"):
        with pytest.raises(ConfigError, match="is inside the dataset"):
            require_outside(tmp_path / out, [place])
    require_outside(tmp_path / "musical", [audio])  # only begins alike
    require_outside(tmp_path, [tmp_path / "music"])


def test_clips_never_go_among_other_tracks(tmp_path: Path) -> None:
    """The mark of a folder of clips would hide them."""
    audio = put(tmp_path / "artist" / "album", "a")
    require_outside(tmp_path / "artist", [audio])
    other = put(tmp_path / "artist", "single")
    with pytest.raises(ConfigError, match="holds audio files already"):
        require_outside(tmp_path / "artist", [audio])
    (tmp_path / "artist" / NO_TRACKS).touch()
    require_outside(tmp_path / "artist", [audio])
    found = list(find_tracks(tmp_path))
    assert [each.audio for each in found if isinstance(each, Track)] == [audio]
    assert [each.path for each in found if isinstance(each, Skipped)] == [other.parent]
