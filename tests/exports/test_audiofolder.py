"""AudioFolder exports, read back by Hugging Face datasets."""

from __future__ import annotations

from pathlib import Path

import pytest

from musicflamingo_cli.exports import ExportOptions
from tests.exports.conftest import PRESETS, run, true_captions, true_texts, write_track


@pytest.fixture(autouse=True)
def _no_codec_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encode audio as datasets does for a path; its own code first requires torch and torchcodec."""
    import datasets

    monkeypatch.setattr(datasets.Audio, "encode_example", lambda self, path: {"bytes": None, "path": path})


@pytest.mark.parametrize("validation", [0.0, 0.3])
def test_huggingface_datasets_reads_all_captions(captioned: Path, tmp_path: Path, validation: float) -> None:
    import datasets

    options = ExportOptions(weights={"full": 1}, columns=PRESETS, validation=validation)
    run("audiofolder", captioned, tmp_path / "out", options)
    read = datasets.load_dataset("audiofolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert set(read) == ({"train", "validation"} if validation else {"train"})
    found, columns = {}, {}
    for split in read.values():
        for row in split.cast_column("audio", datasets.Audio(decode=False)):
            assert Path(row["audio"]["path"]).read_bytes() == (captioned / row["path"]).read_bytes()
            found[row["path"]] = row["text"]
            columns[row["path"]] = {preset: row[preset] for preset in PRESETS}
    assert found == true_texts(captioned)
    assert columns == true_captions(captioned)


@pytest.mark.parametrize("validation", [0.0, 0.5, 0.0001])
def test_names_like_splits_do_not_make_splits(tmp_path: Path, validation: float) -> None:
    """At 0.0001 the validation split is empty, and the loader still accepts the others."""
    import datasets

    names = ["soul train 2", "test_01", "test/a", "dev/b", "validation/c", "plain", "my-eval-x", "d", "e"]
    for name in names:
        write_track(tmp_path / "music" / f"{name}.wav", {"music_flamingo_full": f"This is {name}."})
    options = ExportOptions(weights={"full": 1}, columns=["full"], validation=validation)
    run("audiofolder", tmp_path / "music", tmp_path / "out", options)
    read = datasets.load_dataset("audiofolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    found = {row["path"]: row["text"] for split in read.values() for row in split.remove_columns("audio")}
    assert found == {f"{name}.wav": f"This is {name}." for name in names}
