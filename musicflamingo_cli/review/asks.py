"""Ask the model again about one preset of one track: a queue, an engine that is opened on demand, answers to choose."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from musicflamingo_cli.audio import tags
from musicflamingo_cli.audio.clip import prepared
from musicflamingo_cli.captioning.captioner import Captioner, open_captioner
from musicflamingo_cli.captioning.judging import REASONING_TOKENS, judged, not_heard
from musicflamingo_cli.config import Settings, require_setting
from musicflamingo_cli.engines.observer import TextObserver
from musicflamingo_cli.errors import AnswerCancelledError, ConfigError, MusicFlamingoError
from musicflamingo_cli.prompts import Preset, free_question, validate
from musicflamingo_cli.review.library import Entry
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.trust.measured import prompt_values
from musicflamingo_cli.types import Caption, Clip, Failure, Sampling, Workload

logger = logging.getLogger(__name__)

_IDLE = 300.0  # seconds without a question until the engine is closed
_MOST_WAITING = 50
_MOST_KEPT = 100
_PARTIAL = 4000  # characters of an answer in progress


class AskState(StrEnum):
    """What has happened to a question."""

    WAITING = "waiting"
    LOADING = "loading the model"
    LISTENING = "listening"
    ANSWERED = "answered"
    FAILED = "failed"
    DROPPED = "dropped"


@dataclass(slots=True)
class Ask:
    """A question, and in the end its answer. ``keys``: from a sidecar's data to what saves the answer in it."""

    number: int
    entry: Entry
    preset: Preset
    sampling: Sampling
    state: AskState = AskState.WAITING
    text: str = ""
    reason: str = ""
    answer: _Saved | None = field(default=None, repr=False)

    def as_json(self) -> dict[str, Any]:
        """Return what the page shows of it."""
        return {
            "number": self.number,
            "id": self.entry.number,
            "preset": self.preset.name,
            "state": self.state,
            "text": self.text,
            "reason": self.reason,
            "seed": self.sampling.seed,
            "temperature": self.sampling.temperature,
        }


@dataclass(frozen=True, slots=True)
class _Saved:
    """What saving an answer needs, after its clip is gone."""

    captioner: Captioner
    caption: Caption
    clip: Clip

    def keys(self, info: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the keys to set in a sidecar that holds ``info``."""
        return self.captioner.sidecar_keys([self.caption], info, self.clip)


class Asks:
    """The questions of one review, one at a time. For any thread."""

    def __init__(self, settings: Settings, presets: Mapping[str, Preset]) -> None:
        self._settings = settings
        self._presets = presets
        self._asks: dict[int, Ask] = {}
        self._waiting: queue.Queue[Ask] = queue.Queue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._captioner: Captioner | None = None
        self._is_stopped = False
        self._count = 0

    def defaults(self) -> dict[str, Any]:
        """Return the sampling and the prompts that a question begins with."""
        sampling = self._settings.sampling
        prompts = {name: preset.prompt for name, preset in self._presets.items()}
        return {"seed": sampling.seed, "temperature": sampling.temperature, "prompts": prompts}

    def add(self, entry: Entry, name: str, given: Mapping[str, Any]) -> Ask:
        """Put a question into the queue. Raises ConfigError, SettingError for what cannot be asked."""
        sampling = self._settings.sampling
        try:
            seed, temperature = (
                int(given.get("seed", sampling.seed)),
                float(given.get("temperature", sampling.temperature)),
            )
        except (TypeError, ValueError) as error:
            raise ConfigError("seed and temperature are numbers", "correct them and ask again") from error
        require_setting("seed", seed)
        require_setting("temperature", temperature)
        sampling = replace(sampling, seed=seed, temperature=temperature)
        preset = self._preset(name, str(given.get("prompt") or ""))
        with self._lock:
            if self._waiting.qsize() >= _MOST_WAITING:
                raise ConfigError("too many questions are waiting", "wait for an answer")
            self._count += 1
            ask = Ask(number=self._count, entry=entry, preset=preset, sampling=sampling)
            self._asks[ask.number] = ask
            for old in list(self._asks)[:-_MOST_KEPT]:
                del self._asks[old]
            self._waiting.put(ask)
            if self._thread is None:
                self._start()
        return ask

    def get(self, number: int) -> Ask | None:
        """Return a question by its number."""
        return self._asks.get(number)

    def drop(self, ask: Ask) -> None:
        """Forget a question and its answer; one that is being answered ends."""
        ask.state, ask.answer = AskState.DROPPED, None
        self._asks.pop(ask.number, None)

    def as_json(self) -> list[dict[str, Any]]:
        """Return all questions, the oldest first."""
        return [ask.as_json() for ask in list(self._asks.values())]

    def stop(self) -> None:
        """End the question in progress and close the engine."""
        self._is_stopped = True
        if self._captioner is not None:
            self._captioner.engine.close()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _preset(self, name: str, prompt: str) -> Preset:
        known = self._presets.get(name)
        if known is None:
            return free_question(prompt, name)
        if not prompt.strip() or prompt == known.prompt:
            return known
        return validate(replace(known, prompt=prompt), f"the prompt of {name}", "change the prompt and ask again")

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._work, name="asks", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        """Answer questions until there have been none for a while; then the engine is closed."""
        ask: Ask | None = None
        try:
            while ask := self._next():
                ask.state = AskState.LOADING
                with open_captioner(self._settings, Workload(tracks=_MOST_WAITING, prompts=1)) as captioner:
                    self._captioner = captioner
                    while ask is not None:
                        self._answer(captioner, ask)
                        ask = self._next()
                    return
        except MusicFlamingoError as error:
            self._fail_all(ask, f"{error} - {error.hint}" if error.hint else str(error))
        except Exception as error:
            logger.exception("the engine ended")
            self._fail_all(ask, f"{type(error).__name__}: {error}")
        finally:
            with self._lock:
                self._captioner = self._thread = None
                if not (self._waiting.empty() or self._is_stopped):  # asked while the engine was closing
                    self._start()

    def _next(self) -> Ask | None:
        """The next question; None where there was none for a while, or the review ends."""
        waited = 0.0
        while not self._is_stopped and waited < _IDLE:
            with contextlib.suppress(queue.Empty):
                ask = self._waiting.get(timeout=0.5)
                if ask.state != AskState.DROPPED:
                    return ask
                continue
            waited += 0.5
        return None

    def _answer(self, captioner: Captioner, ask: Ask) -> None:
        ask.state = AskState.LISTENING

        def on_text(piece: str) -> None:
            if ask.state == AskState.DROPPED or self._is_stopped:
                raise AnswerCancelledError("the answer is not wanted any more")
            ask.text = (ask.text + piece)[:_PARTIAL]

        try:
            info = read_sidecar(ask.entry.track.sidecar)
            with prepared(ask.entry.track.audio, captioner.policy.excerpt) as clip:
                values = tags.describe(ask.entry.track.audio, info, clip.source_seconds or clip.seconds)
                values |= prompt_values(info, ask.entry.track.audio)
                prompt = ask.preset.render(values)
                if captioner.model.reasons:
                    prompt = replace(prompt, max_tokens=prompt.max_tokens + REASONING_TOKENS)
                (result,) = captioner.engine.describe(clip, [prompt], ask.sampling, TextObserver(on_text))
                if not isinstance(result, Failure):
                    result = not_heard(result, captioner.engine.expected_audio_tokens(clip)) or result
                verdict = result.reason if isinstance(result, Failure) else judged(result)
            if isinstance(verdict, str):
                self._fail(ask, verdict)
            else:
                ask.text, ask.answer = verdict.text, _Saved(captioner, verdict, clip)
                self._settle(ask, AskState.ANSWERED)
        except AnswerCancelledError:
            self._settle(ask, AskState.DROPPED)
        except MusicFlamingoError as error:
            self._fail(ask, f"{error} - {error.hint}" if error.hint else str(error))
        except OSError as error:
            self._fail(ask, f"{error.strerror or error}")

    def _fail(self, ask: Ask, reason: str) -> None:
        ask.reason = reason
        self._settle(ask, AskState.FAILED)

    def _fail_all(self, ask: Ask | None, reason: str) -> None:
        """Fail a question and those that wait: they would meet the same error."""
        with contextlib.suppress(queue.Empty):
            while ask is not None:
                self._fail(ask, reason)
                ask = self._waiting.get_nowait()

    def _settle(self, ask: Ask, state: AskState) -> None:
        if ask.state != AskState.DROPPED:
            ask.state = state
