from __future__ import annotations

import json
from pathlib import Path

import pytest

from musicflamingo_cli.captioning import run_log
from musicflamingo_cli.captioning.run_log import RunLog
from musicflamingo_cli.errors import ConfigError, FailureKind
from musicflamingo_cli.types import Failure, Outcome, Summary, Track


def outcome(name: str, *kinds: str) -> Outcome:
    return Outcome(
        Track(Path(name), Path(name)), failures=tuple(Failure("full", FailureKind(kind), "why") for kind in kinds)
    )


def test_the_last_record_of_a_track_counts(tmp_path: Path) -> None:
    log = RunLog(None, [tmp_path])
    for each in (outcome("/a", "engine"), outcome("/b", "silent"), outcome("/c"), outcome("/a")):
        log.track(each)
    log.end(Summary(captioned=2, failed=1))
    assert run_log.latest([tmp_path]) == log.path
    assert run_log.latest([tmp_path / "other"]) is None
    assert run_log.failed(log.path) == {Path("/b"): ["silent"]}
    records = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert [record["event"] for record in records] == ["run", "track", "track", "track", "track", "end"]
    assert records[-1]["captioned"] == 2


def test_a_log_that_a_kill_cut_short_is_read_to_there(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = RunLog(path, [tmp_path])
    log.track(outcome("/a", "engine"))
    path.write_text(path.read_text() + '{"event": "tra')
    assert list(run_log.failed(path)) == [Path("/a")]


def test_names_that_are_not_utf8_come_back(tmp_path: Path) -> None:
    log = RunLog(None, [tmp_path])
    log.track(outcome("/\udcff.wav", "engine"))
    assert list(run_log.failed(log.path)) == [Path("/\udcff.wav")]


def test_the_oldest_logs_go(tmp_path: Path) -> None:
    folder = run_log.default_folder()
    folder.mkdir(parents=True)
    for number in range(60):
        (folder / f"20200101-{number:06}-1.jsonl").touch()
    RunLog(None, [tmp_path])
    assert len(list(folder.iterdir())) == 50


def test_an_unwritable_log_is_an_error_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="run log"):
        RunLog(tmp_path / "file" / "log.jsonl", [tmp_path])


@pytest.mark.parametrize("place", ["file", "x" * 300, "/sys"], ids=["a file", "too long", "read-only"])
def test_without_a_state_folder_there_is_no_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / place))
    log = RunLog(None, [tmp_path])
    log.track(outcome("/a"))
    log.end(Summary())
    (record,) = caplog.records
    assert "cannot write the run log" in record.getMessage()
    assert not log.is_kept
    assert run_log.latest([tmp_path]) is None
    assert run_log.last_seconds_per_track() is None


def test_a_full_disk_ends_the_log_and_not_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = RunLog(Path("/dev/full"), [tmp_path])
    log.track(outcome("/a"))
    log.end(Summary())
    (record,) = caplog.records
    assert "ends here" in record.getMessage()


def test_the_last_runs_pace(tmp_path: Path) -> None:
    assert run_log.last_seconds_per_track() is None
    folder = run_log.default_folder()
    folder.mkdir(parents=True)
    records = [{"event": "run", "time": "2026-11-21T08:00:00+00:00", "datasets": []}]
    records += [{"event": "track", "time": f"2026-11-21T08:00:{s}+00:00", "captions": ["full"]} for s in (10, 30, 40)]
    (folder / "20261121-080000-1.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "20261121-090000-1.jsonl").write_text(json.dumps(records[0]))  # one that captioned nothing
    assert run_log.last_seconds_per_track() == pytest.approx(40 / 3)
