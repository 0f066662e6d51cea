"""Engine `remote`: an OpenAI-compatible chat endpoint that takes audio (llama-server, vLLM, `musicflamingo serve`)."""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.conversation import messages, response_format
from musicflamingo_cli.engines.observer import UNOBSERVED, Observer, Stage, pieces_for
from musicflamingo_cli.engines.remote.encoding import AudioFormat, audio_part, encoded
from musicflamingo_cli.engines.remote.replies import Completion, completion_in, completion_of, message_in, retry_after
from musicflamingo_cli.engines.remote.stream import ReaderFailed, StreamedCompletion, WrongAnswer
from musicflamingo_cli.errors import (
    AnswerCancelledError,
    EngineError,
    ModelError,
    StoppedError,
    TimedOutError,
    TooLongError,
)
from musicflamingo_cli.models.endpoints import Endpoint, Offer, adapter_number, key_hint, offer_of
from musicflamingo_cli.models.model import RemoteModel
from musicflamingo_cli.system.http import HttpReply, RequestError, RequestTimeout
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling

logger = logging.getLogger(__name__)

TRIES = 4
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds between tries
_AGAIN = frozenset([408, 409, 425, 429, 500, 502, 503, 504])  # statuses that may go away
_BYTES_PER_TOKEN = 8  # no text has fewer tokens than its bytes by this
_TOO_LONG = ("exceed", "too long", "maximum", "holds")  # what is said of a context, the last by our own `serve`
_CANNOT_DECODE = re.compile(
    r"\b(flac|codecs?|decod\w+|formats?|mime|recogni[sz]ed|unsupported audio|supports? wav|wav (and|or) mp3)\b"
    r"|\b(failed to|could not|cannot|unable to) (be )?load(ed)?\b(?! (the )?model)"
)
_STREAMED = {"stream": True, "stream_options": {"include_usage": True}}


class RemoteEngine:
    """Asks one endpoint, a clip's prompts one after another, so that it can reuse the audio's part of its cache."""

    name = "remote"

    def __init__(self, endpoint: Endpoint, settings: Settings, model: RemoteModel) -> None:
        """Nothing is sent yet; ``ping`` asks what the endpoint says of itself."""
        self._endpoint = endpoint
        self._settings = settings
        self._model = model
        self._offer: Offer | None = None
        self._format = AudioFormat.FLAC
        self._streams = True  # until it says that it does not
        self._stopped = threading.Event()
        self.provenance: Mapping[str, str] = {"endpoint": endpoint.url}
        self._adapter: dict[str, Any] = {}  # what a request says of it

    @property
    def slots(self) -> int:
        """As many as the user says, else the endpoint, else one."""
        return self._settings.slots or (self._offer and self._offer.slots) or 1

    def ping(self) -> None:
        """Learn what the endpoint offers. Raises EngineError, ModelError."""
        try:
            offer = offer_of(self._endpoint, self._settings.model)
        except RequestError as error:
            raise self._unreachable(error) from error
        if offer.model.name != self._model.name:
            raise ModelError(f"{self._endpoint.url} now has {offer.model.name}", f"serve {self._model.name} there")
        self._choose_adapter(offer)
        self._offer = offer

    def _choose_adapter(self, offer: Offer) -> None:
        """Find the adapter that the settings name. Raises ModelError where the endpoint has none of that name."""
        name = self._settings.lora.name if self._settings.lora else offer.adapter
        if not name:
            return
        if name != offer.adapter:
            number = None
            if offer.is_llama_server:
                try:
                    number = adapter_number(self._endpoint, name)
                except RequestError as error:
                    raise self._unreachable(error) from error
            if number is None:
                hint = f"start it with the adapter: musicflamingo serve --lora {name}, or llama-server --lora"
                raise ModelError(f"{self._endpoint.url} has no adapter {name}", hint)
            self._adapter = {"lora": [{"id": number, "scale": 1.0}]}
        self.provenance = {"endpoint": self._endpoint.url, "lora": name}

    def expected_audio_tokens(self, clip: Clip) -> int:
        """The audio tokens that a clip makes there; the least of all implementations where that is not known."""
        return clip.padded_tokens if self._offer and self._offer.pads else clip.trimmed_tokens

    def describe(
        self,
        clip: Clip,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        observer: Observer = UNOBSERVED,
    ) -> Iterator[Answer | Failure]:
        """Yield one result for each prompt, in their order; see ``Engine.describe``.

        A clip has ``timeout`` seconds for each prompt, all together, pauses between tries included. Where an answer
        breaks off and is tried again, ``observer`` gets its beginning again, too. Raises TooLongError where no prompt
        fits.
        """
        deadline = time.monotonic() + self._settings.timeout * len(prompts)
        audio: dict[AudioFormat, list[str]] = {}
        too_long: list[tuple[Prompt, TooLongError]] = []
        observer.reached(Stage.HEARING)
        for prompt in prompts:
            started = time.monotonic()
            try:
                reply = self._ask(clip, prompt, sampling, audio, deadline, pieces_for(observer, prompt.preset))
            except (StoppedError, AnswerCancelledError):
                raise
            except TooLongError as error:
                too_long.append((prompt, error))
                continue
            except EngineError as error:
                yield Failure.for_preset(prompt.preset, error)
                continue
            yield self._answer(reply, clip, prompt, sampling, time.monotonic() - started)
        if too_long and len(too_long) == len(prompts):
            raise too_long[0][1]
        yield from (Failure.for_preset(prompt.preset, error) for prompt, error in too_long)

    def close(self) -> None:
        """Stop all work, from any thread: no further request is sent, and pauses end."""
        self._stopped.set()

    def _ask(
        self,
        clip: Clip,
        prompt: Prompt,
        sampling: Sampling,
        audio: dict[AudioFormat, list[str]],
        deadline: float,
        on_text: Callable[[str], None] | None,
    ) -> Completion:
        """Return the answer to one prompt, sending the audio as WAV where FLAC is not understood."""
        for form in dict.fromkeys((self._format, AudioFormat.WAV)):
            if form not in audio:
                audio[form] = [encoded(each, form) for each in clip.all]
            parts = [audio_part(data, form) for data in audio[form]]
            try:
                reply = self._complete(self._request(prompt, sampling, parts), deadline, on_text)
            except _NotUnderstood as error:
                if form is AudioFormat.WAV:
                    raise EngineError(str(error), "is it a model that takes audio?") from error
                continue
            if form is not self._format:
                logger.info("%s does not take FLAC; audio is sent as WAV", self._endpoint.url)
                self._format = form
            return reply
        raise AssertionError("the last format returns or raises")

    def _request(self, prompt: Prompt, sampling: Sampling, audio: list[dict[str, object]]) -> dict[str, Any]:
        return {
            "model": self._model.identifier,
            "messages": messages(prompt, audio),
            "max_tokens": prompt.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            # llama.cpp's name and vLLM's; either ignores the other's.
            "repeat_penalty": sampling.repeat_penalty,
            "repetition_penalty": sampling.repeat_penalty,
            **response_format(prompt),
            **self._adapter,
        }

    def _complete(self, chat: dict[str, Any], deadline: float, on_text: Callable[[str], None] | None) -> Completion:
        """Send a request until there is an answer. Raises EngineError, _NotUnderstood, and what ``on_text`` raises."""
        problem: EngineError = TimedOutError("no time was left for this prompt", "allow more with --timeout")
        for attempt in range(TRIES):
            if (left := deadline - time.monotonic()) <= 0:
                raise problem
            if self._stopped.is_set():
                raise StoppedError("the run was stopped before the answer arrived", "run the same command again")
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt) * random.uniform(0.5, 1.5)
            try:
                reply, completion = self._send(chat, min(left, self._settings.timeout), on_text)
                if completion:
                    return completion
                problem, wait = self._rejection(reply)
                if reply.status not in _AGAIN:
                    raise problem
                pause = pause if wait is None else wait + random.uniform(0, 0.1 * wait + 0.1)
            except RequestTimeout as error:
                problem = TimedOutError(f"{self._endpoint.url}: {error}", "allow more with --timeout")
            except RequestError as error:
                problem = self._unreachable(error)
                if error.is_permanent:
                    raise problem from error
            except WrongAnswer as error:
                problem = EngineError(f"{self._endpoint.url}: {error}", "check what runs there, and its log")
            if attempt == TRIES - 1 or time.monotonic() + pause >= deadline:
                break
            logger.debug("%s; trying again in %.1f s", problem, pause)
            self._stopped.wait(pause)
        raise problem

    def _send(
        self, chat: dict[str, Any], seconds: float, on_text: Callable[[str], None] | None
    ) -> tuple[HttpReply, Completion | None]:
        """Send a request once; return the reply, and the completion in it. ``on_text`` gets pieces, or all of it."""
        stream = StreamedCompletion(on_text) if on_text and self._streams else None
        more, on_part = (_STREAMED, stream.feed) if stream else ({}, None)
        try:
            reply = self._endpoint.send("POST", "/chat/completions", chat | more, seconds, on_part)
        except ReaderFailed as failure:
            raise failure.error from None
        if stream and stream.has_begun:
            return reply, completion_of(stream.whole())
        if reply.status == 200:
            completion = completion_in(reply.body)
            if on_text:
                on_text(completion.text)
            return reply, completion
        if stream and _is_about_streaming(message_in(reply.body)):
            logger.info("%s does not stream answers", self._endpoint.url)
            self._streams = False
            return self._send(chat, seconds, on_text)
        return reply, None

    def _rejection(self, reply: HttpReply) -> tuple[EngineError, float | None]:
        """Return the error for a status, and the seconds after which the endpoint wants to be asked again."""
        message = message_in(reply.body)
        text = f"{self._endpoint.url} answered {reply.status}" + (f": {message}" if message else "")
        lower = message.lower()
        if reply.status in (401, 403):
            return EngineError(text, key_hint()), None
        if reply.status == 429:
            return EngineError(text, "ask with fewer --slots, or later"), retry_after(reply)
        if reply.status in (400, 413, 415, 422):
            if "context" in lower and any(word in lower for word in _TOO_LONG):
                return TooLongError(text, "use less audio: --max-seconds 300"), None
            if reply.status == 415 or _CANNOT_DECODE.search(lower):
                raise _NotUnderstood(text)
            if reply.status == 413:
                return TooLongError(text, "use less audio: --max-seconds 300"), None
        return EngineError(text, "check what runs there, and its log"), retry_after(reply)

    def _unreachable(self, error: RequestError) -> EngineError:
        hint = "check the URL, and that it is running"
        if "CERTIFICATE" in str(error):
            hint = "have its certificate renewed, or name its authority's file in SSL_CERT_FILE"
        return EngineError(f"{self._endpoint.url}: {error}", hint)

    def _answer(self, reply: Completion, clip: Clip, prompt: Prompt, sampling: Sampling, seconds: float) -> Answer:
        heard = reply.audio_tokens
        if heard is None and reply.prompt_tokens is not None:
            # What is not text must be audio; so few tokens for the text that a whole clip never seems to be missing.
            said = [
                prompt.text,
                prompt.system,
                *(part for turn in prompt.history for part in (turn.question, turn.answer)),
            ]
            text = len("".join(said).encode()) // _BYTES_PER_TOKEN
            heard = min(max(0, reply.prompt_tokens - text), self.expected_audio_tokens(clip))
        provenance = {**self.provenance, **({} if heard is not None else {"heard": "not reported"})}
        return Answer(
            prompt=prompt,
            text=reply.text,
            hit_limit=reply.hit_limit,
            audio_tokens=heard,
            seconds=seconds,
            sampling=sampling,
            answer_tokens=reply.answer_tokens,
            provenance=provenance,
        )


class _NotUnderstood(Exception):
    """The endpoint could not read the audio."""


def _is_about_streaming(message: str) -> bool:
    lower = message.lower()
    return "stream" in lower and not _CANNOT_DECODE.search(lower)
