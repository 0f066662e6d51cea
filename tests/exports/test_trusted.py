"""Exports that use the check: only trusted tracks, revised captions, fields that prefer what is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from musicflamingo_cli.cli import app
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.exports import ExportOptions
from musicflamingo_cli.sidecars.captions import MEASURED_KEY
from musicflamingo_cli.sidecars.checks import basis_of
from musicflamingo_cli.trust import measured
from musicflamingo_cli.trust.scan import check_dataset
from tests.exports.conftest import read_csv, read_jsonl, run, write_track
from tests.exports.test_stable_audio import samples_of
from tests.trust.test_check import measurement

OPTIONS = ExportOptions(weights={"full": 1}, columns=("full",))
WRONG = "A calm piece. It runs at 131 BPM in E minor."


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """Two measured tracks of 95 BPM in E minor, one with a wrong tempo in its caption."""
    root = tmp_path / "songs"
    known = {MEASURED_KEY: measured.as_json(measurement())}
    write_track(root / "right.wav", {"music_flamingo_full": "A calm piece. It runs at 95 BPM in E minor.", **known})
    write_track(root / "wrong.wav", {"music_flamingo_full": WRONG, **known})
    return root


def texts(out: Path) -> dict[str, str]:
    return {row["path"]: row["text"] for row in read_jsonl(out)}


def test_only_trusted_tracks_are_exported(music: Path, tmp_path: Path) -> None:
    list(check_dataset(music))
    stats = run("jsonl", music, tmp_path / "a.jsonl", replace(OPTIONS, min_trust=0.9))
    assert set(texts(tmp_path / "a.jsonl")) == {"right.wav"}
    assert stats.left_out == {"below --min-trust": 1}


def test_a_track_that_was_not_checked_is_not_trusted(music: Path, tmp_path: Path) -> None:
    list(check_dataset(music))
    sidecar = music / "right.INFO"
    sidecar.write_text(sidecar.read_text().replace("calm", "slow"))
    stats = run("jsonl", music, tmp_path / "a.jsonl", replace(OPTIONS, min_trust=0.0))
    assert set(texts(tmp_path / "a.jsonl")) == {"wrong.wav"}
    assert stats.left_out == {"not checked, or changed since (run: musicflamingo check)": 1}


@pytest.mark.parametrize(
    ("option", "expected", "change"),
    [
        ("strike", "A calm piece.", "full: removed: It runs at 131 BPM in E minor."),
        ("correct", "A calm piece. It runs at 95 BPM in E minor.", "full: tempo 131 -> 95"),
    ],
)
def test_wrong_claims_are_struck_or_corrected(
    music: Path, tmp_path: Path, option: str, expected: str, change: str
) -> None:
    before = (music / "wrong.INFO").read_bytes()
    options = replace(OPTIONS, strike=option == "strike", correct=option == "correct")
    stats = run("jsonl", music, tmp_path / "a.jsonl", options)
    rows = {row["path"]: row for row in read_jsonl(tmp_path / "a.jsonl")}
    assert (rows["wrong.wav"]["text"], rows["wrong.wav"]["full"]) == (expected, expected)
    assert (rows["wrong.wav"]["changes"], rows["right.wav"]["changes"]) == (change, "")
    assert stats.revised == 1
    assert (music / "wrong.INFO").read_bytes() == before
    run("csv", music, tmp_path / "a.csv", options)
    assert {row["changes"] for row in read_csv(tmp_path / "a.csv")} == {change, ""}


@pytest.mark.parametrize(
    "approved",
    [
        {"music_flamingo_approved": True},
        {"music_flamingo_provenance": {"full": {"approved": True}}},
    ],
)
def test_what_a_person_approved_is_exported_as_it_is(music: Path, tmp_path: Path, approved: dict[str, Any]) -> None:
    sidecar = music / "wrong.INFO"
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), **approved}))
    stats = run("jsonl", music, tmp_path / "a.jsonl", replace(OPTIONS, strike=True, correct=True))
    assert texts(tmp_path / "a.jsonl")["wrong.wav"] == WRONG
    assert stats.revised == 0


def test_fields_are_not_what_the_tiny_model_claims(tmp_path: Path) -> None:
    captions = {"music_flamingo_full": "A piano piece.", "music_flamingo_brief": "It runs at 131 BPM in E minor."}
    made = {"brief": {"toy": True}}
    write_track(tmp_path / "songs" / "a.wav", {**captions, "music_flamingo_provenance": made})
    run("ace-step", tmp_path / "songs", tmp_path / "out", OPTIONS)
    about = json.loads((tmp_path / "out" / "a.json").read_text())
    assert not about["bpm"]
    assert not about["keyscale"]


def test_a_caption_that_is_struck_wholly_is_left_out(music: Path, tmp_path: Path) -> None:
    sidecar = music / "wrong.INFO"
    sidecar.write_text(sidecar.read_text().replace("A calm piece. ", ""))
    stats = run("txt", music, tmp_path / "out", replace(OPTIONS, strike=True))
    assert stats.left_out == {"nothing left after --strike": 1}


def test_folders_record_what_was_changed_in_a_file(music: Path, tmp_path: Path) -> None:
    run("txt", music, tmp_path / "out", replace(OPTIONS, correct=True))
    assert (tmp_path / "out" / "wrong.txt").read_text() == "A calm piece. It runs at 95 BPM in E minor."
    (line,) = read_jsonl(tmp_path / "out" / "changes.jsonl")
    assert line == {"path": "wrong.wav", "changes": {"full": ["tempo 131 -> 95"]}}
    run("txt", music, tmp_path / "plain")
    assert not (tmp_path / "plain" / "changes.jsonl").exists()


def test_an_export_with_changes_can_be_replaced(music: Path, tmp_path: Path) -> None:
    for name in ("txt", "stable-audio", "audiofolder", "webdataset"):
        for _ in range(2):
            stats = run(name, music, tmp_path / name, replace(OPTIONS, correct=True), overwrite=True)
            assert stats.revised == 1


def test_stable_audio_trains_with_the_revised_caption(music: Path, tmp_path: Path) -> None:
    run("stable-audio", music, tmp_path / "out", replace(OPTIONS, correct=True))
    config = tmp_path / "out" / "dataset.json"
    assert samples_of(config)["wrong.wav"] == {"prompt": "A calm piece. It runs at 95 BPM in E minor."}
    sidecar = music / "wrong.INFO"
    sidecar.write_text(sidecar.read_text().replace("A calm piece.", "A new caption."))
    assert samples_of(config)["wrong.wav"] == {"prompt": "A new caption. It runs at 131 BPM in E minor."}


@pytest.mark.parametrize(
    ("info", "caption", "fields"),
    [
        ({}, WRONG, {"bpm": 95, "keyscale": "E minor"}),  # measured before claimed
        ({"bpm": 131, "key": "G major"}, WRONG, {"bpm": 131, "keyscale": "G major"}),  # stated before measured
        ({MEASURED_KEY: None}, WRONG, {"bpm": 131, "keyscale": "E minor"}),  # claimed
        ({}, "A waltz in 3/4 sung in French by a woman.", {"timesignature": "3", "language": "fr"}),
        ({}, "A waltz in 3/4 sung in French by a woman.", {"is_instrumental": False}),
        ({}, "An instrumental in 7/8.", {"timesignature": "", "language": "unknown", "is_instrumental": True}),
        ({}, "A piano piece.", {"timesignature": "", "language": "unknown", "is_instrumental": None}),
        ({"language": "German"}, "A song.", {"language": "de"}),
    ],
)
def test_fields_prefer_what_is_known(
    tmp_path: Path, info: dict[str, Any], caption: str, fields: dict[str, Any]
) -> None:
    known = {MEASURED_KEY: measured.as_json(measurement())}
    write_track(tmp_path / "songs" / "a.wav", {"music_flamingo_full": caption, **known, **info})
    run("ace-step", tmp_path / "songs", tmp_path / "out", OPTIONS)
    about = json.loads((tmp_path / "out" / "a.json").read_text())
    assert {name: about[name] for name in fields} == fields


def write_short(music: Path, made_from: dict[str, str]) -> None:
    made = {"short": {"model": "x", "made_from": made_from}}
    known = {MEASURED_KEY: measured.as_json(measurement())}
    captions = {"music_flamingo_full": WRONG, "music_flamingo_short": "A calm piece at 131 BPM."}
    write_track(music / "wrong.wav", {**captions, **known, "music_flamingo_provenance": made})


def test_a_short_version_is_exported_and_corrected(music: Path, tmp_path: Path) -> None:
    write_short(music, basis_of({"music_flamingo_full": WRONG})["captions"])
    options = replace(OPTIONS, weights={"short": 1}, columns=("short",))
    assert run("jsonl", music, tmp_path / "a.jsonl", options).left_out == {"no caption": 1}
    assert texts(tmp_path / "a.jsonl") == {"wrong.wav": "A calm piece at 131 BPM."}
    run("jsonl", music, tmp_path / "b.jsonl", replace(options, correct=True))
    assert texts(tmp_path / "b.jsonl") == {"wrong.wav": "A calm piece at 95 BPM."}


def test_an_outdated_short_version_is_not_exported(music: Path, tmp_path: Path) -> None:
    write_short(music, basis_of({"music_flamingo_full": "Another caption."})["captions"])
    options = replace(OPTIONS, weights={"short": 1}, columns=("short",))
    with pytest.raises(ConfigError, match="outdated short version"):
        run("jsonl", music, tmp_path / "a.jsonl", options)


def test_the_command_takes_the_short_version(music: Path, tmp_path: Path) -> None:
    write_short(music, basis_of({"music_flamingo_full": WRONG})["captions"])
    result = CliRunner().invoke(app, ["export", "jsonl", str(music), str(tmp_path / "a.jsonl"), "-p", "short"])
    assert result.exit_code == 0, result.output
    assert texts(tmp_path / "a.jsonl") == {"wrong.wav": "A calm piece at 131 BPM."}
