"""The evaluation, on models that are right, wrong or silent on command."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

from musicflamingo_cli import Analysis
from tiny_flamingo import captions, music
from tiny_flamingo.evaluate import FIRST_SEED, clips, evaluate
from tiny_flamingo.music import TRAIN_SEEDS


class Answers:
    """Says of each clip what is true of the song of another seed: ``off`` by so many."""

    def __init__(self, off: int | None) -> None:
        self.off = off

    def analyze_many(self, paths: list[Path], presets: list[str]) -> Iterator[Analysis]:
        for path in reversed(paths):  # as they are done
            assert soundfile.info(path).samplerate == 44100
            said: dict[str, Any] = {}
            if self.off is not None:
                song = music.random_song(int(path.stem) + self.off)
                said = {preset: captions.caption(song, preset, random.Random(0)) for preset in presets}
            yield Analysis(path, said, (), 1.0, 1.0)


@pytest.mark.parametrize(("off", "lowest", "highest"), [(0, 1.0, 1.0), (7, 0.0, 0.9), (None, 0.0, 0.0)])
def test_what_is_right_is_counted(tmp_path: Path, off: int | None, lowest: float, highest: float) -> None:
    accuracy = evaluate(Answers(off), dict(clips(tmp_path, 12)))
    assert set(accuracy) == set(captions.NAMED)
    assert all(lowest <= share <= highest for share in accuracy.values())


def test_no_song_is_trained_on() -> None:
    assert FIRST_SEED + 100_000 < TRAIN_SEEDS
