"""`batch --redo-doubtful`: only contradicted captions are asked again, and the better one is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from musicflamingo_cli.captioning.captioner import NO_BETTER, Captioner, Policy
from musicflamingo_cli.choices import Wanted
from musicflamingo_cli.cli import app
from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.sidecars.staleness import CaptionSettings, CaptionState, state_of
from musicflamingo_cli.trust.scan import check_dataset
from musicflamingo_cli.types import Outcome, Sampling
from tests.conftest import MakeWav
from tests.fakes.engines import REAL_PAIR, ScriptedEngine
from tests.trust.test_check import write_track

PRESETS = [Preset("full", "Describe it."), Preset("brief", "Be brief.")]
WRONG = "It is a calm piece at 131 BPM in Eb major."  # of a track of 95 BPM in E minor


@pytest.fixture
def audio(make_wav: MakeWav) -> Path:
    """A checked track whose full caption is wrong in two things, and whose brief one is right."""
    audio = make_wav("songs/a.wav", seconds=2.0)
    write_track(audio, music_flamingo_full=WRONG, music_flamingo_brief="It is calm, at 95 BPM.")
    list(check_dataset(audio.parent))
    return audio


def improve(audio: Path, answers: list[str]) -> tuple[Outcome, dict[str, Any]]:
    """Ask for the full caption again; each try gets the next answer. Return the outcome and the sidecar's data."""
    left = iter(answers)
    engine = ScriptedEngine(lambda prompt, sampling: next(left))
    captioner = Captioner(engine, REAL_PAIR, Policy(sampling=Sampling(seed=7), retries=2, improve=True))
    track = track_for(audio)
    outcome = captioner.caption(track, PRESETS[:1], read_sidecar(track.sidecar), save=True)
    assert [sampling.seed for _, sampling in engine.asked] == [7, 8, 9][: len(engine.asked)]
    return outcome, read_sidecar(track.sidecar)


def test_an_answer_without_contradictions_ends_the_search(audio: Path) -> None:
    outcome, info = improve(audio, ["It runs at 150 BPM in E minor.", "It runs at 95 BPM in E minor."])
    assert info["music_flamingo_full"] == "It runs at 95 BPM in E minor."
    assert outcome.saved
    assert info["music_flamingo_provenance"]["full"]["redone"] is True


def test_the_best_of_all_answers_is_kept(audio: Path) -> None:
    outcome, info = improve(audio, [WRONG, "It runs at 131 BPM in E minor.", "It is slow, at 150 BPM in Eb major."])
    assert info["music_flamingo_full"] == "It runs at 131 BPM in E minor."
    assert not outcome.failures


def test_the_caption_stays_where_no_answer_is_better(audio: Path) -> None:
    outcome, info = improve(audio, ["It runs at 131 BPM in Ab major.", "no", "It runs at 150 BPM in Eb major."])
    assert info["music_flamingo_full"] == WRONG
    assert (outcome.skipped, outcome.failures, outcome.saved) == (NO_BETTER, (), False)


def test_lengths_of_the_provenance_count_as_in_the_check(audio: Path) -> None:
    """Of a track that was not measured: what contradicts its caption contradicts the new one as well."""
    made = {"full": {"audio_seconds": 2.0}}
    wrong = "A calm piece. The track is 3 minutes long."
    track = track_for(audio)
    info = {"music_flamingo_full": wrong, "music_flamingo_provenance": made}
    track.sidecar.write_text(json.dumps(info))
    list(check_dataset(audio.parent))
    assert read_sidecar(track.sidecar)["music_flamingo_check"]["contradicted"] == ["full"]
    outcome, info = improve(audio, ["A slow piece. The track is 4 minutes long."] * 3)
    assert (info["music_flamingo_full"], outcome.skipped) == (wrong, NO_BETTER)


def test_only_contradicted_captions_are_selected(audio: Path) -> None:
    selection = Selection(wanted=Wanted.CONTRADICTED)
    track = track_for(audio)

    def selected(**change: Any) -> list[str]:
        info = {**read_sidecar(track.sidecar), **change}
        return [preset.name for preset in selection.presets_of(track, info, PRESETS)]

    assert selected() == ["full"]
    assert selected(music_flamingo_full="Another caption.") == []  # since the check
    assert selected(music_flamingo_approved=True) == []
    assert selected(music_flamingo_provenance={"full": {"approved": True}}) == []


def test_a_redone_caption_is_not_outdated_for_its_seed() -> None:
    sampling = Sampling()
    made = {"temperature": sampling.temperature, "top_p": sampling.top_p, "repeat_penalty": 1.1, "seed": 999}
    info: dict[str, Any] = {"music_flamingo_full": "Calm.", "music_flamingo_provenance": {"full": made}}
    now = CaptionSettings(sampling=sampling)
    assert state_of(info, PRESETS[0], now) == CaptionState.OUTDATED
    made["redone"] = True
    assert state_of(info, PRESETS[0], now) == CaptionState.CAPTIONED
    assert state_of(info, PRESETS[0], replace(now, sampling=Sampling(temperature=0.1))) == CaptionState.OUTDATED


def test_a_dry_run_lists_what_would_be_asked_again(audio: Path, random_models: Path) -> None:
    words = ["batch", str(audio.parent), "--redo-doubtful", "--dry-run", "--json", "--models-dir", str(random_models)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    (line,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert line["would_ask"] == ["full"]


@pytest.mark.parametrize("option", ["--stale", "--overwrite"])
def test_redoing_excludes_other_choices(audio: Path, option: str) -> None:
    done = CliRunner().invoke(app, ["batch", str(audio.parent), "--redo-doubtful", option])
    assert done.exit_code == 2
    assert "exclude each other" in done.output


def test_redoing_needs_randomness(audio: Path) -> None:
    done = CliRunner().invoke(app, ["batch", str(audio.parent), "--redo-doubtful", "--temperature", "0"])
    assert done.exit_code == 2
    assert "--temperature 0" in done.output
