from __future__ import annotations

from pathlib import Path

from musicflamingo_cli.captioning import status
from musicflamingo_cli.captioning.batch import Dataset
from musicflamingo_cli.captioning.run_log import RunLog
from musicflamingo_cli.errors import FailureKind
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.merge import merge_sidecar
from musicflamingo_cli.sidecars.staleness import CaptionSettings
from musicflamingo_cli.types import Failure, Outcome, Track

PRESETS = (Preset("full", "x"), Preset("brief", "y"))


def test_a_dataset_as_its_sidecars_say(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.wav").touch()
    (tmp_path / "a.mp3").touch()
    made = {"model": "m.gguf", "audio_seconds": 1800.0}
    both = {"music_flamingo_full": "x", "music_flamingo_brief": "y"}
    merge_sidecar(tmp_path / "a.INFO", {**both, "music_flamingo_provenance": {"full": made, "brief": made}})
    pieces: list[dict[str, object]] = [
        {"start": 0, "end": 30, "captions": {"full": "x", "brief": "y"}},
        {"start": 30, "end": 60, "captions": {"full": "x"}},
        {"start": 60, "end": 64, "captions": {}, "silent": True},
    ]
    merge_sidecar(tmp_path / "b.INFO", {"music_flamingo_full": "x", "music_flamingo_segments": pieces})
    (tmp_path / "d.INFO").write_text("broken")
    log = RunLog(None, [tmp_path])
    for name in "abc":
        track = Track(tmp_path / f"{name}.wav", tmp_path / f"{name}.INFO")
        log.track(Outcome(track, failures=(Failure("", FailureKind.ENGINE, "died"),)))
    before = sorted(tmp_path.iterdir())
    found = status.as_json(status.examine([Dataset(tmp_path, PRESETS)], CaptionSettings()), [tmp_path])
    assert sorted(tmp_path.iterdir()) == before
    assert found == {
        "datasets": [str(tmp_path)],
        "tracks": 4,
        "complete": 1,
        "untouched": 1,
        "unreadable_sidecars": 1,
        "skipped": 1,
        "links_not_followed": 0,
        "failed_in_last_run": 2,  # a was captioned since
        "heard_hours": 0.5,
        "check": {"checked": 0, "outdated": 0, "contradicted": 0},
        "segments": {"tracks": 1, "segments": 3, "complete": 2},
        "presets": {
            "full": {"captioned": 2, "missing": 1, "outdated": 0},
            "brief": {"captioned": 1, "missing": 2, "outdated": 0},
        },
    }
    blind = status.as_json(status.examine([Dataset(tmp_path, PRESETS)], None), [tmp_path])
    assert blind["presets"]["full"] == {"captioned": 2, "missing": 1, "outdated": None}  # nothing to compare with
    other = status.examine([Dataset(tmp_path, PRESETS)], CaptionSettings(model="other.gguf"))
    assert other.presets["full"] == {"captioned": 0, "missing": 1, "outdated": 2}


def test_links_that_are_not_followed_are_counted(tmp_path: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    for folder in (data, other):
        folder.mkdir()
        (folder / "a.wav").touch()
    (data / "a.mp3").touch()
    (data / "one").symlink_to(other)
    (data / "two").symlink_to(tmp_path)
    found = status.examine([Dataset(data, PRESETS)], None)
    assert (found.tracks, found.skipped, found.links_out) == (1, 3, 2)
    assert status.as_json(found, [data])["links_not_followed"] == 2
    followed = status.examine([Dataset(data, PRESETS)], None, follow_links=True)
    assert (followed.tracks, followed.skipped, followed.links_out) == (2, 1, 0)
