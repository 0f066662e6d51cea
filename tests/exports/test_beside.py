"""Formats with files beside each track: ACE-Step and plain text."""

from __future__ import annotations

import json
from pathlib import Path

from musicflamingo_cli.choices import AudioPlacement
from musicflamingo_cli.sidecars.captions import caption_key
from musicflamingo_cli.sidecars.merge import merge_sidecar
from tests.exports.conftest import add, audio_files, run, true_texts


def test_ace_step_files_are_beside_the_audio(music: Path, tmp_path: Path) -> None:
    sidecar = next(music.rglob("Track 04*.INFO"))
    merge_sidecar(sidecar, {caption_key("lyrics"): "La la la"})
    run("ace-step", music, tmp_path / "out")
    found = {}
    for audio in audio_files(tmp_path / "out"):
        about = json.loads(audio.with_suffix(".json").read_text("utf-8"))
        assert set(about) == {"caption", "bpm", "keyscale", "timesignature", "language", "is_instrumental"}
        assert about["caption"] == audio.with_suffix(".caption.txt").read_text("utf-8")
        assert about["keyscale"] == "F# minor"
        assert isinstance(about["bpm"], int)
        found[audio.relative_to(tmp_path / "out").as_posix()] = about["caption"]
    assert found == true_texts(music)
    lyrics = list((tmp_path / "out").rglob("*.lyrics.txt"))
    assert [path.read_text() for path in lyrics] == ["La la la"]  # none for tracks whose lyrics are unknown


def test_lyrics_of_the_tiny_model_are_not_exported(music: Path, tmp_path: Path) -> None:
    """Other tools' lyrics take their place."""
    first, second, *_ = sorted(music.rglob("*.INFO"))
    tiny = {caption_key("lyrics"): "La la la", "music_flamingo_provenance": {"lyrics": {"toy": True}}}
    merge_sidecar(first, tiny)
    merge_sidecar(second, tiny)
    add(second, lyrics="Oh, baby")
    run("ace-step", music, tmp_path / "out")
    assert [path.read_text() for path in (tmp_path / "out").rglob("*.lyrics.txt")] == ["Oh, baby"]


def test_txt_holds_the_caption_and_nothing_else(captioned: Path, tmp_path: Path) -> None:
    run("txt", captioned, tmp_path / "out", audio=AudioPlacement.COPY)
    found = {}
    for audio in audio_files(tmp_path / "out"):
        assert not audio.is_symlink()
        found[audio.relative_to(tmp_path / "out").as_posix()] = audio.with_suffix(".txt").read_text("utf-8")
    assert found == true_texts(captioned)
