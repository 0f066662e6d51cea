"""Exports for MusicGen, read by audiocraft's own dataset; skipped where audiocraft is not installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from musicflamingo_cli.audio.segments import Cutting
from musicflamingo_cli.exports import ExportOptions
from tests.exports.audiocraft_package import audiocraft
from tests.exports.conftest import PRESETS, run, true_texts
from tests.exports.test_segments import caption_segments

pytestmark = pytest.mark.slow
RATE = 32_000  # MusicGen's
OPTIONS = ExportOptions(weights={"full": 1}, columns=["full"], segments=True)


@pytest.fixture(scope="module")
def hundred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten tracks of ten segments, exported for audiocraft."""
    folder = tmp_path_factory.mktemp("hundred")
    for number in range(10):
        audio = folder / "music" / f"Track {number} v1.2{('.wav', '.flac')[number % 2]}"
        audio.parent.mkdir(exist_ok=True)
        wave = 0.3 * np.sin(2 * np.pi * (200 + 20 * number) * np.arange(10 * RATE) / RATE)
        soundfile.write(audio, wave, RATE)
        caption_segments(audio, 10.0, Cutting(1, 1))
    run("audiocraft", folder / "music", folder / "out", OPTIONS)
    return folder


def test_100_segments_are_read_with_their_lengths(hundred: Path) -> None:
    dataset = audiocraft().music_dataset.MusicDataset.from_meta(
        hundred / "out", sample_rate=RATE, channels=1, shuffle=False
    )
    assert len(dataset) == 100
    found = {}
    for number in range(100):
        wave, info = dataset[number]
        assert tuple(wave.shape) == (1, RATE)
        assert (info.n_frames, info.meta.duration, info.meta.sample_rate) == (RATE, 1.0, RATE)
        path = Path(info.meta.path)
        assert np.array_equal(wave[0].numpy(), soundfile.read(path, dtype="float32")[0])
        found[path.stem] = info.description
        assert (info.key, info.genre, info.instrument) == ("a minor", "jazz", "piano")
        assert info.bpm == 100 + int(path.stem[-1])
        assert info.moods == ["warm"]
    assert len(found) == 100
    assert found["Track 3 v1.2-007"].startswith("Segment 7 of Track 3 v1.2: a warm jazz piece at 107 BPM")


def test_a_batch_of_segments_fills_the_conditioner(hundred: Path) -> None:
    """As its solver does: a batch of fixed length, its fields tokenised and embedded."""
    import torch

    conditioners = audiocraft().conditioners
    dataset = audiocraft().music_dataset.MusicDataset.from_meta(
        hundred / "out", segment_duration=0.75, sample_rate=RATE, channels=1, num_samples=8, min_segment_ratio=1.0
    )
    loader = torch.utils.data.DataLoader(dataset, batch_size=8, collate_fn=dataset.collater)
    waves, infos = next(iter(loader))
    assert tuple(waves.shape) == (8, 1, 24_000)
    assert all(info.n_frames == 24_000 for info in infos)
    attributes = [info.to_condition_attributes() for info in infos]
    names = ("description", "genre", "key", "instrument", "moods", "bpm", "name", "keywords")
    assert all(each.text[name] for each in attributes for name in names)
    provider = conditioners.ConditioningProvider(
        {name: conditioners.LUTConditioner(256, 16, 8, tokenizer="noop") for name in ("description", "genre", "key")}
    )
    for each in attributes:
        each.text = {name: each.text[name] for name in ("description", "genre", "key")}
        each.wav.clear()
    conditions = provider(provider.tokenize(attributes))
    assert {name: tuple(embedded.shape) for name, (embedded, _) in conditions.items()} == dict.fromkeys(
        ("description", "genre", "key"), (8, 1, 8)
    )
    assert all(mask.all() for _, mask in conditions.values())


def test_whole_tracks_are_read_too(captioned: Path, tmp_path: Path) -> None:
    run("audiocraft", captioned, tmp_path / "out")
    dataset = audiocraft().music_dataset.MusicDataset.from_meta(
        tmp_path / "out", sample_rate=22_050, channels=1, shuffle=False
    )
    read = [dataset[number] for number in range(len(dataset))]
    names = {Path(info.meta.path).relative_to(tmp_path / "out" / "audio").as_posix(): info for _, info in read}
    assert {name: info.description for name, info in names.items()} == true_texts(captioned)
    for wave, info in read:
        assert wave.shape[-1] == soundfile.info(info.meta.path).frames
    assert len(PRESETS) == 3
