"""WebDataset exports, read back by the webdataset package."""

from __future__ import annotations

import errno
import io
import json
from pathlib import Path
from typing import Any

import pytest
import soundfile

from musicflamingo_cli.exports import ExportOptions
from musicflamingo_cli.exports.webdataset import _ShardWriter
from tests.exports.conftest import PRESETS, read_csv, run, true_captions, true_texts


def samples_in(folder: Path) -> list[dict[str, Any]]:
    """All samples of a folder's shards."""
    import webdataset

    shards = sorted(map(str, folder.glob("*.tar")))
    return list(webdataset.WebDataset(shards, shardshuffle=False).decode())


def test_webdataset_reads_all_captions(captioned: Path, tmp_path: Path) -> None:
    run("webdataset", captioned, tmp_path / "out", shard_size=20)
    config = json.loads((tmp_path / "out" / "dataset.json").read_text())
    folder = Path(config["datasets"][0]["path"])
    assert config["dataset_type"] == "wds"
    assert len(list(folder.glob("*.tar"))) == 3
    samples = samples_in(folder)
    assert len({sample["__key__"] for sample in samples}) == 50
    for sample in samples:
        about = sample["json"]
        extension = Path(about["path"]).suffix.lstrip(".")
        assert sample[extension] == (captioned / about["path"]).read_bytes()
        assert about["text"] == about["prompt"]
        assert about["seconds_total"] == pytest.approx(soundfile.info(captioned / about["path"]).duration)
    assert {sample["json"]["path"]: sample["json"]["text"] for sample in samples} == true_texts(captioned)
    assert {sample["json"]["path"]: sample["json"]["captions"] for sample in samples} == true_captions(captioned)


def test_a_read_error_inside_a_tar_costs_one_sample(
    captioned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = _ShardWriter._write
    calls: list[str] = []

    def flaky(self: Any, tar: Any, suffix: str, size: int, content: Any) -> None:
        calls.append(suffix)
        if len(calls) == 7:  # the fourth track's audio: header and some data are written, then the disk fails
            write(self, tar, suffix, 100, io.BytesIO(b"x" * 100))
            tar.fileobj.write(b"half a member")
            raise OSError(errno.EIO, "Input/output error")
        write(self, tar, suffix, size, content)

    monkeypatch.setattr(_ShardWriter, "_write", flaky)
    stats = run("webdataset", captioned, tmp_path / "out")
    assert (stats.exported, stats.failures) == (49, 1)
    samples = samples_in(tmp_path / "out")
    assert len(samples) == 49
    for sample in samples:
        path = sample["json"]["path"]
        assert sample[Path(path).suffix.lstrip(".")] == (captioned / path).read_bytes()


def test_a_split_whose_only_track_fails_has_no_config(music: Path, tmp_path: Path) -> None:
    options = ExportOptions(weights={"full": 1}, columns=PRESETS, validation=0.02)
    run("csv", music, tmp_path / "t.csv", options)
    validation = [row["path"] for row in read_csv(tmp_path / "t.csv") if row["split"] == "validation"]
    for path in validation:
        (music / path).write_bytes(b"no sound")
    assert validation
    run("webdataset", music, tmp_path / "out", options)
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name[0] != ".") == ["train", "train.json"]
