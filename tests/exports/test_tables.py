"""CSV, JSON Lines and Parquet."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from musicflamingo_cli import exports
from musicflamingo_cli.choices import ExportFormat, PathStyle
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.exports import ExportOptions, ExportStats, Target
from musicflamingo_cli.text.t5_tokens import TokenStats, token_counter
from tests.exports.conftest import (
    PRESETS,
    fingerprint,
    read_csv,
    read_jsonl,
    read_parquet,
    run,
    true_captions,
    true_texts,
    write_track,
)


@pytest.mark.parametrize(("name", "read"), [("csv", read_csv), ("jsonl", read_jsonl), ("parquet", read_parquet)])
@pytest.mark.parametrize("paths", PathStyle)
def test_tables_hold_all_captions_unchanged(
    captioned: Path, tmp_path: Path, name: str, read: Any, paths: PathStyle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(captioned.parent)
    run(name, Path("my music"), tmp_path / "table", paths=paths)
    rows = read(tmp_path / "table")
    start = f"{captioned}/" if paths == PathStyle.ABSOLUTE else ""
    assert {row["path"]: row["text"] for row in rows} == {f"{start}{k}": v for k, v in true_texts(captioned).items()}
    assert {row["path"]: {preset: row[preset] for preset in PRESETS} for row in rows} == {
        f"{start}{path}": captions for path, captions in true_captions(captioned).items()
    }


@pytest.mark.parametrize(("name", "read"), [("csv", read_csv), ("jsonl", read_jsonl)])
def test_presets_named_like_columns_get_other_columns(tmp_path: Path, name: str, read: Any) -> None:
    presets = ["text", "text_caption", "path", "full"]
    info = {f"music_flamingo_{preset}": f"The caption of {preset}." for preset in presets}
    write_track(tmp_path / "music" / "a.wav", info)
    run(name, tmp_path / "music", tmp_path / name, ExportOptions(weights={"full": 1}, columns=presets))
    (row,) = read(tmp_path / name)
    assert (row["path"], row["text"]) == ("a.wav", "The caption of full.")
    captions = [value for key, value in row.items() if key not in ("path", "text", "preset")]
    assert sorted(captions) == sorted(info.values())


@pytest.mark.parametrize("name", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("kind", ["document", "link", "dangling", "fifo", "folder"])
def test_a_table_replaces_only_a_table(captioned: Path, tmp_path: Path, name: str, kind: str) -> None:
    out, document = tmp_path / "out", tmp_path / "thesis.doc"
    document.write_text("years of work")
    match kind:
        case "document":
            document.rename(out)
        case "link":
            out.symlink_to(document)
        case "dangling":
            out.symlink_to(tmp_path / "nowhere")
        case "fifo":
            os.mkfifo(out)
        case "folder":
            out.mkdir()
    before = out.lstat()
    with pytest.raises(ConfigError, match=r"is another kind of file|is a folder"):
        run(name, captioned, out, overwrite=True)
    assert (out.lstat().st_ino, out.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert (out if kind == "document" else document).read_text() == "years of work"


def test_parquet_without_its_package_is_one_message(
    captioned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for a dry run, and where an earlier export is to be replaced, which cannot be read."""
    out = tmp_path / "out.parquet"
    run("parquet", captioned, out)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for export in (exports.export, exports.rehearse):
        with pytest.raises(ConfigError, match="needs pyarrow") as caught:
            export(
                ExportFormat.PARQUET,
                captioned,
                Target(out=out, overwrite=True),
                ExportOptions(weights={"full": 1}, columns=[]),
                ExportStats(),
                TokenStats(counter=token_counter(None)),
            )
        assert "musicflamingo[export]" in caught.value.hint


def test_a_table_of_another_tool_is_not_replaced(captioned: Path, tmp_path: Path) -> None:
    """Each line of an audiocraft manifest begins with a path, too."""
    run("audiocraft", captioned, tmp_path / "out")
    before = fingerprint(tmp_path / "out")
    with pytest.raises(ConfigError, match="is another kind of file"):
        run("jsonl", captioned, tmp_path / "out" / "data.jsonl", overwrite=True)
    assert fingerprint(tmp_path / "out") == before


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t"])
def test_no_csv_cell_is_a_formula(tmp_path: Path, start: str) -> None:
    caption = f"{start}HYPERLINK(1)"
    write_track(tmp_path / "music" / f"{start}a.wav", {"music_flamingo_full": caption})
    options = ExportOptions(weights={"full": 1}, columns=["full"])
    run("csv", tmp_path / "music", tmp_path / "safe.csv", options)
    (row,) = read_csv(tmp_path / "safe.csv")
    assert not any(value.startswith(tuple("=+-@\t\r")) for value in row.values())
    assert (row["text"].removeprefix("'"), row["path"].removeprefix("./")) == (caption, f"{start}a.wav")
    run("csv", tmp_path / "music", tmp_path / "raw.csv", options, raw_cells=True)
    (row,) = read_csv(tmp_path / "raw.csv")
    assert (row["text"], row["path"]) == (caption, f"{start}a.wav")
