"""The worker process of engine `transformers`: a clip is heard once, and all its questions are answered together.

Requests of several slots that wait at the same time are answered in one batch. A clip's memory is kept until the next
batch, so that the next turn of a conversation, or a second try, does not hear it again. It is a process of its own so
that a lack of memory or a crash of a driver costs one track, and so that it can be stopped at any time.

It reads each ``ClipRequest`` from a connection (see worker_process.py), and sends a ``Reply`` for each question.
"""

from __future__ import annotations

import argparse
import queue
import re
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import soundfile

from musicflamingo_cli.engines.messages import Begun, Cancel, ClipRequest, Notice, Piece, Ready, Reply
from musicflamingo_cli.engines.transformers.answers import (
    Row,
    Together,
    is_lack_of_memory,
    new_text,
    release_memory,
)
from musicflamingo_cli.engines.transformers.attention import Prefix
from musicflamingo_cli.engines.transformers.model import Features, Model
from musicflamingo_cli.engines.transformers.sampling import RowSampler
from musicflamingo_cli.types import Prompt

NO_MEMORY = "there is not enough memory for this clip"
_POLL_SECONDS = 0.05
_Key = tuple[object, ...]  # identifies what a prefix holds: the clips' files and the texts before them


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt in the checkpoint's template: the texts before each clip, and the text after the last one."""

    prompt: Prompt
    before: Sequence[str]
    after: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request with its clips as the encoder takes them. ``files``: which files these are."""

    request: ClipRequest
    questions: Sequence[Question]
    clips: Sequence[Features]
    files: Sequence[tuple[str, int, int]]


class Worker:
    """Receives requests, prepares their audio in a separate thread, and answers them."""

    def __init__(self, model: Model, connection: Connection, slots: int, ignores_end: bool = False) -> None:
        """Take a loaded model and the connection to the engine."""
        self._model = model
        self._connection = connection
        self._most = slots  # clips in one batch
        self._received: queue.Queue[Prepared | None] = queue.Queue()
        self._unprepared = 0  # requests that the other thread is still preparing
        self._cancelled: set[int] = set()
        self._sending = threading.Lock()  # both threads do
        self._kept: dict[_Key, Prefix] = {}
        self._prefill_seconds = 0.0
        self._together = Together(
            model=model,
            on_step=self._show,
            on_done=self._reply,
            is_cancelled=lambda row: row.slot in self._cancelled,
            on_notice=lambda text: self._send(Notice(text)),
            ignores_end=ignores_end,
        )

    def run(self) -> None:
        """Work until the other side closes the connection."""
        threading.Thread(target=self._prepare_all, daemon=True).start()
        while (first := self._received.get()) is not None:
            batch = [first]
            while len(batch) < self._most and (self._unprepared or not self._received.empty()):
                try:
                    another = self._received.get(timeout=_POLL_SECONDS)  # one that fails never comes
                except queue.Empty:
                    continue
                if another is None:
                    return
                batch.append(another)
            self._answer(batch)

    # -- the thread that reads --

    def _prepare_all(self) -> None:
        """Prepare each request as it arrives, while others are being answered."""
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                return self._received.put(None)
            if isinstance(message, Cancel):
                self._cancelled.add(message.slot)
                continue
            self._cancelled.discard(message.slot)
            self._unprepared += 1
            try:
                prepared = self._prepare(message)
            except Exception as error:  # an unreadable clip, or a template that rejects the prompt
                self._fail_request(message, _reason(error))
            else:
                self._received.put(prepared)
            finally:
                self._unprepared -= 1

    def _prepare(self, request: ClipRequest) -> Prepared:
        clips = [self._model.features(soundfile.read(path, dtype="float32")[0]) for path in request.paths]
        questions = [Question(prompt, *self._model.split(prompt, len(clips))) for prompt in request.prompts]
        return Prepared(request, questions, clips, [_identity(path) for path in request.paths])

    def _fail_request(self, request: ClipRequest, reason: str) -> None:
        """Answer all questions with an error."""
        for prompt in request.prompts:
            self._send(Reply(request.slot, request.request, prompt.preset, error=reason))

    # -- the thread that computes --

    def _answer(self, batch: Sequence[Prepared]) -> None:
        """Answer the questions of several clips together; where memory does not hold them, of half as many."""
        import torch

        rows: list[Row] = []
        try:
            with torch.inference_mode():
                rows = self._rows(batch)
            for each in batch:
                self._send(Begun(each.request.slot, each.request.request))
            self._together.answer(rows)
            return
        except Exception as error:
            if re.search("(CUDA|HIP) error", str(error)):
                raise  # the device is unusable from then on: a new process is needed
            if not is_lack_of_memory(error):
                return self._fail(_unanswered(batch, rows), _reason(error))
        self._kept.clear()
        left = _unanswered(batch, rows)
        rows.clear()
        release_memory(self._model.device)
        if len(left) <= 1:
            return self._fail(left, NO_MEMORY)
        self._most = len(left) // 2
        self._send(Notice(f"not enough memory for {len(left)} tracks at once; trying {self._most}"))
        for start in range(0, len(left), self._most):
            self._answer(left[start : start + self._most])

    def _rows(self, batch: Sequence[Prepared]) -> list[Row]:
        """Hear what was not heard yet, and return a row for each question."""
        places: dict[_Key, tuple[Prepared, Sequence[str]]] = {}  # what to hear: a clip and the texts before it
        rows: list[tuple[_Key, ClipRequest, Question]] = []
        for each in batch:
            for question in each.questions:
                key = (*each.files, *question.before)
                places[key] = each, question.before
                rows.append((key, each.request, question))
        self._hear(places)
        return [
            Row(
                slot=request.slot,
                request=request.request,
                prompt=question.prompt,
                prefix=self._kept[key],
                after=question.after,
                sampler=RowSampler(request.sampling),
                is_streamed=request.is_streamed,
            )
            for key, request, question in rows
        ]

    def _hear(self, wanted: Mapping[_Key, tuple[Prepared, Sequence[str]]]) -> None:
        """Encode and prefill, in one batch, what is not in memory yet; forget what is not needed now."""
        import torch

        started = time.monotonic()
        self._kept = {key: prefix for key, prefix in self._kept.items() if key in wanted}
        self._kept |= {key: self._model.nothing() for key, (each, _) in wanted.items() if not each.clips}
        new = {key: value for key, value in wanted.items() if key not in self._kept}
        if new:
            clips = {id(each): each.clips for each, _ in new.values()}
            heard = {number: [self._model.hear(clip) for clip in some] for number, some in clips.items()}
            vectors = []
            for each, before in new.values():
                parts = [
                    part
                    for text, clip in zip(before, heard[id(each)], strict=True)
                    for part in ([self._model.vectors(text), clip] if text else [clip])
                ]
                vectors.append(torch.cat(parts))
            tokens = [self._model.audio_tokens(each.clips) for each, _ in new.values()]
            self._kept |= dict(zip(new, self._model.prefill(vectors, tokens), strict=True))
        self._prefill_seconds = time.monotonic() - started if new else 0.0

    # -- what is sent --

    def _send(self, message: Notice | Piece | Begun | Reply) -> None:
        with self._sending:
            self._connection.send(message)

    def _show(self, row: Row) -> None:
        if row.is_streamed and (text := new_text(row, self._model.text_of(row.tokens))):
            self._send(Piece(row.slot, row.request, row.prompt.preset, text))

    def _reply(self, row: Row) -> None:
        text = self._model.text_of(row.tokens)
        if row.is_streamed and (piece := new_text(row, text)):
            self._send(Piece(row.slot, row.request, row.prompt.preset, piece))
        self._send(
            Reply(
                slot=row.slot,
                request=row.request,
                preset=row.prompt.preset,
                text=text,
                hit_limit=row.hit_limit,
                audio_tokens=row.prefix.audio_tokens,
                answer_tokens=len(row.tokens),
                prefill_seconds=self._prefill_seconds,
                answer_seconds=row.seconds,
            )
        )

    def _fail(self, batch: Sequence[Prepared], error: str) -> None:
        for each in batch:
            self._fail_request(each.request, error)


def _unanswered(batch: Sequence[Prepared], rows: Sequence[Row]) -> list[Prepared]:
    """What is left of a batch: the requests with questions that have no answer, and only those questions."""
    answered = {(row.slot, row.prompt.preset) for row in rows if row.is_done}
    left = []
    for each in batch:
        questions = [q for q in each.questions if (each.request.slot, q.prompt.preset) not in answered]
        if questions:
            request = replace(each.request, prompts=[question.prompt for question in questions])
            left.append(replace(each, request=request, questions=questions))
    return left


def _reason(error: Exception) -> str:
    return NO_MEMORY if is_lack_of_memory(error) else f"{type(error).__name__}: {error}"


def _identity(path: str) -> tuple[str, int, int]:
    """A file and its state: a clip's name alone may come back with other samples."""
    state = Path(path).stat()
    return path, state.st_size, state.st_mtime_ns


def main() -> None:
    """Run the worker; ``--connection`` is the number of an inherited file descriptor."""
    parser = argparse.ArgumentParser(prog="musicflamingo-transformers", allow_abbrev=False)
    parser.add_argument("--connection", type=int)
    parser.add_argument("--folder")
    parser.add_argument("--slots", type=int)
    parser.add_argument("--lora")
    parser.add_argument("--device")
    parser.add_argument("--attention")
    parser.add_argument("--quantize")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--ignore-end", action="store_true", help="for measurements: go on to the token limit")
    options = parser.parse_args()
    try:
        connection = Connection(options.connection)
        model = Model(options)
    except Exception as error:  # whatever torch or transformers raise: one line on stderr
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
    connection.send(Ready(model.details))
    Worker(model, connection, options.slots, options.ignore_end).run()


if __name__ == "__main__":
    main()
