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
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import soundfile

from musicflamingo_cli.engines.messages import Cancel, ClipRequest, Notice, Piece, Ready, Reply
from musicflamingo_cli.engines.transformers.answers import (
    Row,
    Together,
    is_lack_of_memory,
    new_text,
    release_memory,
)
from musicflamingo_cli.engines.transformers.cache import Prefix
from musicflamingo_cli.engines.transformers.model import Features, Model
from musicflamingo_cli.engines.transformers.sampling import RowSampler

NO_MEMORY = "there is not enough memory for this clip"
_Key = tuple[object, ...]  # identifies what a prefix holds: the clips' files and the texts before them


@dataclass(slots=True)
class Prepared:
    """A request with its clips as the encoder takes them, or with the reason why they could not be read."""

    request: ClipRequest
    clips: list[Features]
    error: str = ""


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
        self._kept: dict[_Key, Prefix] = {}
        self._prefill_seconds = 0.0
        self._together = Together(
            model=model,
            on_step=self._show,
            on_done=self._reply,
            is_cancelled=lambda row: row.slot in self._cancelled,
            on_notice=lambda text: connection.send(Notice(text)),
            ignores_end=ignores_end,
        )

    def run(self) -> None:
        """Work until the other side closes the connection."""
        threading.Thread(target=self._prepare_all, daemon=True).start()
        while (first := self._received.get()) is not None:
            batch = [first]
            while len(batch) < self._most and (self._unprepared or not self._received.empty()):
                if (another := self._received.get()) is None:
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
            prepared = self._prepare(message)
            self._unprepared -= 1  # first: the other thread would wait for one more
            self._received.put(prepared)

    def _prepare(self, request: ClipRequest) -> Prepared:
        try:
            clips = [soundfile.read(path, dtype="float32")[0] for path in request.paths]
            return Prepared(request, [self._model.features(samples) for samples in clips])
        except Exception as error:
            return Prepared(request, [], NO_MEMORY if is_lack_of_memory(error) else f"{type(error).__name__}: {error}")

    # -- the thread that computes --

    def _answer(self, batch: Sequence[Prepared]) -> None:
        """Answer the questions of several clips together; where memory does not hold them, of half as many."""
        import torch

        rows: list[Row] = []
        try:
            with torch.inference_mode():
                rows = self._rows(batch)
            self._together.answer(rows)
            return
        except Exception as error:
            if re.search("(CUDA|HIP) error", str(error)):
                raise  # the device is unusable from then on: a new process is needed
            if not is_lack_of_memory(error):
                return self._fail(batch, rows, f"{type(error).__name__}: {error}")
        self._kept.clear()
        release_memory(self._model.device)
        if len(batch) == 1:
            return self._fail(batch, rows, NO_MEMORY)
        self._most = len(batch) // 2
        self._connection.send(Notice(f"not enough memory for {len(batch)} tracks at once; trying {self._most}"))
        unanswered = [each for each in batch if not any(row.is_done for row in rows if row.slot == each.request.slot)]
        self._fail([each for each in batch if each not in unanswered], rows, NO_MEMORY)
        for start in range(0, len(unanswered), self._most):
            self._answer(unanswered[start : start + self._most])

    def _rows(self, batch: Sequence[Prepared]) -> list[Row]:
        """Hear what was not heard yet, and return a row for each question; send the error of unreadable clips."""
        places: list[tuple[_Key, Prepared, list[str]]] = []  # what to hear: a clip and the texts before it
        rows: list[tuple[_Key, ClipRequest, int, str]] = []
        for each in batch:
            if each.error:
                self._fail([each], [], each.error)
                continue
            for number, prompt in enumerate(each.request.prompts):
                before, after = self._model.split(prompt, len(each.clips))
                key = (*map(_identity, each.request.paths), *before)
                places.append((key, each, before))
                rows.append((key, each.request, number, after))
        self._hear(places)
        return [
            Row(
                slot=request.slot,
                prompt=request.prompts[number],
                prefix=self._kept[key],
                after=after,
                sampler=RowSampler(request.sampling),
                is_streamed=request.is_streamed,
            )
            for key, request, number, after in rows
        ]

    def _hear(self, places: Sequence[tuple[_Key, Prepared, list[str]]]) -> None:
        """Encode and prefill, in one batch, what is not in memory yet; forget what is not needed now."""
        import torch

        started = time.monotonic()
        wanted = {key: (prepared, before) for key, prepared, before in places}
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

    def _show(self, row: Row) -> None:
        if row.is_streamed and (text := new_text(row, self._model.text_of(row.tokens))):
            self._connection.send(Piece(row.slot, text))

    def _reply(self, row: Row) -> None:
        text = self._model.text_of(row.tokens)
        if row.is_streamed and (piece := new_text(row, text)):
            self._connection.send(Piece(row.slot, piece))
        self._connection.send(
            Reply(
                slot=row.slot,
                preset=row.prompt.preset,
                text=text,
                hit_limit=row.hit_limit,
                audio_tokens=row.prefix.audio_tokens,
                answer_tokens=len(row.tokens),
                prefill_seconds=self._prefill_seconds,
                answer_seconds=row.seconds,
            )
        )

    def _fail(self, batch: Sequence[Prepared], rows: Sequence[Row], error: str) -> None:
        """Answer every question that has no answer with an error."""
        answered = {(row.slot, row.prompt.preset) for row in rows if row.is_done}
        for each in batch:
            for prompt in each.request.prompts:
                if (each.request.slot, prompt.preset) not in answered:
                    self._connection.send(Reply(slot=each.request.slot, preset=prompt.preset, error=error))


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
