"""What an observer learns from the real engines while they answer several prompts about a clip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from musicflamingo_cli.audio.clip import write_clip
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.native.engine import NativeEngine
from musicflamingo_cli.engines.observer import Observer, Stage
from musicflamingo_cli.engines.server.server import ServerEngine, llama_server
from musicflamingo_cli.engines.transformers.engine import TransformersEngine
from musicflamingo_cli.errors import AnswerCancelledError
from musicflamingo_cli.models.model import Checkpoint
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.models.tiny_checkpoint import write_checkpoint
from musicflamingo_cli.types import Answer, Clip, Prompt, Sampling
from tests.conftest import MakeWav

PROMPTS = [Prompt(preset=f"p{number}", text=f"Question {number}?", max_tokens=6) for number in range(3)]
GREEDY = Sampling(temperature=0.0, repeat_penalty=1.0)


class Recorder(Observer):
    """Keeps what it is given; each stage once."""

    def __init__(self, wants_text: bool = False, stops_at: int = 1 << 30) -> None:
        self.wants_text = wants_text
        self.stages: list[Stage] = []
        self.pieces: list[tuple[str, str]] = []
        self._stops_at = stops_at

    def reached(self, stage: Stage) -> None:
        if stage not in self.stages:
            self.stages.append(stage)

    def text(self, preset: str, piece: str) -> None:
        self.pieces.append((preset, piece))
        if len(self.pieces) >= self._stops_at:
            raise AnswerCancelledError("enough")


Engines = NativeEngine | ServerEngine | TransformersEngine


@pytest.fixture(params=["server", "native", "transformers"])
def engine(request: pytest.FixtureRequest, random_settings: Settings, tmp_path: Path) -> Iterator[Engines]:
    pair = resolve("F32", random_settings.models_folder)
    opened: Engines
    if request.param == "transformers":
        tiny, folder = resolve("tiny", random_settings.models_folder), tmp_path / "tiny"
        write_checkpoint(tiny.language_model, tiny.projector, folder)
        checkpoint = Checkpoint(
            folder=folder, name="tiny", model_type="audioflamingo3", context_length=4096, max_seconds=600.0
        )
        opened = TransformersEngine(random_settings, checkpoint)
    elif request.param == "native":
        opened = NativeEngine(random_settings, pair)
    else:
        opened = ServerEngine(llama_server(random_settings), random_settings, pair)
    yield opened
    opened.close()


@pytest.fixture
def clip(make_wav: MakeWav) -> Clip:
    path = make_wav(seconds=2)
    return write_clip(path, path.with_suffix(".clip.wav"))


@pytest.mark.real
def test_stages_and_the_text_of_all_prompts_arrive(engine: Engines, clip: Clip) -> None:
    """Without the text, the stages come all the same, and the answers are the same."""
    quiet, curious = Recorder(), Recorder(wants_text=True)
    answers = {
        result.prompt.preset: result.text
        for result in engine.describe(clip, PROMPTS, GREEDY, quiet)
        if isinstance(result, Answer)
    }
    assert quiet.stages == [Stage.HEARING, Stage.ANSWERING]
    assert quiet.pieces == []
    list(engine.describe(clip, PROMPTS, GREEDY, curious))
    streamed = {prompt.preset: "" for prompt in PROMPTS}
    for preset, piece in curious.pieces:
        streamed[preset] += piece
    assert streamed == answers
    assert len(answers) == 3


@pytest.mark.real
def test_an_observer_may_end_all_answers(engine: Engines, clip: Clip) -> None:
    with pytest.raises(AnswerCancelledError):
        list(engine.describe(clip, PROMPTS, GREEDY, Recorder(wants_text=True, stops_at=2)))
    assert len(list(engine.describe(clip, PROMPTS, GREEDY))) == 3
