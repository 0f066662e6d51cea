"""Captions that a person edited, which only `--overwrite --edited` replaces; updates of sidecars under their lock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from musicflamingo_cli.captioning.captioner import Captioner, Policy
from musicflamingo_cli.choices import Wanted
from musicflamingo_cli.cli import app
from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.exports.rows import ExportOptions, ExportStats, rows_of
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.merge import REMOVED, merge_sidecar, read_sidecar, splice, update_sidecar
from musicflamingo_cli.sidecars.staleness import CaptionSettings, CaptionState, state_of
from musicflamingo_cli.types import Prompt, Sampling, Track
from tests.conftest import MakeWav
from tests.fakes.engines import GOOD, REAL_PAIR, TINY_PAIR, ScriptedEngine

FULL = Preset("full", "Describe it.")
EDITED: dict[str, Any] = {
    "music_flamingo_full": "As a person wrote it.",
    "music_flamingo_provenance": {"full": {"edited": True, "toy": True, "model": "other.gguf"}},
}


@pytest.fixture
def track(make_wav: MakeWav) -> Track:
    audio = make_wav()
    audio.with_suffix(".INFO").write_text(json.dumps(EDITED))
    return Track(audio, audio.with_suffix(".INFO"))


def test_a_failure_beside_a_kept_caption_is_reported(track: Track) -> None:
    track.sidecar.write_text("{}")

    def reply(prompt: Prompt, sampling: Sampling) -> str:
        track.sidecar.write_text(json.dumps(EDITED))
        return GOOD if prompt.preset == "full" else ""

    captioner = Captioner(ScriptedEngine(reply), REAL_PAIR, Policy(retries=0))
    outcome = captioner.caption(track, [FULL, Preset("brief", "Be brief.")], {}, save=True)
    assert [failure.preset for failure in outcome.failures] == ["brief"]
    assert (outcome.saved, outcome.captions, outcome.skipped) == (False, (), "")
    assert "kept: full" in outcome.notes[-1]


@pytest.mark.parametrize("wanted", list(Wanted))
def test_no_run_asks_for_an_edited_caption(track: Track, wanted: Wanted) -> None:
    selection = Selection(wanted=wanted, settings=CaptionSettings(model="new.gguf", version="9"))
    assert selection.presets_of(track, EDITED, [FULL]) == []
    assert state_of(EDITED, FULL, selection.settings) == CaptionState.CAPTIONED


def test_overwrite_with_edited_asks_for_it(track: Track) -> None:
    assert Selection(wanted=Wanted.ALL, edited=True).presets_of(track, EDITED, [FULL]) == [FULL]


def test_an_edit_during_captioning_is_kept(track: Track) -> None:
    """The batch read the sidecar before the person saved."""
    track.sidecar.write_text("{}")

    def reply(*_: object) -> str:
        track.sidecar.write_text(json.dumps(EDITED))
        return GOOD

    captioner = Captioner(ScriptedEngine(reply), REAL_PAIR, Policy())
    outcome = captioner.caption(track, [FULL], {}, save=True)
    assert read_sidecar(track.sidecar) == EDITED
    assert (outcome.saved, outcome.captions) == (False, ())
    assert "kept: full" in outcome.skipped
    track.sidecar.write_text("{}")
    outcome = captioner.caption(track, [FULL, Preset("brief", "Be brief.")], {}, save=True)
    assert outcome.saved
    assert [caption.preset for caption in outcome.captions] == ["brief"]


@pytest.mark.parametrize("pair", [REAL_PAIR, TINY_PAIR], ids=["real", "tiny"])
@pytest.mark.parametrize("may_replace", [False, True])
def test_only_a_policy_of_its_own_replaces_edits(track: Track, pair: Any, may_replace: bool) -> None:
    policy = Policy(overwrite=True, replace_edited=may_replace)
    captioner = Captioner(ScriptedEngine(lambda *_: GOOD), pair, policy)
    outcome = captioner.caption(track, [FULL], read_sidecar(track.sidecar), save=True)
    now = read_sidecar(track.sidecar)
    assert (now["music_flamingo_full"] == GOOD) is may_replace
    assert ("kept the edited captions: full" in outcome.notes) is not may_replace
    assert bool(now["music_flamingo_provenance"]["full"].get("edited")) is not may_replace


def test_edited_alone_is_a_usage_error(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["batch", str(tmp_path), "--edited"])
    assert done.exit_code == 2
    assert "--edited needs --overwrite" in done.output


def test_exports_leave_out_excluded_tracks(make_wav: MakeWav, tmp_path: Path) -> None:
    for name, excluded in (("a", True), ("b", False)):
        info = {"music_flamingo_full": "Calm piano.", "music_flamingo_excluded": excluded}
        make_wav(f"{name}.wav").with_suffix(".INFO").write_text(json.dumps(info))
    stats = ExportStats()
    rows = rows_of(tmp_path, ExportOptions(weights={"full": 1}, columns=["full"]), stats)
    assert [row.path.name for row in rows] == ["b.wav"]
    assert stats.left_out == {"excluded in the review": 1}


@pytest.mark.parametrize(
    ("before", "values", "after"),
    [
        ('{"a": 1, "b": 2, "c": 3}', {"a": REMOVED}, '{"b": 2, "c": 3}'),
        ('{"a": 1, "b": 2, "c": 3}', {"b": REMOVED}, '{"a": 1, "c": 3}'),
        ('{"a": 1, "b": 2, "c": 3}', {"c": REMOVED, "b": 0}, '{"a": 1, "b": 0}'),
        ('{"a": 1, "b": 2, "c": 3}', {"a": REMOVED, "b": REMOVED}, '{"c": 3}'),
        ('{"a": 1}', {"a": REMOVED}, "{}"),
        ('{\n  "a": 1\n}\n', {"a": REMOVED, "x": 1}, '{\n  "x": 1\n}\n'),
        ('{\n  "a": 0.10,\n  "b": NaN\n}\n', {"z": REMOVED}, '{\n  "a": 0.10,\n  "b": NaN\n}\n'),
        (None, {"a": REMOVED, "x": 1}, '{\n  "x": 1\n}\n'),
    ],
)
def test_keys_are_removed_and_the_rest_stays(before: str | None, values: Mapping[str, Any], after: str) -> None:
    assert splice(before, values) == after


def test_what_is_added_and_removed_again_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "a.INFO"
    path.write_bytes(b'{\r\n  "bpm": 1e400,\r\n  "x": "\\ud800"\r\n}')
    before = path.read_bytes()
    merge_sidecar(path, {"music_flamingo_full": "Calm.", "music_flamingo_provenance": {"full": {"edited": True}}})
    assert path.read_bytes() != before
    merge_sidecar(path, {"music_flamingo_full": REMOVED, "music_flamingo_provenance": {"full": {}}})
    assert path.read_bytes() == before


def test_an_update_decides_by_what_is_there_and_may_refuse(tmp_path: Path) -> None:
    path = tmp_path / "a.INFO"
    update = update_sidecar(path, lambda info: {})
    assert (update.changed, update.before, update.after, path.exists()) == (False, {}, {}, False)
    update = update_sidecar(path, lambda info: {"music_flamingo_note": f"{len(info)}"})
    assert (update.changed, update.before, update.after) == (True, {}, {"music_flamingo_note": "0"})

    def refuse(info: Mapping[str, Any]) -> Mapping[str, Any]:
        raise LookupError(info["music_flamingo_note"])

    with pytest.raises(LookupError, match="0"):
        update_sidecar(path, refuse)
    assert [file.name for file in tmp_path.iterdir()] == ["a.INFO"]


def test_marks_leave_approvals_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.INFO"
    path.write_text(json.dumps({"music_flamingo_full": "Calm.", "music_flamingo_approved": True}))
    merge_sidecar(path, {"music_flamingo_note": "listen again", "music_flamingo_excluded": True})
    assert read_sidecar(path)["music_flamingo_approved"] is True
    merge_sidecar(path, {"music_flamingo_structure": "Verse."})
    now = read_sidecar(path)
    assert now["music_flamingo_approved"] is False
    assert now["music_flamingo_provenance"] == {"full": {"approved": True}}, "a note is no caption to approve"
