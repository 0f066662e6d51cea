"""The worker process of engine `native`: processes a clip's audio once, and answers all its questions in one batch.

The audio is encoded and prefilled into one sequence of a unified KV cache, which the other questions' sequences share
by reference (llama_memory_seq_cp). The text after the audio is decoded together, then one token of each answer at a
time. Clips in other slots join the same batches. It is a process of its own because llama.cpp ends its process where
an assertion fails.

It reads each ``ClipRequest`` from a connection (see process.py), and sends a ``Reply`` for each of its questions.
"""

from __future__ import annotations

import argparse
import queue
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from musicflamingo_cli.engines.messages import ClipRequest, Ready, Reply
from musicflamingo_cli.engines.native.bindings import SEQUENCES
from musicflamingo_cli.engines.native.model import ActiveAnswer, Libraries, Model
from musicflamingo_cli.types import Prompt

# Questions that are decoded together, with the chunks (template text and audio) that they share.
Group = tuple[list[Prompt], Any]


class Worker:
    """Receives requests, prepares their audio in a separate thread, and answers them."""

    def __init__(self, model: Model, connection: Connection) -> None:
        """Take a loaded model and the connection to the engine."""
        self._model = model
        self._connection = connection
        self._prepared: queue.Queue[tuple[ClipRequest, list[Group] | str] | None] = queue.Queue()
        self._active: list[ActiveAnswer] = []

    def run(self) -> None:
        """Work until the other side closes the connection."""
        threading.Thread(target=self._prepare_all, daemon=True).start()
        while True:
            try:
                item = self._prepared.get(block=not self._active)
            except queue.Empty:
                self._step()
                continue
            if item is None:
                return
            self._begin(*item)

    def _prepare_all(self) -> None:
        """Prepare each request as it arrives; queue it with its groups, or with the reason why it failed."""
        while True:
            try:
                request: ClipRequest = self._connection.recv()
            except (EOFError, OSError):
                return self._prepared.put(None)
            try:
                clips = [np.ascontiguousarray(soundfile.read(path, dtype="float32")[0]) for path in request.paths]
                self._prepared.put((request, list(self._groups(request, clips))))
            except Exception as error:
                self._prepared.put((request, f"{type(error).__name__}: {error}"))

    def _groups(self, request: ClipRequest, clips: Sequence[NDArray[np.float32]]) -> Iterator[Group]:
        """Yield the questions with the same text before the audio together, at most SEQUENCES in a group."""
        by_prefix: dict[str, list[Prompt]] = {}
        for prompt in request.prompts:
            by_prefix.setdefault(self._model.split(prompt)[0], []).append(prompt)
        for prefix, prompts in by_prefix.items():
            for start in range(0, len(prompts), SEQUENCES):
                yield prompts[start : start + SEQUENCES], self._model.prepare(prefix, clips)

    def _begin(self, request: ClipRequest, prepared: list[Group] | str) -> None:
        """Process a clip's audio and start its answers. The groups of a clip are answered one after another."""
        if isinstance(prepared, str):
            self._send_errors(request.slot, request.prompts, prepared)
            return
        for number, (prompts, chunks) in enumerate(prepared):
            while number and any(each.slot == request.slot for each in self._active):
                self._step()
            try:
                self._prefill(request, prompts, chunks)
            except RuntimeError as error:
                self._model.clear_sequence(request.slot * SEQUENCES)
                self._send_errors(request.slot, prompts, str(error))
            finally:
                self._model.libraries.mtmd.mtmd_input_chunks_free(chunks)

    def _send_errors(self, slot: int, prompts: Sequence[Prompt], error: str) -> None:
        for prompt in prompts:
            self._connection.send(Reply(slot=slot, preset=prompt.preset, error=error))

    def _prefill(self, request: ClipRequest, prompts: Sequence[Prompt], chunks: Any) -> None:
        """Encode and prefill the audio once; start an answer to each question in a sequence of its own."""
        model, first = self._model, request.slot * SEQUENCES
        started = time.monotonic()
        position, audio_tokens = model.prefill(chunks, first)
        prefill_seconds = time.monotonic() - started
        for number, prompt in enumerate(prompts):
            if number:
                model.copy_sequence(first, first + number)
            self._active.append(
                ActiveAnswer(
                    prompt=prompt,
                    slot=request.slot,
                    sequence=first + number,
                    sampler=model.sampler(request.sampling),
                    position=position,
                    audio_tokens=audio_tokens,
                    prefill_seconds=prefill_seconds,
                    unread=model.tokens(model.split(prompt)[1]),
                )
            )

    def _step(self) -> None:
        """Decode one more token of every answer; send those that are complete."""
        self._model.step(self._active)
        unfinished = []
        for each in self._active:
            each.count += 1
            is_end = self._model.is_end(each.token)
            if not is_end:
                each.text += self._model.piece(each.token)
            if not is_end and each.count < each.prompt.max_tokens:
                unfinished.append(each)
                continue
            self._finish(each, hit_limit=not is_end)
        self._active = unfinished

    def _finish(self, answer: ActiveAnswer, hit_limit: bool) -> None:
        self._model.clear_sequence(answer.sequence)
        self._model.free_sampler(answer.sampler)
        self._connection.send(
            Reply(
                slot=answer.slot,
                preset=answer.prompt.preset,
                text=answer.text.decode("utf-8", errors="replace"),
                hit_limit=hit_limit,
                audio_tokens=answer.audio_tokens,
                answer_tokens=answer.count,
                prefill_seconds=answer.prefill_seconds,
                answer_seconds=time.monotonic() - answer.started,
            )
        )


def main() -> None:
    """Run the worker; ``--connection`` is the number of an inherited file descriptor."""
    parser = argparse.ArgumentParser(prog="musicflamingo-native", allow_abbrev=False)
    parser.add_argument("--connection", type=int)
    parser.add_argument("--model")
    parser.add_argument("--mmproj")
    parser.add_argument("--context", type=int)
    parser.add_argument("--slots", type=int)
    parser.add_argument("--gpu-layers", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--probe", action="store_true", help="only load the libraries")
    options = parser.parse_args()
    try:
        if options.probe:
            Libraries()
            return
        connection = Connection(options.connection)
        model = Model(options)
    except Exception as error:  # also a broken chat template: whatever it is, one line on stderr
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
    connection.send(Ready())
    Worker(model, connection).run()


if __name__ == "__main__":
    main()
