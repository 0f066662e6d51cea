"""`musicflamingo check` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from musicflamingo_cli.cli import app
from tests.conftest import MakeWav
from tests.trust.test_check import write_track

runner = CliRunner()


@pytest.fixture
def dataset(make_wav: MakeWav, tmp_path: Path) -> Path:
    write_track(make_wav("right.wav"), music_flamingo_full="It runs at 95 BPM in E minor.")
    write_track(make_wav("wrong.wav"), music_flamingo_full="It runs at 131 BPM in E minor.")
    return tmp_path


def test_the_table_lists_what_is_doubtful(dataset: Path) -> None:
    done = runner.invoke(app, ["check", str(dataset)])
    assert done.exit_code == 0, done.output
    assert "wrong.wav" in done.stdout
    assert "right.wav" not in done.stdout
    assert "2 of 2 tracks have captions: 1 with a contradiction, 0 in doubt" in done.stdout
    assert "right.wav" in runner.invoke(app, ["check", str(dataset), "--all"]).stdout


def test_json_has_one_line_a_track(dataset: Path) -> None:
    done = runner.invoke(app, ["check", str(dataset), "--json", "--dry-run"])
    right, wrong = map(json.loads, done.stdout.splitlines())
    assert (right["score"], right["contradicted"]) == (1.0, [])
    assert (wrong["score"], wrong["contradicted"]) == (0.4, ["full"])
    (tempo,) = [claim for claim in wrong["claims"] if claim["field"] == "tempo"]
    assert (tempo["value"], tempo["verdict"]) == ("131", "contradicted")
    assert tempo["evidence"][0]["source"] == "measured"
    assert "music_flamingo_check" not in (dataset / "wrong.INFO").read_text()


def test_status_counts_checked_doubtful_and_outdated(dataset: Path) -> None:
    def counts() -> dict[str, int]:
        found: dict[str, int] = json.loads(runner.invoke(app, ["status", str(dataset), "--json"]).stdout)["check"]
        return found

    assert counts() == {"checked": 0, "outdated": 0, "contradicted": 0}
    runner.invoke(app, ["check", str(dataset)])
    assert counts() == {"checked": 2, "outdated": 0, "contradicted": 1}
    assert "2 checked, 1 with a contradiction" in runner.invoke(app, ["status", str(dataset)]).stdout
    write_track(dataset / "wrong.wav", **{**json.loads((dataset / "wrong.INFO").read_text()), "bpm": 131})
    assert counts() == {"checked": 1, "outdated": 1, "contradicted": 0}
