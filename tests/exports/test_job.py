"""What holds for every format: same bytes, isolated failures, nothing lost, constant memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from musicflamingo_cli.choices import ExportFormat
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.exports import ExportOptions, tables
from musicflamingo_cli.exports.job import columns_of
from musicflamingo_cli.exports.output import MARKER
from tests.exports.conftest import PRESETS, audio_files, fingerprint, run, write_sound


def contents(folder: Path) -> dict[str, str]:
    """The files' fingerprints, without our record of them, which holds their times of modification."""
    return {name: each for name, each in fingerprint(folder).items() if not name.endswith(MARKER)}


@pytest.mark.parametrize("name", ExportFormat)
def test_a_second_export_has_the_same_bytes(captioned: Path, tmp_path: Path, name: ExportFormat) -> None:
    options = ExportOptions(weights={"full": 1, "technical": 1}, columns=PRESETS, validation=0.2)
    run(name, captioned, tmp_path / "out", options)
    first = contents(tmp_path / "out")
    run(name, captioned, tmp_path / "out", options, overwrite=True)
    assert contents(tmp_path / "out") == first
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # no temporary files remain


@pytest.mark.parametrize("name", ExportFormat)
def test_a_broken_sidecar_is_logged_and_the_rest_exported(
    music: Path, tmp_path: Path, name: ExportFormat, caplog: pytest.LogCaptureFixture
) -> None:
    next(music.rglob("Track 20*.INFO")).write_text("{broken")
    stats = run(name, music, tmp_path / "out")
    assert (stats.exported, stats.failures) == (49, 1)
    (line,) = caplog.messages
    assert "Track 20 v1.2" in line
    assert "not valid JSON" in line


@pytest.mark.parametrize("name", ["audiocraft", "ace-step", "webdataset"])
def test_unreadable_audio_costs_only_its_track(music: Path, tmp_path: Path, name: str) -> None:
    broken = next(path for path in audio_files(music) if path.name.startswith("Track 30"))
    broken.write_bytes(b"no sound")
    stats = run(name, music, tmp_path / "out")
    assert (stats.exported, stats.failures) == (49, 1)
    assert list((tmp_path / "out").rglob("Track 30*")) == []


@pytest.mark.parametrize("name", ExportFormat)
def test_an_empty_export_leaves_the_old_one(captioned: Path, tmp_path: Path, name: ExportFormat) -> None:
    run(name, captioned, tmp_path / "out")
    before = fingerprint(tmp_path / "out")
    with pytest.raises(ConfigError, match="nothing to export"):
        run(name, captioned, tmp_path / "out", ExportOptions(weights={"fulll": 1}, columns=["fulll"]), overwrite=True)
    assert fingerprint(tmp_path / "out") == before


def test_columns_are_unique() -> None:
    assert columns_of(["full", "text", "text_caption"]) == {
        "full": "full",
        "text": "text_caption_caption",
        "text_caption": "text_caption",
    }


@pytest.fixture(scope="module")
def long_captions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 tracks with captions of 20 kB, 40 of them in the folder `first`."""
    root = tmp_path_factory.mktemp("memory") / "music"
    sound = root.parent / "sound.wav"
    write_sound(sound, 0.1)
    for number in range(240):
        folder = root / ("first" if number < 40 else "others")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.wav").hardlink_to(sound)
        caption = f"Caption {number}. {'x' * 20_000}"  # one long word, so that counting its tokens is fast
        (folder / f"{number}.INFO").write_text(json.dumps({"music_flamingo_full": caption}))
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", ExportFormat)
def test_memory_does_not_grow_with_the_dataset(
    long_captions: Path, tmp_path: Path, name: ExportFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 more tracks may not cost 1 MB more; keeping their rows would cost 4 MB."""
    monkeypatch.setattr(tables, "_ROWS_PER_GROUP", 10)  # of Parquet, which are kept by design
    small = long_captions / "first"
    run(name, small, tmp_path / "warm-up")
    tracemalloc.start()
    try:
        run(name, small, tmp_path / "small")
        _, peak_of_small = tracemalloc.get_traced_memory()
        tracemalloc.clear_traces()
        run(name, long_captions, tmp_path / "large")
        _, peak_of_large = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_of_large - peak_of_small < 1_000_000
