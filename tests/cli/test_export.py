"""`musicflamingo export` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from musicflamingo_cli.cli import app
from tests.conftest import MakeWav


@pytest.fixture
def dataset(make_wav: MakeWav) -> Path:
    for number in range(4):
        audio = make_wav(f"music/{number}.wav", seconds=0.2)
        info = {"music_flamingo_full": f"A calm piece no. {number}.", "music_flamingo_brief": "Calm. " * 140 * number}
        audio.with_suffix(".INFO").write_text(json.dumps(info))
    return audio.parent


def test_json_says_what_was_exported(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (dataset / "3.INFO").write_text("{}")
    done = CliRunner().invoke(app, ["export", "jsonl", "music", "--json"])
    assert done.exit_code == 0
    said = json.loads(done.stdout)
    assert (said["exported"], said["left_out"], said["out"]) == (3, {"no caption": 1}, "music.jsonl")
    assert said["tokens"]["is_estimate"] is True
    assert len((tmp_path / "music.jsonl").read_text().splitlines()) == 3


def test_a_dry_run_writes_nothing(dataset: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(app, ["export", "txt", str(dataset), str(tmp_path / "out"), "--dry-run"])
    assert "4 tracks would be exported" in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_csv_cells_are_marked_unless_asked(dataset: Path, tmp_path: Path) -> None:
    (dataset / "0.INFO").write_text(json.dumps({"music_flamingo_full": "=HYPERLINK(1)"}))
    for name, more in (("marked.csv", []), ("raw.csv", ["--raw-cells"])):
        assert CliRunner().invoke(app, ["export", "csv", str(dataset), str(tmp_path / name), *more]).exit_code == 0
        assert ("'=HYPERLINK(1)" in (tmp_path / name).read_text()) is not bool(more)


def test_links_are_followed_only_when_asked(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "out").symlink_to(dataset)
    command = ["export", "txt", str(tmp_path / "links"), str(tmp_path / "out"), "--audio", "copy"]
    refused = CliRunner().invoke(app, command)
    assert (refused.exit_code, "a link that leads out of the dataset" in refused.stderr) == (2, True)
    assert CliRunner().invoke(app, [*command, "--follow-links"]).exit_code == 0
    assert len(list((tmp_path / "out").rglob("*.wav"))) == 4


def test_captions_that_a_trainer_would_cut_are_counted(dataset: Path, tmp_path: Path) -> None:
    arguments = ["export", "csv", str(dataset), str(tmp_path / "t.csv"), "--preset", "brief"]
    done = CliRunner().invoke(app, arguments)
    assert "3 of 3 captions are longer than the 128 tokens of Stable Audio Open (estimated" in done.stderr
    assert "2 of 3 captions are longer than the 512 tokens of T5" in done.stderr
    assert "  3.wav: " in done.stderr


def test_all_captions_that_a_trainer_may_draw_are_counted(dataset: Path, tmp_path: Path) -> None:
    arguments = [
        "export",
        "stable-audio",
        str(dataset),
        str(tmp_path / "out"),
        "-p",
        "full:50",
        "-p",
        "brief",
        "--json",
    ]
    tokens = json.loads(CliRunner().invoke(app, arguments).stdout)["tokens"]
    assert (tokens["captions"], tokens["beyond"]) == (7, {"Stable Audio Open (128)": 3, "T5 (512)": 2})
    assert [item["track"] for item in tokens["too_long"]] == ["1.wav", "2.wav", "3.wav"]


def test_the_default_place_is_never_inside_the_dataset(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dataset)
    assert CliRunner().invoke(app, ["export", "txt", "."]).exit_code == 0
    assert len(list((dataset.parent / "music-txt").glob("*.txt"))) == 4


def test_a_broken_sidecar_is_named_and_ends_with_1(dataset: Path, tmp_path: Path) -> None:
    (dataset / "1.INFO").write_text("{")
    done = CliRunner().invoke(app, ["export", "csv", str(dataset), str(tmp_path / "t.csv")])
    assert done.exit_code == 1
    assert "1.INFO" in done.stderr
    assert "3 tracks exported" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says", "hint"),
    [
        (["parket", "music"], "parket", "parquet"),
        (["csv", "musik"], "no such folder: musik", "check the path"),
        (["csv", "music", "--preset", "full:x"], "weight must be a number above 0", "full:2"),
        (["csv", "music", "--preset", "model"], "that sidecar key is no caption", "prompts list"),
        (["csv", "music", "--audio", "copy"], "--audio does not apply to csv", "leave it out"),
        (["csv", "music", "--preset", "fulll"], "nothing to export: no caption (4)", "--preset NAME"),
        (["csv", "music", "music/0.INFO", "--overwrite"], "is inside the dataset", "outside"),
        (["csv", "music", "file/x.csv"], "cannot write file/x.csv", "another place"),
        (["csv", "music", "--paths", "odd"], "odd", "absolute"),
        (["txt", "music", "--audio", "move"], "move", "copy"),
        (["txt", "music", "music/out"], "is inside the dataset", "outside"),
    ],
)
def test_wrong_usage_is_one_error_that_says_what_to_do(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str, hint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    done = CliRunner().invoke(app, ["export", *arguments])
    assert done.exit_code == 2
    assert says in done.stderr
    assert hint in done.stderr
