"""The endpoint: `/v1/models` and `/v1/chat/completions` as clients of the chat API ask, `/caption` for files."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from musicflamingo_cli.captioning.captioner import Captioner
from musicflamingo_cli.config import Settings
from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.engines.observer import observer_of
from musicflamingo_cli.errors import (
    AudioError,
    ConfigError,
    EngineError,
    ModelError,
    NoRoomError,
    ToolMissingError,
    TooLongError,
    TrackError,
)
from musicflamingo_cli.prompts import Preset, choose, free_question, load_presets, prompts_files
from musicflamingo_cli.serving.chat import ChatRequest, chat_reply, parse_chat
from musicflamingo_cli.serving.clips import ClipStore
from musicflamingo_cli.serving.guard import BodyTooLarge, BodyTooSlow, Guard, Queue, error_body
from musicflamingo_cli.serving.streaming import streamed
from musicflamingo_cli.system.temporary import folder_prefix
from musicflamingo_cli.types import NO_AUDIO, Answer, Clip, Failure, Outcome

logger = logging.getLogger(__name__)

_CHAT = "/v1/chat/completions"
_CHAT_BYTES = 64 << 20  # of a chat request: 20 minutes of FLAC, in base64
_MOST_PRESETS = 20
_PATH = re.compile(r"(?:/[^\s/'\":,;()]+)+/([^\s/'\":,;()]+)")  # its last part is what a client may see
# The status for an error that concerns one request; the first class that fits counts.
_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (ConfigError, 400),
    (BodyTooLarge, 413),
    (BodyTooSlow, 408),
    (TooLongError, 400),
    (NoRoomError, 503),
    (AudioError, 422),
    (EngineError, 503),
    (ModelError, 500),
    (ToolMissingError, 500),
    (TrackError, 500),
)


class Endpoint:
    """What answers requests. ``to_json``: how an outcome is shown (what `caption --json` prints)."""

    def __init__(
        self, captioner: Captioner, settings: Settings, clips: ClipStore, to_json: Callable[..., dict[str, Any]]
    ) -> None:
        self._captioner = captioner
        self._settings = settings
        self._clips = clips
        self._to_json = to_json

    def app(self, token: str, waiting: int, upload_bytes: int) -> Guard:
        """Return the application, guarded. ``waiting``: how many requests may wait for a slot."""
        routes = [
            Route("/health", self.health),
            Route("/v1/models", self.models),
            Route(_CHAT, self.chat, methods=["POST"]),
            Route("/caption", self.caption, methods=["POST"]),
        ]
        handlers: Any = {Exception: _failed, **{kind: _failed for kind, _ in _STATUSES}}
        app = Starlette(routes=routes, exception_handlers=handlers)
        limits = {_CHAT: _CHAT_BYTES, "/caption": upload_bytes}
        return Guard(app, token, Queue(self._captioner.slots, waiting), limits)

    async def health(self, request: Request) -> Response:
        """Answer without a token: whether it runs, and nothing else."""
        return JSONResponse({"status": "ok"})

    async def models(self, request: Request) -> Response:
        """List the one model."""
        model, engine = self._captioner.model, self._captioner.engine
        probe = Clip(path=Path(), samples=16_000, source_seconds=None, was_cut=False)
        meta = {
            "adapter": model.adapter.name if model.adapter else None,
            "n_ctx": model.context_length,
            "slots": engine.slots,
            "max_seconds": model.max_seconds,
            "tiny": model.is_tiny,
            "reasons": model.reasons,
            "pads_audio": engine.expected_audio_tokens(probe) == probe.padded_tokens,
        }
        entry = {"id": model.name, "object": "model", "created": 0, "owned_by": "musicflamingo", "meta": meta}
        entry["architecture"] = {"input_modalities": ["text", "audio"], "output_modalities": ["text"]}
        return JSONResponse({"object": "list", "data": [entry]})

    async def chat(self, request: Request) -> Response:
        """Answer one question about one piece of audio, or in words only."""
        chat = parse_chat(await request.body(), self._settings)
        name = self._captioner.model.name
        if chat.is_streamed:
            response = await streamed(partial(self._answer, chat), name, chat.with_usage, _event_for)
            return _failure(response) if isinstance(response, Failure) else response
        result = await run_in_threadpool(self._answer, chat)
        return _failure(result) if isinstance(result, Failure) else JSONResponse(chat_reply(result, name))

    def _answer(self, chat: ChatRequest, on_text: Callable[[str], None] | None = None) -> Answer | Failure:
        in_words_only = contextlib.nullcontext(NO_AUDIO)
        with self._clips.clip_of(chat.audio, chat.suffix) if chat.audio else in_words_only as clip:
            # To its end: an engine takes a generator that is left early for an interrupt.
            (result,) = list(self._captioner.engine.describe(clip, [chat.prompt], chat.sampling, observer_of(on_text)))
            return result

    async def caption(self, request: Request) -> Response:
        """Caption an uploaded file: the form has `file`, any number of `preset`, or `ask`."""
        try:
            async with request.form(max_files=1, max_fields=_MOST_PRESETS + 1) as form:
                upload = form.get("file")
                if not isinstance(upload, UploadFile):
                    raise ConfigError("the form has no `file`")
                presets = self._presets([str(name) for name in form.getlist("preset")], form.get("ask"))
                return await run_in_threadpool(self._caption, upload, presets)
        except MultiPartException as error:
            raise ConfigError(f"the form cannot be read: {error.message}") from error

    def _presets(self, names: list[str], question: Any) -> list[Preset]:
        if question is not None:
            if names or not isinstance(question, str) or not question.strip():
                raise ConfigError("`ask` is one question, without presets")
            return [free_question(question, "ask")]
        return choose(load_presets(prompts_files(None, self._settings.prompts)), names)

    def _caption(self, upload: UploadFile, presets: list[Preset]) -> Response:
        name = _plain_name(upload.filename or "")
        with tempfile.TemporaryDirectory(prefix=folder_prefix()) as folder:
            audio = Path(folder) / f"audio{_suffix(name)}"
            with audio.open("wb") as file:
                shutil.copyfileobj(upload.file, file)
            outcome = self._captioner.caption(track_for(audio), presets, {}, save=False)
        shown = self._to_json(outcome, self._captioner.engine.name, self._captioner.model.name)
        shown |= {"track": name, "sidecar": None}
        for failure in shown["failures"]:
            failure["reason"] = _without_paths(failure["reason"]).replace(audio.name, name)
            failure["hint"] = _without_paths(failure["hint"])
        return JSONResponse(shown, _status_of(outcome))


def _status_of(outcome: Outcome) -> int:
    if outcome.captions or not outcome.failures:
        return 200
    return 503 if all(failure.kind.blames_engine for failure in outcome.failures) else 422


def _plain_name(given: str) -> str:
    """A client's file name without folders, in its own system's style."""
    return PureWindowsPath(PurePosixPath(given).name).name[:200] or "audio"


def _suffix(name: str) -> str:
    suffix = Path(name).suffix
    return suffix if suffix[1:].isalnum() and suffix.isascii() and len(suffix) <= 6 else ""


def _without_paths(text: str) -> str:
    """A message without the folders of this machine."""
    for folder in (str(Path.home()), tempfile.gettempdir()):  # whose names may hold spaces
        text = text.replace(f"{folder}/", "/")
    return _PATH.sub(r"\1", text)


def _failure(failure: Failure) -> Response:
    return _error(failure.reason, 503 if failure.kind.blames_engine else 422)


def _event_for(problem: Failure | Exception) -> dict[str, Any]:
    """The event that ends an answer which has begun."""
    if isinstance(problem, Failure):
        return dict(error_body(_without_paths(problem.reason), 503))
    status, message = _judged(problem, _CHAT)
    return dict(error_body(message, status))


def _error(message: str, status: int) -> Response:
    return JSONResponse(error_body(_without_paths(message), status), status)


async def _failed(request: Request, error: Exception) -> Response:
    status, message = _judged(error, request.url.path)
    return JSONResponse(error_body(message, status), status)


def _judged(error: Exception, path: str) -> tuple[int, str]:
    """Return the status and the message for an error; log what the operator should know."""
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            if status >= 500:
                logger.warning("%s: %s", path, error)
            return status, _without_paths(str(error))
    logger.error("%s: %s: %s", path, type(error).__name__, error)
    return 500, "an error of this program; its operator sees it in the log"
