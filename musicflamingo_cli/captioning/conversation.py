"""A conversation about one track or several: the audio is processed once, each question sees those before it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from musicflamingo_cli.audio import tags
from musicflamingo_cli.audio.clip import prepared
from musicflamingo_cli.captioning.captioner import Captioner
from musicflamingo_cli.captioning.judging import REASONING_TOKENS, STILL_REASONING, clip_notes, judged, not_heard
from musicflamingo_cli.choices import EngineName
from musicflamingo_cli.config import require_setting
from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.engines.observer import observer_of
from musicflamingo_cli.errors import AnswerError, ConfigError, FailureKind, SidecarError
from musicflamingo_cli.prompts import Preset, free_question
from musicflamingo_cli.sidecars.captions import is_protected
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.text.cleaning import without_template_tokens
from musicflamingo_cli.text.reasoning import VisiblePieces, split_reasoning
from musicflamingo_cli.trust.measured import prompt_values
from musicflamingo_cli.types import NO_AUDIO, Answer, Failure, Prompt, Turn

_QUESTION = "ask"  # what a free question is called until its answer is saved
_MAX_TOKENS = 500  # of an answer to one, as of the longest default preset
_ROOM = 4096  # tokens for the whole conversation, so that the engine need not restart with a larger context


class Chat:
    """Questions about the same audio, one after another. A context manager; ``close`` removes the prepared audio.

    ``notes``: messages about tracks of which only a part is used. ``answers``: to the questions so far.
    """

    def __init__(self, captioner: Captioner, paths: Sequence[Path]) -> None:
        """Prepare the audio of the tracks, which the model gets in this order; without any, it is asked in words only.

        Raises ConfigError for an engine that cannot hold a conversation, and AudioError.
        """
        if captioner.engine.name == EngineName.MTMD_CLI:
            raise ConfigError(
                "mtmd-cli cannot hold a conversation: it keeps nothing from one question to the next",
                "leave --engine out, or use: --engine server, native or embedded",
            )
        self._captioner = captioner
        self._tracks = [track_for(path) for path in paths]
        with contextlib.ExitStack() as stack:
            clips = [stack.enter_context(prepared(path, captioner.policy.excerpt)) for path in paths]
            self._stack = stack.pop_all()
        self._clip = replace(clips[0], also=tuple(clips[1:])) if clips else NO_AUDIO
        self._sampling = captioner.policy.sampling
        self._turns: list[Turn] = []
        self.answers: list[Answer] = []
        self.notes = [f"{path}: {note}" for path, clip in zip(paths, clips, strict=True) for note in clip_notes(clip)]
        if not clips:
            self.notes.append("no audio: the model is asked in words only")

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the prepared audio; questions cannot be asked any longer."""
        self._stack.close()

    @property
    def history(self) -> tuple[Turn, ...]:
        """The questions and answers that the next question follows up on."""
        return tuple(self._turns)

    @property
    def seconds(self) -> float:
        """The length of the audio in seconds."""
        return sum(clip.seconds for clip in self._clip.all)

    @property
    def seed(self) -> int:
        """The seed of the next answers; setting it raises SettingError for a number out of range."""
        return self._sampling.seed

    @seed.setter
    def seed(self, seed: int) -> None:
        require_setting("seed", seed)
        self._sampling = replace(self._sampling, seed=seed)

    def forget(self) -> None:
        """Start a new conversation about the same audio, which is not processed again."""
        self._turns.clear()

    def ask(self, question: str | Preset, on_text: Callable[[str], None] | None = None) -> str:
        """Return the answer to a question, or to a preset's text; it is not cleaned as captions are.

        ``on_text`` gets the pieces of the answer as they are made, where the engine can (empty ones while a model that
        thinks writes its reasoning); it may raise AnswerCancelledError to end the answer. A question without an answer
        leaves no trace in the conversation.

        Raises ConfigError for a question that cannot be asked, TooLongError where the conversation does not fit into
        the model's context, AnswerError or another EngineError where there is no answer, PromptError for a preset that
        needs what the track lacks, and AnswerCancelledError.
        """
        engine, prompt = self._captioner.engine, self._prompt(question)
        if on_text and self._captioner.model.reasons:
            on_text = VisiblePieces(on_text)
        (result,) = engine.describe(self._clip, [prompt], self._sampling, observer_of(on_text))
        if isinstance(result, Answer):
            result = not_heard(result, engine.expected_audio_tokens(self._clip)) or result
        if isinstance(result, Failure):
            raise AnswerError(result.reason, result.hint, result.kind)
        reasoning, text = split_reasoning(result.text)
        text = without_template_tokens(text)
        if not text.strip():
            reason = STILL_REASONING if reasoning else "the answer is empty"
            raise AnswerError(reason, "ask again, with another seed or in other words", FailureKind.REFUSED_ANSWER)
        self._turns.append(Turn(prompt.text, text, result.answer_tokens))
        self.answers.append(result)
        return text

    def save(self, name: str) -> str:
        """Save the last answer into the track's sidecar as the caption of preset ``name``; return its text.

        It is cleaned and judged as every caption. Raises ConfigError for a wrong name, where nothing was asked yet, or
        where the conversation is about several tracks; AnswerError for an answer that is no caption; SidecarError.
        """
        if not self.answers:
            raise ConfigError("there is no answer to save", "ask a question first")
        if len(self._tracks) != 1:
            whose = "about several tracks belongs to none of their sidecars" if self._tracks else "is about no track"
            raise ConfigError(f"an answer {whose}", "ask about one track")
        answer = self.answers[-1]
        free_question(answer.prompt.text, name)  # for its check of the name
        caption = judged(replace(answer, prompt=replace(answer.prompt, preset=name)))
        if isinstance(caption, str):
            hint = "ask again, with another seed or in other words"
            raise AnswerError(f"not saved: {caption}", hint, FailureKind.REFUSED_ANSWER)
        (track,) = self._tracks
        if not self._captioner.save(track, [caption], read_sidecar(track.sidecar), self._clip):
            reason = f"not saved: {name} has the caption of a real model, which tiny-model output never overwrites"
            if is_protected(read_sidecar(track.sidecar), name):
                reason = f"not saved: {name} has a caption that a person edited"
            raise AnswerError(reason, "save it under another name", FailureKind.REFUSED_ANSWER)
        return caption.text

    def _prompt(self, question: str | Preset) -> Prompt:
        """The question after the conversation so far; without a system prompt, which cannot change in its course."""
        if isinstance(question, str):
            question = replace(free_question(question, _QUESTION), max_tokens=_MAX_TOKENS)
        prompt = question.render(self._variables())
        reasoning = REASONING_TOKENS if self._captioner.model.reasons else 0
        prompt = replace(prompt, max_tokens=prompt.max_tokens + reasoning)
        return replace(prompt, system="", history=self.history, room=_ROOM)

    def _variables(self) -> dict[str, str]:
        """What a prompt's variables stand for: nothing where there is not exactly one track."""
        if len(self._tracks) != 1:
            return {}
        (track,), clip = self._tracks, self._clip
        info: dict[str, Any] = {}
        with contextlib.suppress(SidecarError):  # reported when something is saved into it
            info = read_sidecar(track.sidecar)
        values = tags.describe(track.audio, info, clip.source_seconds or clip.seconds)
        return values | prompt_values(info, track.audio)
