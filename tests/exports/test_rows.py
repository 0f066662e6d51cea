"""Which tracks and captions are exported."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicflamingo_cli import exports
from musicflamingo_cli.choices import ExportFormat
from musicflamingo_cli.dataset.tracks import CLIPS, LEADS_OUT, NO_TRACKS
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.exports import ExportOptions, ExportStats, Target
from musicflamingo_cli.exports.rows import rows_of, share
from musicflamingo_cli.text.t5_tokens import TokenStats, token_counter
from tests.exports.conftest import ALL_CAPTIONS, PRESETS, read_jsonl, run, write_sound, write_track


@pytest.mark.parametrize(
    ("options", "exported", "left_out"),
    [
        (ExportOptions(weights={"full": 1}, columns=PRESETS), 3, {"no caption": 2}),
        (ExportOptions(weights={"technical": 1}, columns=()), 1, {"no caption": 4}),
        (
            ExportOptions(weights={"full": 1}, columns=PRESETS, only_complete=True),
            1,
            {"no caption": 1, "not complete": 3},
        ),
        (
            ExportOptions(weights={"full": 1}, columns=PRESETS, only_approved=True),
            1,
            {"no caption": 1, "not approved": 3},
        ),
        (
            ExportOptions(weights={"full": 1}, columns=(), min_words=5),
            1,
            {"no caption": 2, "no caption of the right length": 2},
        ),
        (
            ExportOptions(weights={"full": 1}, columns=(), max_words=4),
            2,
            {"no caption": 2, "no caption of the right length": 1},
        ),
    ],
    ids=["all", "another preset", "complete", "approved", "min", "max"],
)
def test_options_choose_the_tracks(
    tmp_path: Path, options: ExportOptions, exported: int, left_out: dict[str, int]
) -> None:
    captions: list[dict[str, Any]] = [
        {"music_flamingo_full": "Four words of text", "music_flamingo_approved": True},
        {"music_flamingo_full": "Here are five words now", "music_flamingo_approved": "yes"},
        {f"music_flamingo_{preset}": "In all three" for preset in PRESETS},
        {"music_flamingo_genre_mood": "", "music_flamingo_full": None},
        {"music_flamingo_genre_mood": "Only this"},
    ]
    if options.min_words == 5:
        captions[2]["music_flamingo_full"] = "Too short"
    for number, info in enumerate(captions):
        write_track(tmp_path / "music" / f"{number}.wav", info)
    stats = run("csv", tmp_path / "music", tmp_path / "out.csv", options)
    assert (stats.exported, stats.left_out) == (exported, left_out)
    rehearsed = ExportStats()
    target, tokens = Target(out=tmp_path / "new.csv"), TokenStats(counter=token_counter(None))
    exports.rehearse(ExportFormat.CSV, tmp_path / "music", target, options, rehearsed, tokens)
    assert (rehearsed.exported, rehearsed.left_out) == (exported, left_out)
    assert not target.out.exists()


def test_a_folder_of_clips_is_left_out_by_its_name(music: Path) -> None:
    (music / "Song" / NO_TRACKS).touch()
    stats = ExportStats()
    assert len(list(rows_of(music, ALL_CAPTIONS, stats))) == 49
    assert stats.left_out == {CLIPS: 1}


def test_links_out_of_the_dataset_are_counted(tmp_path: Path) -> None:
    for name in ("music/a.wav", "other/b.wav"):
        write_track(tmp_path / name, {"music_flamingo_full": "A caption"})
    (tmp_path / "music" / "link").symlink_to(tmp_path / "other")
    stats = run("csv", tmp_path / "music", tmp_path / "out.csv")
    assert (stats.exported, stats.left_out) == (1, {LEADS_OUT: 1})
    options = replace(ALL_CAPTIONS, follow_links=True)
    stats = run("csv", tmp_path / "music", tmp_path / "followed.csv", options)
    assert (stats.exported, stats.left_out) == (2, {})


def test_captions_of_the_tiny_model_are_not_exported(tmp_path: Path) -> None:
    made = {"full": {"toy": True}}
    info = {"music_flamingo_full": "Baran belin", "music_flamingo_provenance": made}
    write_track(tmp_path / "music" / "a.wav", info)
    with pytest.raises(ConfigError, match="nothing to export: captions of the tiny model only") as raised:
        run("jsonl", tmp_path / "music", tmp_path / "out.jsonl")
    assert "with a real model" in raised.value.hint
    assert not (tmp_path / "out.jsonl").exists()


def test_odd_values_of_other_tools_do_not_fail_a_track(music: Path, tmp_path: Path) -> None:
    odd = {"title": "\ud800", "key": "\ud800", "lyrics": "\ud800", "bpm": 1e400, "genres": {"a": 1}}
    for number, (key, value) in enumerate(odd.items()):
        sidecar = next(music.rglob(f"Track 1{number}*.INFO"))
        info = json.loads(sidecar.read_text())
        sidecar.write_text(json.dumps({**info, key: value}))
    for name in ExportFormat:
        assert run(name, music, tmp_path / name).exported == 50, name


def test_a_name_that_is_not_utf8_fails_alone(tmp_path: Path) -> None:
    for name in ("good", "bad\udcff"):
        write_sound(tmp_path / "music" / "x.wav", 0.1)
        (tmp_path / "music" / "x.wav").rename(tmp_path / "music" / f"{name}.wav")
        (tmp_path / "music" / f"{name}.INFO").write_text('{"music_flamingo_full": "A caption."}')
    stats = run("parquet", tmp_path / "music", tmp_path / "out.parquet")
    assert (stats.exported, stats.failures) == (1, 1)


def test_a_mix_follows_weights_and_stays_per_track(captioned: Path, tmp_path: Path) -> None:
    options = ExportOptions(weights={"full": 4, "technical": 1}, columns=PRESETS)
    run("jsonl", captioned, tmp_path / "all.jsonl", options)
    drawn = {row["path"]: row["preset"] for row in read_jsonl(tmp_path / "all.jsonl")}
    assert 25 < Counter(drawn.values())["full"] < 49
    smaller = tmp_path / "my music"
    shutil.copytree(captioned, smaller)
    shutil.rmtree(smaller / "a")
    run("jsonl", smaller, tmp_path / "some.jsonl", options)
    rows = read_jsonl(tmp_path / "some.jsonl")
    assert 0 < len(rows) < 50
    assert all(drawn[row["path"]] == row["preset"] for row in rows)


@given(st.text())
def test_a_share_is_at_least_zero_and_below_one(text: str) -> None:
    assert 0 <= share(text) < 1
