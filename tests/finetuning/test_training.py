"""Training on the tiny model: the loss, the features, killed and continued, in two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile

from musicflamingo_cli.errors import ConfigError, EngineError
from musicflamingo_cli.finetuning import worker
from musicflamingo_cli.finetuning.folder import Result
from musicflamingo_cli.finetuning.job import Training, require_packages
from musicflamingo_cli.finetuning.plan import Example, Plan, Split, TrackPlan, TrainingSettings
from musicflamingo_cli.finetuning.worker_files import EVENTS, PLAN
from musicflamingo_cli.models.adapters import check_adapter
from musicflamingo_cli.models.model import Checkpoint
from tests.conftest import MakeWav
from tests.engines.transformers.conftest import checkpoints  # noqa: F401  (a fixture)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SETTINGS = TrainingSettings(rate=2e-3, rank=4, epochs=2, batch=3)
QUESTION, ANSWER = "Which instruments are played?", "The lead is a reed organ, full and steady."


@pytest.fixture
def checkpoint(checkpoints: dict[str, Checkpoint]) -> Checkpoint:  # noqa: F811
    return checkpoints["tiny"]


@pytest.fixture
def plan(checkpoint: Checkpoint, make_wav: MakeWav, tmp_path: Path) -> Plan:
    """Eight short tracks, two of them for validation, each with one caption."""
    tracks, examples = [], []
    for number in range(8):
        path = make_wav(f"{number}.wav", seconds=0.6 + number / 10, hertz=200 + 40 * number)
        split = Split.VALIDATION if number < 2 else Split.TRAIN
        tracks.append(TrackPlan(str(path), path.name, str(tmp_path), f"audio{number}", split))
        examples.append(Example(number, "full", QUESTION, "", f"{ANSWER} It is number {number}."))
    return Plan(
        model=str(checkpoint.folder),
        identity="tiny",
        tracks=tracks,
        examples=examples,
        settings=SETTINGS,
        features=str(tmp_path / "features"),
        device="cpu",
        threads=1,
    )


def events_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / EVENTS).read_text(encoding="utf-8").splitlines()]


def trained(plan: Plan, folder: Path) -> list[dict[str, Any]]:
    """The events of a training in this process."""
    folder.mkdir(exist_ok=True)
    plan.write(folder / PLAN)
    worker.train(folder)
    return events_of(folder)


@pytest.mark.parametrize("kind", ["tiny", "tiny as MusicFlamingo", "random 2601"])
def test_the_loss_is_the_recipes_on_the_answer_alone(
    kind: str,
    checkpoints: dict[str, Checkpoint],  # noqa: F811
    make_wav: MakeWav,
    plan: Plan,
) -> None:
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoProcessor

    from musicflamingo_cli.finetuning.features import encode
    from musicflamingo_cli.finetuning.student import Student

    folder = checkpoints[kind].folder
    samples = soundfile.read(make_wav("long.wav", seconds=33.0), dtype="float32")[0]
    processor, model = AutoProcessor.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    said = [{"role": "user", "content": [{"type": "text", "text": QUESTION}, {"type": "audio", "audio": samples}]}]
    inputs = processor.apply_chat_template(said, tokenize=True, add_generation_prompt=True, return_dict=True)
    end = processor.tokenizer.eos_token_id
    answer = torch.tensor([[*processor.tokenizer(ANSWER, add_special_tokens=False).input_ids, end]])
    labels = torch.cat([torch.full_like(inputs.input_ids, -100), answer], dim=1)
    inputs["input_ids"] = torch.cat([inputs.input_ids, answer], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs.input_ids)
    with torch.no_grad():
        expected = float(model(**inputs, labels=labels).loss)

    student = Student(replace(plan, model=str(folder)))
    encoded = encode(student.model, samples)
    student.add_adapter()
    student.adapted.eval()
    with torch.no_grad():
        assert float(student.loss(Example(0, "full", QUESTION, "", ANSWER), encoded)) == pytest.approx(
            expected, abs=2e-4
        )


def test_audio_is_encoded_once(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from musicflamingo_cli.finetuning import features

    calls: list[int] = []

    def counted(model: Any, samples: Any) -> features.Encoded:
        calls.append(len(samples))
        return features.encode(model, samples)

    monkeypatch.setattr(worker, "encode", counted)
    first = trained(plan, tmp_path / "first")
    assert len(calls) == len(plan.tracks)  # for two epochs, and as many validations and one more
    other = replace(plan, settings=replace(SETTINGS, rank=2, epochs=1))
    second = trained(other, tmp_path / "second")
    assert len(calls) == len(plan.tracks)
    made = {"kind": "features", "made": 0, "total": 0, "kept": len(plan.tracks)}
    assert made in second
    assert made not in first
    changed = [replace(plan.tracks[0], audio="changed"), *plan.tracks[1:]]
    trained(replace(other, tracks=changed), tmp_path / "third")
    assert len(calls) == len(plan.tracks) + 1


def test_encoded_audio_beyond_the_limit_is_one_error(plan: Plan, checkpoint: Checkpoint, tmp_path: Path) -> None:
    small = replace(plan, settings=replace(SETTINGS, cache_gb=0.00001))
    training = Training(plan=small, checkpoint=checkpoint, out=tmp_path / "mine")
    training.prepare()
    with pytest.raises(EngineError, match="takes more than") as caught:
        training.run(lambda event: None, {})
    assert "--cache-gb" in caught.value.hint


def test_killed_and_continued_ends_with_the_same_loss(plan: Plan, tmp_path: Path) -> None:
    plan = replace(plan, settings=replace(SETTINGS, epochs=4, patience=4))
    whole = trained(plan, tmp_path / "whole")[-1]
    assert whole["kind"] == "done"

    folder = tmp_path / "killed"
    folder.mkdir()
    plan.write(folder / PLAN)
    command = [sys.executable, "-m", "musicflamingo_cli.finetuning.worker", str(folder)]
    with subprocess.Popen(command) as child:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            if (folder / EVENTS).exists() and any(each.get("validation") for each in complete_events(folder)):
                break
            time.sleep(0.005)
        os.kill(child.pid, signal.SIGKILL)
    assert complete_events(folder)[-1]["kind"] != "done", "it was killed too late"
    again = trained(plan, folder)
    assert again[-1]["kind"] == "done"
    assert again[-1]["best_epoch"] == whole["best_epoch"]
    for (train, validation), (train_again, validation_again) in zip(whole["losses"], again[-1]["losses"], strict=True):
        assert train_again == pytest.approx(train, abs=1e-4)
        assert validation_again == pytest.approx(validation, abs=1e-4)


def complete_events(folder: Path) -> list[dict[str, Any]]:
    """The events whose lines are complete."""
    lines = (folder / EVENTS).read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def test_two_processes_learn_what_one_does(plan: Plan, checkpoint: Checkpoint, tmp_path: Path) -> None:
    plan = replace(plan, settings=replace(SETTINGS, dropout=0.0))
    results = []
    for processes in (1, 2):
        training = Training(plan=plan, checkpoint=checkpoint, out=tmp_path / f"by{processes}", processes=processes)
        assert not training.prepare()
        results.append(training.run(lambda event: None, require_packages()))
        assert not training.folder.exists()
    one, two = results
    assert two.best == pytest.approx(one.best, abs=1e-3)
    assert one.best < one.first


def test_a_trained_projector_is_part_of_the_adapter(plan: Plan, checkpoint: Checkpoint, tmp_path: Path) -> None:
    from safetensors import safe_open

    plan = replace(plan, settings=replace(SETTINGS, epochs=1, projector=True))
    training = Training(plan=plan, checkpoint=checkpoint, out=tmp_path / "wide")
    training.prepare()
    training.run(lambda event: None, {})
    adapter = check_adapter(tmp_path / "wide")
    assert adapter.has_projector
    with safe_open(adapter.files[1], "np") as file:
        names = list(file.keys())
        assert any("multi_modal_projector.linear_1" in name for name in names)
        assert not any("audio_tower" in name for name in names)


def test_an_unfinished_training_of_something_else_stays(plan: Plan, checkpoint: Checkpoint, tmp_path: Path) -> None:
    training = Training(plan=plan, checkpoint=checkpoint, out=tmp_path / "mine")
    training.prepare()
    other = replace(training, plan=replace(plan, settings=replace(SETTINGS, rank=2)))
    with pytest.raises(ConfigError, match="unfinished training") as caught:
        other.prepare()
    assert "--restart" in caught.value.hint
    assert not other.prepare(restart=True)


def test_a_training_that_runs_is_not_discarded(plan: Plan, checkpoint: Checkpoint, tmp_path: Path) -> None:
    training = Training(plan=plan, checkpoint=checkpoint, out=tmp_path / "mine")
    training.prepare()
    state = training.folder / "state.pt"
    state.touch()
    with training._locked():
        for restart in (False, True):
            with pytest.raises(ConfigError, match="another process trains"):
                training.prepare(restart=restart)
        assert state.exists()
    assert training.prepare()
    assert not training.prepare(restart=True)


def test_a_folder_of_something_else_is_not_replaced(plan: Plan, checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match="exists"):
        Training(plan=plan, checkpoint=checkpoint, out=tmp_path / "mine").prepare(overwrite=True)


def test_a_lack_of_memory_is_one_error(
    plan: Plan, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "limited.py"
    script.write_text(
        "import sys\n"
        "from musicflamingo_cli.finetuning import worker\n"
        "def fail(*_):\n"
        "    import torch\n"
        "    torch.empty(1 << 60)\n"
        "worker.encode = fail\n"
        "worker.main()\n"
    )
    training = Training(plan=plan, checkpoint=checkpoint, out=tmp_path / "mine")
    training.prepare()
    monkeypatch.setattr(Training, "_command", lambda self: [sys.executable, str(script), str(self.folder)])
    with pytest.raises(EngineError, match="ran out of memory") as caught:
        training.run(lambda event: None, {})
    assert "--max-seconds" in caught.value.hint


def test_a_result_is_what_the_last_event_says() -> None:
    result = Result.from_event({"first": 2, "best": 1, "best_epoch": 3, "losses": [[1, 2]]})
    assert result == Result(2.0, 1.0, 3, ((1.0, 2.0),))
