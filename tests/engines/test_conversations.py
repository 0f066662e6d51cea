"""Follow-up questions on the real engines: the audio is processed once, answers are streamed and can be stopped."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from musicflamingo_cli.audio.clip import write_clip
from musicflamingo_cli.config import Settings
from musicflamingo_cli.demo.songs import songs
from musicflamingo_cli.engines.messages import Cancel, Reply
from musicflamingo_cli.engines.native import engine as native_engine
from musicflamingo_cli.engines.native.bindings import SEQUENCES
from musicflamingo_cli.engines.native.engine import NativeEngine
from musicflamingo_cli.engines.observer import TextObserver, observer_of
from musicflamingo_cli.engines.server.embedded import embedded_server
from musicflamingo_cli.engines.server.process import ServerProcess
from musicflamingo_cli.engines.server.server import ServerEngine, llama_server
from musicflamingo_cli.engines.worker_process import WorkerProcess
from musicflamingo_cli.errors import AnswerCancelledError
from musicflamingo_cli.models.model import Checkpoint
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.models.tiny_checkpoint import write_checkpoint
from musicflamingo_cli.types import NO_AUDIO, Answer, Clip, Prompt, Sampling, Turn
from tests.conftest import MakeWav
from tests.engines.transformers.conftest import Recipe

ResidentEngine = NativeEngine | ServerEngine

GREEDY = Sampling(temperature=0.0, repeat_penalty=1.0)
HOT = Sampling(temperature=3.0, top_p=1.0)  # answers that do not end soon
QUESTIONS = ["Describe it.", "Which key is it in?", "And why do you think so?"]
NEVER_ENDING = Path(__file__).parents[2] / "benchmarks" / "never_ending_worker.py"
LONG = Prompt(preset="long", text="Go on.", max_tokens=3000)


def open_engine(name: str, settings: Settings, model_name: str = "F32") -> ResidentEngine:
    model = resolve(model_name, settings.models_folder)
    if name == "native":
        return NativeEngine(settings, model)
    return ServerEngine(llama_server(settings) if name == "server" else embedded_server(), settings, model)


@pytest.fixture(params=["server", "embedded", "native"])
def engine(request: pytest.FixtureRequest, random_settings: Settings) -> Iterator[ResidentEngine]:
    engine = open_engine(request.param, random_settings)
    yield engine
    engine.close()


@pytest.fixture
def native(random_settings: Settings) -> Iterator[NativeEngine]:
    engine = NativeEngine(random_settings, resolve("F32", random_settings.models_folder))
    yield engine
    engine.close()


@pytest.fixture
def clip(make_wav: MakeWav) -> Clip:
    return clip_of(make_wav(seconds=40))


def clip_of(path: Path) -> Clip:
    return write_clip(path, path.with_suffix(".clip.wav"))


def ask(engine: ResidentEngine, clip: Clip, prompt: Prompt, on_text: Callable[[str], None] | None = None) -> Answer:
    (answer,) = engine.describe(clip, [prompt], GREEDY, observer_of(on_text))
    assert isinstance(answer, Answer), answer
    return answer


def conversation(engine: ResidentEngine, clip: Clip) -> list[Turn]:
    """Ask the questions, each after those before it."""
    turns: list[Turn] = []
    for text in QUESTIONS:
        prompt = Prompt(preset="chat", text=text, max_tokens=24, history=tuple(turns), room=4096)
        turns.append(Turn(text, ask(engine, clip, prompt).text.strip()))
    return turns


def encoded_tokens(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that fills with the tokens that an answer's prompt cost, by the engines' own figures.

    The native worker reports seconds instead: where it spent none on the audio, the text alone was read.
    """
    counted: list[int] = []
    ask_server, ask_worker = ServerProcess.ask, WorkerProcess.ask

    def count_server(self: ServerProcess, *arguments: Any) -> Any:
        reply, seconds = ask_server(self, *arguments)
        counted.append(reply["timings"]["prompt_n"])
        return reply, seconds

    def count_worker(self: WorkerProcess, slot: int, clip: Clip, *arguments: Any) -> Any:
        for reply in ask_worker(self, slot, clip, *arguments):
            counted.append(clip.trimmed_tokens if reply.prefill_seconds else 0)
            yield reply

    monkeypatch.setattr(ServerProcess, "ask", count_server)
    monkeypatch.setattr(WorkerProcess, "ask", count_worker)
    return counted


@pytest.mark.real
def test_the_audio_is_processed_once_in_a_conversation(
    engine: ResidentEngine, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = encoded_tokens(monkeypatch)
    conversation(engine, clip)
    assert [count >= clip.trimmed_tokens for count in counted] == [True, False, False]
    assert sum(counted[1:]) < 400


@pytest.mark.real
def test_answers_equal_those_of_a_fresh_engine(engine: ResidentEngine, clip: Clip, random_settings: Settings) -> None:
    """What the engine keeps changes nothing: a new one that gets the whole conversation at once says the same."""
    turns = conversation(engine, clip)
    for number, turn in enumerate(turns):
        prompt = Prompt(preset="chat", text=turn.question, max_tokens=24, history=tuple(turns[:number]))
        fresh = open_engine(engine.name, random_settings)
        try:
            assert ask(fresh, clip, prompt).text.strip() == turn.answer
        finally:
            fresh.close()
    alone = ask(engine, clip, Prompt(preset="chat", text=turns[-1].question, max_tokens=24)).text.strip()
    assert alone != turns[-1].answer, "the history had no effect"


@pytest.mark.real
def test_server_and_native_hold_the_same_conversation(clip: Clip, random_settings: Settings) -> None:
    held, windows = [], set()
    for name in ("server", "native"):
        engine = open_engine(name, random_settings)
        windows.add(engine.windows)
        try:
            held.append(conversation(engine, clip))
        finally:
            engine.close()
    if len(windows) > 1:
        pytest.skip("without our patch, the server pads with silence what native leaves out")
    assert held[0] == held[1]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("name", ["server", "native"])
def test_conversations_equal_the_documented_recipe(name: str, random_settings: Settings, tmp_path: Path) -> None:
    """The same weights in transformers: `apply_chat_template` over all turns, then `generate`, greedily.

    The model was trained on single questions: of a later turn, some answers are near-ties, which these are not.
    """
    engine = open_engine(name, random_settings, "tiny")
    pair = engine._pair
    write_checkpoint(pair.language_model, pair.projector, tmp_path / "tiny")
    recipe = Recipe(
        Checkpoint(
            folder=tmp_path / "tiny", name="tiny", model_type="audioflamingo3", context_length=4096, max_seconds=600.0
        )
    )
    questions = [
        "What are the tempo and the key of this track?",
        "Which instruments are played?",
        "How is the track structured?",
    ]
    try:
        for song in songs():
            clip, turns = write_clip(song.path, tmp_path / "clip.wav"), list[Turn]()
            for number, text in enumerate(questions):
                prompt = Prompt(preset="chat", text=text, max_tokens=60, history=tuple(turns), room=2048)
                turns.append(Turn(text, ask(engine, clip, prompt).text.strip()))
                earlier = [turn.answer for turn in turns[:-1]]
                assert recipe.converse(clip, questions[: number + 1], earlier, 60).strip() == turns[-1].answer
    finally:
        engine.close()


@pytest.mark.real
def test_a_conversation_in_words_only(engine: ResidentEngine, clip: Clip) -> None:
    prompt = Prompt(preset="chat", text="What is a fugue?", max_tokens=24)
    answer = ask(engine, NO_AUDIO, prompt)
    assert answer.audio_tokens == 0
    assert answer.text != ask(engine, clip, prompt).text
    assert ask(engine, NO_AUDIO, prompt).text == answer.text


@pytest.mark.real
def test_pieces_of_an_answer_make_up_its_text(engine: ResidentEngine, clip: Clip) -> None:
    """The random model writes bytes that are no UTF-8, and characters of several tokens."""
    pieces: list[str] = []
    prompt = Prompt(preset="chat", text="Describe it.", max_tokens=200)
    streamed = ask(engine, clip, prompt, pieces.append)
    assert len(pieces) > 50
    assert "".join(pieces) == streamed.text == ask(engine, clip, prompt).text
    assert (streamed.hit_limit, streamed.answer_tokens) == (True, 200)
    assert streamed.audio_tokens == engine.expected_audio_tokens(clip)


@pytest.mark.real
def test_a_cancelled_answer_ends_and_the_engine_goes_on(
    engine: ResidentEngine, clip: Clip, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    replies: list[Reply] = []
    monkeypatch.setattr(native_engine, "WORKER", (sys.executable, str(NEVER_ENDING)))
    expected = ask(engine, clip, Prompt(preset="p", text="Describe it.", max_tokens=24)).text
    process, pieces = engine._slots._process, list[str]()
    next_message = WorkerProcess.next_message

    def record(self: WorkerProcess, slot: int) -> Any:
        message = next_message(self, slot)
        if isinstance(message, Reply):
            replies.append(message)
        return message

    def stop_after_five(text: str) -> None:
        pieces.append(text)
        if len(pieces) == 5:
            raise AnswerCancelledError("enough")

    monkeypatch.setattr(WorkerProcess, "next_message", record)
    with pytest.raises(AnswerCancelledError):
        list(engine.describe(clip, [LONG], HOT, TextObserver(stop_after_five)))
    counted = encoded_tokens(monkeypatch)
    assert ask(engine, clip, Prompt(preset="p", text="Describe it.", max_tokens=24)).text == expected
    assert counted[-1] < 100, "the audio was lost with the answer"
    assert engine._slots._process is process
    assert caplog.messages == []
    if engine.name == "native":
        assert replies[0].answer_tokens < LONG.max_tokens // 2
    else:
        assert process
        assert "cancel task" in process.log()


@pytest.mark.real
def test_a_reader_that_fails_is_no_death_of_the_engine(engine: ResidentEngine, clip: Clip) -> None:
    """An error of the caller's own is passed on as it is, even one that a dying server causes, too."""

    def fail(text: str) -> None:
        raise ConnectionResetError("the browser left")

    with pytest.raises(ConnectionResetError, match="the browser left"):
        list(engine.describe(clip, [LONG], HOT, TextObserver(fail)))
    answer = ask(engine, clip, Prompt(preset="p", text="Describe it.", max_tokens=4))
    assert answer.audio_tokens == engine.expected_audio_tokens(clip)


@pytest.mark.real
def test_several_clips_are_heard_in_their_order(engine: ResidentEngine, make_wav: MakeWav) -> None:
    low, high = clip_of(make_wav("low.wav", 2, 200)), clip_of(make_wav("high.wav", 31, 3000))
    prompt = Prompt(preset="chat", text="Compare them.", max_tokens=24)
    one_way = ask(engine, replace(low, also=(high,)), prompt)
    other_way = ask(engine, replace(high, also=(low,)), prompt)
    assert one_way.audio_tokens == other_way.audio_tokens == engine.expected_audio_tokens(replace(low, also=(high,)))
    assert len({one_way.text, other_way.text, ask(engine, low, prompt).text}) == 3


# -- what engine `native` keeps ------------------------------------------------------------------------


@pytest.mark.real
def test_native_keeps_the_audio_for_retries(native: NativeEngine, clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = encoded_tokens(monkeypatch)
    many = [Prompt(preset=f"p{number}", text=f"Say {number}.", max_tokens=4) for number in range(2 * SEQUENCES)]
    for seed in (1, 2):
        assert len(list(native.describe(clip, many, replace(GREEDY, seed=seed)))) == len(many)
    first_group = SEQUENCES - 1
    assert [bool(count) for count in counted] == [True] * first_group + [False] * (2 * len(many) - first_group)


@pytest.mark.real
def test_native_processes_other_audio_and_other_prefixes(
    native: NativeEngine, make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch, random_settings: Settings
) -> None:
    low, high = clip_of(make_wav("low.wav", 2, 200)), clip_of(make_wav("high.wav", 2, 3000))
    plain = Prompt(preset="plain", text="Describe it.", max_tokens=24)
    steered = replace(plain, preset="steered", system="Be brief.")
    counted = encoded_tokens(monkeypatch)
    texts = {
        "low": ask(native, low, plain).text,
        "high": ask(native, high, plain).text,
        "steered": ask(native, high, steered).text,
    }
    both = [answer for answer in native.describe(high, [plain, steered], GREEDY) if isinstance(answer, Answer)]
    assert [answer.prompt.preset for answer in both] == ["steered", "plain"], "what the slot has comes first"
    low.path.write_bytes(high.path.read_bytes())  # the same path, other audio
    assert ask(native, low, plain).text == texts["high"]
    assert [bool(count) for count in counted] == [True, True, True, False, True, True]
    assert len(set(texts.values())) == 3
    for name, clip, prompt in (("high", high, plain), ("steered", high, steered)):
        fresh = open_engine("native", random_settings)
        try:
            assert ask(fresh, clip, prompt).text == texts[name]
        finally:
            fresh.close()


@pytest.mark.real
def test_a_cancel_that_comes_too_late_cancels_nothing(native: NativeEngine, clip: Clip) -> None:
    prompt = Prompt(preset="p", text="Describe it.", max_tokens=24)
    expected = ask(native, clip, prompt)
    assert native._slots._process
    native._slots._process.send(Cancel(0))
    assert ask(native, clip, prompt).text == expected.text
