from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from musicflamingo_cli.captioning.captioner import Captioner, Policy, open_captioner
from musicflamingo_cli.captioning.conversation import Chat
from musicflamingo_cli.choices import EngineName
from musicflamingo_cli.config import Settings
from musicflamingo_cli.demo.songs import songs
from musicflamingo_cli.engines.observer import UNOBSERVED, Observer
from musicflamingo_cli.errors import (
    AnswerCancelledError,
    AnswerError,
    AudioError,
    ConfigError,
    FailureKind,
    PromptError,
    SidecarError,
    TooLongError,
)
from musicflamingo_cli.models.model import ModelPair
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.types import Answer, Clip, Excerpt, Failure, Prompt, Sampling, Turn, Workload
from tests.conftest import MakeWav
from tests.fakes.engines import GOOD, REAL_PAIR, TINY_PAIR, Scripted, ScriptedEngine


class RecordingEngine(ScriptedEngine):
    """Remembers what it was asked; passes answers on word by word."""

    def __init__(self, reply: Callable[[Prompt, Sampling], Scripted], audio_tokens: int | None = None) -> None:
        super().__init__(reply, audio_tokens=audio_tokens)
        self.prompts: list[Prompt] = []
        self.clips: list[Clip] = []

    def describe(
        self,
        clip: Clip,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        observer: Observer = UNOBSERVED,
    ) -> Iterator[Answer | Failure]:
        self.prompts += prompts
        self.clips.append(clip)
        for result in super().describe(clip, prompts, sampling):
            if isinstance(result, Answer):
                for word in result.text.split(" "):
                    observer.text(result.prompt.preset, word)
            yield result


@contextmanager
def chat_about(
    *audio: Path,
    reply: Callable[[Prompt, Sampling], Scripted] = lambda prompt, sampling: GOOD,
    pair: ModelPair = REAL_PAIR,
    audio_tokens: int | None = None,
    excerpt: Excerpt | None = None,
) -> Iterator[tuple[Chat, RecordingEngine]]:
    engine = RecordingEngine(reply, audio_tokens)
    captioner = Captioner(engine, pair, Policy(excerpt=excerpt or Excerpt()))
    with Chat(captioner, audio) as chat:
        yield chat, engine


def echo(prompt: Prompt, sampling: Sampling) -> str:
    return f"Answer {len(prompt.history) + 1} to: {prompt.text}"


def test_each_question_follows_up_on_those_before_it(make_wav: MakeWav) -> None:
    with chat_about(make_wav(), reply=echo) as (chat, engine):
        assert chat.ask("Which key?") == "Answer 1 to: Which key?"
        assert chat.ask("Why?") == "Answer 2 to: Why?"
        first, second = engine.prompts
        assert first.history == ()
        assert second.history == (Turn("Which key?", "Answer 1 to: Which key?"),)
        assert first.room == second.room > 0
        assert [turn.question for turn in chat.history] == ["Which key?", "Why?"]
        assert engine.clips[0] is engine.clips[1], "the audio was prepared again"
        chat.forget()
        chat.ask("Which key?")
        assert engine.prompts[-1].history == ()
        assert len(chat.answers) == 3


def test_the_audio_goes_with_the_conversation(make_wav: MakeWav) -> None:
    with chat_about(make_wav("a.wav", 2), make_wav("b.wav", 3), excerpt=Excerpt(max_seconds=2.5)) as (chat, engine):
        chat.ask("Which is longer?")
        (clip,) = engine.clips
        assert [each.path.exists() for each in clip.all] == [True, True]
        assert chat.seconds == pytest.approx(4.5)
        (note,) = chat.notes
        assert "b.wav: used the first 2 s of 3 s" in note
    assert [each.path.parent.exists() for each in clip.all] == [False, False]


def test_audio_that_cannot_be_read_leaves_nothing_behind(
    make_wav: MakeWav, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "broken.wav").write_text("no audio")
    with pytest.raises(AudioError), chat_about(make_wav("a.wav"), tmp_path / "broken.wav"):
        pass
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_question_without_an_answer_leaves_no_trace(make_wav: MakeWav) -> None:
    def reply(prompt: Prompt, sampling: Sampling) -> Scripted:
        if prompt.text == "Too much?":
            return TooLongError("too long", "start again")
        if prompt.text == "Slow?":
            return Failure("ask", FailureKind.TIMEOUT, "no answer", "wait")
        return GOOD

    def stop(text: str) -> None:
        raise AnswerCancelledError("enough")

    with chat_about(make_wav(), reply=reply) as (chat, _):
        with pytest.raises(TooLongError):
            chat.ask("Too much?")
        with pytest.raises(AnswerError, match="no answer") as caught:
            chat.ask("Slow?")
        with pytest.raises(AnswerCancelledError):
            chat.ask("Which key?", stop)
        for wrong in ("", "  ", "<|im_end|>?", "bell \a", "{nothing}"):
            with pytest.raises(ConfigError):
                chat.ask(wrong)
        assert (chat.history, chat.answers) == ((), [])
        pieces: list[str] = []
        assert chat.ask("Which key?", pieces.append) == GOOD
        assert pieces == GOOD.split(" ")
    assert (caught.value.kind, caught.value.hint) == (FailureKind.TIMEOUT, "wait")
    back = pickle.loads(pickle.dumps(caught.value))
    assert (str(back), back.hint, back.kind) == ("no answer", "wait", FailureKind.TIMEOUT)


def test_an_answer_without_the_audio_is_an_error(make_wav: MakeWav) -> None:
    with chat_about(make_wav(), audio_tokens=20) as (chat, _):
        with pytest.raises(AnswerError, match="only 20 of the clip's 750 audio tokens"):
            chat.ask("Which key?")
        assert chat.history == ()


def test_answers_that_are_no_captions_are_answers(make_wav: MakeWav) -> None:
    replies = iter(["D.", "la " * 200, "It is slow.<|im_end|>\n<|im_start|>user\nWhy?"])
    with chat_about(make_wav(), reply=lambda prompt, sampling: next(replies)) as (chat, _):
        assert chat.ask("Which key?") == "D."
        assert chat.ask("Sing.").startswith("la la")
        assert chat.ask("How fast?") == chat.history[-1].answer == "It is slow."


def test_reasoning_is_neither_shown_nor_answered(make_wav: MakeWav) -> None:
    replies = iter(["<think>A kick. So house.</think> House music.", "So 124.</think>124 BPM.", "No reasoning."])
    thinking = replace(REAL_PAIR, reasons=True)
    with chat_about(make_wav(), reply=lambda prompt, sampling: next(replies), pair=thinking) as (chat, _):
        for expected, shown in (("House music.", ["House", "music."]), ("124 BPM.", ["124", "BPM."])):
            pieces: list[str] = []
            assert chat.ask("Which?", pieces.append) == expected
            assert [piece for piece in pieces if piece] == shown
            assert "" in pieces, "a reader may end the answer while the model reasons, too"
        assert chat.ask("Which?", lambda piece: None) == "No reasoning."
        assert "<think>" not in str(chat.history)


def test_an_empty_answer_leaves_no_trace(make_wav: MakeWav) -> None:
    def think(prompt: Prompt, sampling: Sampling) -> Scripted:
        return {"Which?": "<think>It could be a waltz, or", "Why?": " "}.get(prompt.text, GOOD)

    with chat_about(make_wav(), reply=think) as (chat, _):
        with pytest.raises(AnswerError, match="still reasoning"):
            chat.ask("Which?")
        with pytest.raises(AnswerError, match="empty"):
            chat.ask("Why?")
        assert chat.history == ()
        assert chat.ask("And?") == GOOD


def test_presets_are_asked_with_the_variables_of_the_track(make_wav: MakeWav) -> None:
    audio = make_wav("a.wav")
    audio.with_suffix(".INFO").write_text('{"key": "D minor"}')
    preset = Preset("mine", "It is in {key}. Which mood?", max_tokens=33, system="Be brief.", lines=True)
    with chat_about(audio) as (chat, engine):
        chat.ask(preset)
        prompt = engine.prompts[-1]
        assert (prompt.text, prompt.max_tokens, prompt.lines) == ("It is in D minor. Which mood?", 33, True)
        assert prompt.system == "", "another system prompt would make the audio be processed again"
    with chat_about(audio, make_wav("b.wav")) as (chat, engine):
        chat.ask(preset)
        assert engine.prompts[-1].text == "Which mood?"
        with pytest.raises(PromptError):
            chat.ask(Preset("key", "Is it in {key}?"))


def test_the_seed_of_the_next_answers_can_be_set(make_wav: MakeWav) -> None:
    with chat_about(make_wav()) as (chat, engine):
        chat.seed = 7
        chat.ask("Which key?")
        assert chat.seed == engine.asked[-1][1].seed == 7
        with pytest.raises(ConfigError, match="seed must be between"):
            chat.seed = -1
        assert chat.seed == 7


def test_an_answer_is_saved_as_a_preset_with_its_conversation(make_wav: MakeWav) -> None:
    audio = make_wav()
    info = audio.with_suffix(".INFO")
    info.write_text('{"bpm": 120, "music_flamingo_full": "Old."}')
    replies = iter(["D minor.", "**Sombre** and slow."])
    with chat_about(audio, reply=lambda prompt, sampling: next(replies)) as (chat, _):
        chat.ask("Which key?")
        chat.ask("Which mood does that give?")
        assert chat.save("mood") == "Sombre and slow."
    saved = read_sidecar(info)
    assert saved["music_flamingo_mood"] == "Sombre and slow."
    assert (saved["bpm"], saved["music_flamingo_full"]) == (120, "Old.")
    assert saved["music_flamingo_model"] == "gguf_Q6_K"
    made = saved["music_flamingo_provenance"]["mood"]
    assert made["prompt"] == "Which mood does that give?"
    assert made["conversation"] == ["Which key?"]
    assert (made["engine"], made["seed"], made["audio_seconds"]) == ("scripted", 42, 1.0)


def test_what_cannot_be_saved_is_an_error(make_wav: MakeWav) -> None:
    audio = make_wav()
    info = audio.with_suffix(".INFO")
    replies = iter(["la " * 200, "A warm track."])
    with chat_about(audio, reply=lambda prompt, sampling: next(replies), pair=TINY_PAIR) as (chat, _):
        with pytest.raises(ConfigError, match="no answer to save"):
            chat.save("mood")
        chat.ask("Which mood?")
        with pytest.raises(AnswerError, match="not saved: "):
            chat.save("mood")
        chat.ask("Which mood?")
        for name in ("provenance", "Mood", ""):
            with pytest.raises(ConfigError, match="a preset's name holds"):
                chat.save(name)
        assert not info.exists()
        info.write_text('{"music_flamingo_mood": "Real."}')
        with pytest.raises(AnswerError, match="tiny-model output never overwrites"):
            chat.save("mood")
        info.write_text("{")
        with pytest.raises(SidecarError):
            chat.save("mood")
        assert info.read_text() == "{"
        info.unlink()
        chat.save("mood")
        assert json.loads(info.read_text())["music_flamingo_mood"] == "A warm track."
    with chat_about(audio, make_wav("b.wav")) as (chat, _):
        chat.ask("Which mood?")
        with pytest.raises(ConfigError, match="several tracks"):
            chat.save("mood")


def test_an_engine_that_keeps_nothing_is_rejected(make_wav: MakeWav) -> None:
    class Forgetful(ScriptedEngine):
        name = "mtmd-cli"

    captioner = Captioner(Forgetful(lambda prompt, sampling: GOOD), REAL_PAIR, Policy())
    with pytest.raises(ConfigError, match="mtmd-cli cannot hold a conversation"):
        Chat(captioner, [make_wav()])


def test_without_audio_it_is_a_conversation_in_words() -> None:
    captioner = Captioner(ScriptedEngine(lambda prompt, sampling: GOOD), REAL_PAIR, Policy())
    with Chat(captioner, []) as chat:
        assert chat.notes == ["no audio: the model is asked in words only"]
        assert chat.ask("What is a fugue?") == GOOD
        assert chat.answers[0].audio_tokens == 0
        with pytest.raises(ConfigError, match="is about no track"):
            chat.save("fugue")


@pytest.mark.real
@pytest.mark.parametrize("name", [EngineName.SERVER, EngineName.NATIVE])
def test_the_tiny_model_answers_about_a_song(name: EngineName, real_llama_dir: Path) -> None:
    settings = Settings(model="tiny", llama_dir=real_llama_dir, engine=name, temperature=0.0, threads=1)
    song = songs()[0]
    workload = Workload(1, 3, is_conversation=True)
    with open_captioner(settings, workload) as captioner, Chat(captioner, [song.path]) as chat:
        pieces: list[str] = []
        text = chat.ask("What are the tempo and the key of this track?", pieces.append)
        assert song.truth["tempo"].split()[0] in text
        assert len(pieces) > 5
        assert "".join(pieces).strip() == text
        assert chat.ask("Which instruments are played?") == chat.history[1].answer
