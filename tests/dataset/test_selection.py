from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.types import Track

ROOT = Path("/data")
STEMS = st.lists(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1), unique=True)


def track(name: str) -> Track:
    return Track(ROOT / name, ROOT / "x.INFO")


@given(STEMS, st.integers(1, 7))
def test_every_track_is_in_exactly_one_shard(stems: list[str], count: int) -> None:
    for stem in stems:
        shards = [Selection(shard=(index, count)) for index in range(1, count + 1)]
        assert sum(shard.takes(track(f"{stem}.wav"), ROOT) for shard in shards) == 1


@given(STEMS, st.floats(0.01, 0.98), st.integers(0, 3))
def test_a_larger_sample_holds_the_smaller_one(stems: list[str], share: float, seed: int) -> None:
    smaller, larger = Selection(sample=share, seed=seed), Selection(sample=share + 0.01, seed=seed)
    for stem in stems:
        assert larger.takes(track(stem), ROOT) or not smaller.takes(track(stem), ROOT)


def test_a_sample_has_its_size_and_changes_with_the_seed() -> None:
    names = [f"{number}.wav" for number in range(5000)]
    taken = [{name for name in names if Selection(sample=0.2, seed=seed).takes(track(name), ROOT)} for seed in (1, 2)]
    assert all(900 < len(sample) < 1100 for sample in taken)
    assert len(taken[0] & taken[1]) < 300


@pytest.mark.parametrize(
    ("selection", "taken"),
    [
        (Selection(), ["Rock/a.flac", "Rock/live/b.wav", "c.MP3"]),
        (Selection(include=("*.flac", "c.*")), ["Rock/a.flac", "c.MP3"]),
        (Selection(include=("Rock/*",)), ["Rock/a.flac", "Rock/live/b.wav"]),
        (Selection(exclude=("*/live/*",)), ["Rock/a.flac", "c.MP3"]),
        (Selection(include=("Rock/*",), exclude=("b.*",)), ["Rock/a.flac"]),
        (Selection(extensions=("mp3", "wav")), ["Rock/live/b.wav", "c.MP3"]),
        (Selection(only=frozenset([ROOT / "c.MP3"])), ["c.MP3"]),
    ],
)
def test_choosing(selection: Selection, taken: list[str]) -> None:
    names = ["Rock/a.flac", "Rock/live/b.wav", "c.MP3"]
    assert [name for name in names if selection.takes(track(name), ROOT)] == taken
