"""A worker that dies or hangs costs a clip, not the run. The worker is a double; the process and its pipe are real."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from musicflamingo_cli.config import GenerationSettings, Settings
from musicflamingo_cli.errors import ModelError, ToolMissingError
from musicflamingo_cli.listening import generator as module
from musicflamingo_cli.listening.generator import MusicGenerator
from musicflamingo_cli.listening.messages import ClipOrder, Made, Step
from musicflamingo_cli.models.checkpoints import MELODY, MUSICGEN
from musicflamingo_cli.models.generators import Generator

pytestmark = pytest.mark.slow  # each test starts processes


@pytest.fixture(autouse=True)
def _double(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WORKER", (sys.executable, "-m", "tests.fakes.music_worker"))


def checkpoint(folder: Path, kind: str = MUSICGEN) -> Generator:
    return Generator(folder=folder, name="fake", model_type=kind, rate=32_000, channels=1, size=0)


def run(tmp_path: Path, *texts: str, kind: str = MUSICGEN, at_once: int = 3, timeout: float = 20) -> list[Made]:
    """The results, in which ``channels`` is the size of the batch."""
    steps: list[Step] = []
    orders = [ClipOrder(number, text, str(tmp_path / f"{number}.wav")) for number, text in enumerate(texts)]
    making = MusicGenerator(checkpoint(tmp_path, kind), Settings(timeout=timeout), GenerationSettings(at_once=at_once))
    try:
        results = list(making.make(orders, steps.append))
    finally:
        making.close()
    assert steps
    return results


def test_batches_are_as_large_as_the_settings_say(tmp_path: Path) -> None:
    assert [(each.number, each.channels) for each in run(tmp_path, *"abcd")] == [(0, 3), (1, 3), (2, 3), (3, 1)]
    assert [each.channels for each in run(tmp_path, *"ab", kind=MELODY)] == [1, 1]  # padding would count there


def test_a_clip_that_kills_the_worker_fails_alone(tmp_path: Path) -> None:
    results = run(tmp_path, "a", "die", "c", "d")
    assert sorted((each.number, bool(each.error)) for each in results) == [
        (0, False),
        (1, True),
        (2, False),
        (3, False),
    ]
    assert "died (exit code 9)" in next(each.error for each in results if each.error)


def test_a_batch_that_kills_the_worker_is_made_smaller(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    results = run(tmp_path, "a", "die in a batch", "c")
    assert sorted((each.number, each.error) for each in results) == [(0, ""), (1, ""), (2, "")]
    assert "making 1 clips at a time" in caplog.text


def test_a_worker_that_hangs_is_ended(tmp_path: Path) -> None:
    results = run(tmp_path, "hang", "b", at_once=1, timeout=1)
    assert [each.error for each in results] == ["the worker that makes music sent nothing for 1 s", ""]


@pytest.mark.parametrize(
    ("log", "kind", "message"),
    [
        ("RuntimeError: CUDA out of memory\n", ModelError, "not enough memory for fake"),
        ("RuntimeError: No CUDA GPUs are available\n", ToolMissingError, "torch does not have this device"),
        ("OSError: nonsense\n", ModelError, "fake cannot be loaded"),
    ],
)
def test_a_worker_that_cannot_start_is_one_error(tmp_path: Path, log: str, kind: type[Exception], message: str) -> None:
    (tmp_path / "broken").write_text(log)
    with pytest.raises(kind, match=message):
        run(tmp_path, "a")
