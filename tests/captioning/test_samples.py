"""`check --samples`: how other answers to the same prompt agree, and what a model says of silence and noise."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from musicflamingo_cli.audio import clip
from musicflamingo_cli.captioning import samples
from musicflamingo_cli.captioning.captioner import Captioner, Policy
from musicflamingo_cli.captioning.samples import learn_habits, sample_tracks
from musicflamingo_cli.cli import app
from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.demo.songs import songs
from musicflamingo_cli.models.model import ModelPair
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.captions import SAMPLES_KEY
from musicflamingo_cli.sidecars.checks import check_result
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.trust import habits
from musicflamingo_cli.trust.scan import check_dataset, check_track
from musicflamingo_cli.trust.verdicts import Source
from musicflamingo_cli.types import Prompt, Sampling
from tests.conftest import MakeWav
from tests.fakes.engines import ScriptedEngine

FULL = Preset("full", "Describe it.")
CAPTION = "A house track at 120 BPM in A minor with a female singer."


def test_agreement_counts_the_answers_that_name_a_thing() -> None:
    answers = ["It runs at 120 BPM.", "It runs at 60 BPM; instrumental.", "At 87 BPM in Eb major.", "A calm song."]
    assert habits.agreement(CAPTION, answers) == {"tempo/120": [2, 3], "key/A minor": [0, 1], "vocals/female": [0, 1]}


@pytest.fixture
def model(tmp_path: Path) -> ModelPair:
    """A pair whose files exist, so that it has an identity."""
    files = [tmp_path / name for name in ("model.gguf", "mmproj.gguf")]
    for file in files:
        file.write_bytes(file.name.encode())
    return ModelPair(language_model=files[0], projector=files[1], context_length=4096, is_tiny=False)


def captioner(model: ModelPair, answers: list[str]) -> tuple[Captioner, ScriptedEngine]:
    """A captioner whose n-th question gets the n-th answer, and then the last one."""
    left = list(answers)
    engine = ScriptedEngine(lambda prompt, sampling: left.pop(0) if len(left) > 1 else left[0])
    return Captioner(engine, model, Policy()), engine


def write(audio: Path, model: ModelPair, **made: Any) -> dict[str, Any]:
    info = {
        "music_flamingo_full": CAPTION,
        "music_flamingo_provenance": {"full": {"model": model.name, **made}},
        "bpm": None,
    }
    audio.with_suffix(".INFO").write_text(json.dumps(info))
    return info


def test_an_answer_that_did_not_hear_the_audio_is_no_evidence(make_wav: MakeWav, model: ModelPair) -> None:
    audio = make_wav("songs/a.wav", seconds=2.0)
    before = write(audio, model)
    deaf = Captioner(ScriptedEngine(lambda p, s: "It is at 87 BPM.", audio_tokens=0), model, Policy())
    (sampled,) = sample_tracks(deaf, [(track_for(audio), [FULL])], 3)
    assert sampled.failure
    assert "only 0 of the clip's" in sampled.failure.reason
    assert read_sidecar(audio.with_suffix(".INFO")) == before


@pytest.mark.parametrize(("error", "kind"), [(OSError(28, "full"), "no space"), (ValueError("?"), "bug")])
def test_one_track_does_not_end_the_run(
    error: Exception, kind: str, make_wav: MakeWav, model: ModelPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracks = [track_for(make_wav(f"songs/{name}.wav", seconds=2.0)) for name in "ab"]
    for track in tracks:
        write(track.audio, model)
    real = clip.prepared

    def prepared(audio: Path, *more: Any) -> Any:
        if audio == tracks[0].audio:
            raise error
        return real(audio, *more)

    monkeypatch.setattr(samples, "prepared", prepared)
    asked, _ = captioner(model, ["It is at 87 BPM."])
    first, second = sample_tracks(asked, [(track, [FULL]) for track in tracks], 3)
    assert first.failure
    assert first.failure.kind == kind
    assert second.presets == ("full",)


def test_samples_are_saved_and_give_doubt(make_wav: MakeWav, model: ModelPair) -> None:
    audio = make_wav("songs/a.wav", seconds=2.0)
    write(audio, model)
    asked, engine = captioner(model, ["It is at 87 BPM.", "It is at 131 BPM.", "It runs at 120 BPM in A minor."])
    (sampled,) = sample_tracks(asked, [(track_for(audio), [FULL])], 3)
    assert sampled.presets == ("full",)
    seeds = [sampling.seed for _, sampling in engine.asked]
    assert len(set(seeds)) == 3
    assert Sampling().seed not in seeds
    info = read_sidecar(audio.with_suffix(".INFO"))
    assert info[SAMPLES_KEY]["full"]["agreement"]["tempo/120"] == [1, 3]
    check = check_track(info, audio)
    assert check
    assert check.reasons == ["full: tempo 120 doubtful: other answers disagree (1 of 3 agree)"]
    assert not list(sample_tracks(asked, [(track_for(audio), [FULL])], 3))  # they are there


def test_new_samples_make_a_check_stale(make_wav: MakeWav, model: ModelPair) -> None:
    audio = make_wav("songs/a.wav", seconds=2.0)
    write(audio, model)
    list(check_dataset(audio.parent))
    assert check_result(read_sidecar(audio.with_suffix(".INFO")))
    list(sample_tracks(captioner(model, ["It is at 87 BPM."])[0], [(track_for(audio), [FULL])], 2))
    assert check_result(read_sidecar(audio.with_suffix(".INFO"))) is None


def test_captions_of_another_model_are_not_asked_about(make_wav: MakeWav, model: ModelPair) -> None:
    audio = make_wav("songs/a.wav", seconds=2.0)
    write(audio, model)
    info = read_sidecar(audio.with_suffix(".INFO"))
    info["music_flamingo_provenance"]["full"]["model"] = "another.gguf"
    audio.with_suffix(".INFO").write_text(json.dumps(info))
    assert not list(sample_tracks(captioner(model, ["It is at 87 BPM."])[0], [(track_for(audio), [FULL])], 2))


def test_a_sidecar_names_no_file_of_its_own_as_a_habit(make_wav: MakeWav, model: ModelPair, tmp_path: Path) -> None:
    """A pipe there would be waited for without end."""
    os.mkfifo(tmp_path / "evil-t.json")
    audio = make_wav("songs/a.wav", seconds=2.0)
    write(audio, model, model_identity=str(tmp_path / "evil"), template="t")
    assert check_track(read_sidecar(audio.with_suffix(".INFO")), audio) is not None
    assert habits.habit_of("../../evil", "t") is None


def test_a_habit_is_learnt_once_and_gives_doubt(make_wav: MakeWav, model: ModelPair) -> None:
    asked, engine = captioner(model, ["A pop song at 120 BPM.", "A calm song at 87 BPM in C major."])
    assert learn_habits(asked, [FULL]) == ["full"]
    assert len(engine.asked) == 4  # twice about silence, twice about noise
    assert learn_habits(asked, [FULL]) == []
    identity = next(habits.habit_file("x", "y").parent.glob("*.json")).stem.partition("-")[0]
    audio = make_wav("songs/a.wav", seconds=2.0)
    info = write(audio, model, model_identity=identity, template=FULL.template_hash)
    check = check_track(info, audio)
    assert check
    doubted = {each.claim.value for each in check.claims if any(e.source == Source.HABIT for e in each.evidence)}
    assert doubted == {"120"}
    without = check_track({**info, "music_flamingo_provenance": {}}, audio)
    assert without
    assert check.score < without.score


def test_a_failing_track_is_one_failure(tmp_path: Path, model: ModelPair) -> None:
    audio = tmp_path / "a.wav"
    audio.write_bytes(b"no sound")
    write(audio, model)
    (sampled,) = sample_tracks(captioner(model, ["It is calm."])[0], [(track_for(audio), [FULL])], 2)
    assert sampled.failure


def test_prompts_are_those_of_the_presets() -> None:
    prompt = FULL.render({})
    assert isinstance(prompt, Prompt)
    assert prompt.template_hash == FULL.template_hash


@pytest.mark.real
def test_the_tiny_model_is_asked_again(tmp_path: Path, real_llama_dir: Path) -> None:
    root = tmp_path / "music"
    root.mkdir()
    shutil.copy(songs()[1].path, root / "house.mp3")
    model = ["--model", "tiny", "--llama-dir", str(real_llama_dir), "--threads", "1", "--preset", "full"]
    runner = CliRunner()
    assert runner.invoke(app, ["batch", str(root), *model]).exit_code == 0
    done = runner.invoke(app, ["check", str(root), *model, "--samples", "2", "--json"])
    assert done.exit_code == 0, done.output
    info = read_sidecar(root / "house.INFO")
    assert info[SAMPLES_KEY]["full"]["answers"] == 2
    assert info[SAMPLES_KEY]["full"]["agreement"]["tempo/120"] == [2, 2]
    assert check_result(info)
    assert len(list(habits.habit_file("x", "y").parent.glob("*.json"))) == 1
    again = runner.invoke(app, ["check", str(root), *model, "--samples", "2"])
    assert "needs 2 answers" in again.output
