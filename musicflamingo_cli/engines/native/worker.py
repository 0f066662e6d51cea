"""The process behind engine `native`: hears a track once, and answers all its prompts in one batch.

The audio is encoded and prefilled into one sequence of a unified KV cache, which the other prompts' sequences share by
reference (llama_memory_seq_cp); their tails go in together, then one token of each a step. Tracks in other lanes join
the same batches. It has a process of its own because llama.cpp ends its process where an assertion fails.

Talks with native.py through a connection: gets a ``Track``, sends a ``Said`` for each of its prompts.
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

from musicflamingo_cli.engines.native.messages import READY, SEQUENCES, Question, Said, Track
from musicflamingo_cli.engines.native.model import Answering, Libraries, Model


class Worker:
    """Takes tracks from the connection, prepares them in a thread of its own, and answers."""

    def __init__(self, model: Model, connection: Connection) -> None:
        self._model = model
        self._connection = connection
        self._prepared: queue.Queue[tuple[Track, list[tuple[list[Question], Any]] | str] | None] = queue.Queue()
        self._answering: list[Answering] = []

    def run(self) -> None:
        """Until the other side is gone."""
        threading.Thread(target=self._prepare_all, daemon=True).start()
        while True:
            try:
                item = self._prepared.get(block=not self._answering)
            except queue.Empty:
                self._step()
                continue
            if item is None:
                return
            self._begin(*item)

    def _prepare_all(self) -> None:
        while True:
            try:
                track: Track = self._connection.recv()
            except (EOFError, OSError):
                return self._prepared.put(None)
            try:
                samples, _ = soundfile.read(track.path, dtype="float32")
                self._prepared.put((track, list(self._prepare(track, np.ascontiguousarray(samples)))))
            except Exception as error:
                self._prepared.put((track, f"{type(error).__name__}: {error}"))

    def _prepare(self, track: Track, samples: NDArray[np.float32]) -> Iterator[tuple[list[Question], Any]]:
        """Questions with the same words before the audio, together with what is to be heard for them."""
        alike: dict[str, list[Question]] = {}
        for question in track.questions:
            alike.setdefault(self._model.split(question)[0], []).append(question)
        for before, questions in alike.items():
            for start in range(0, len(questions), SEQUENCES):
                yield questions[start : start + SEQUENCES], self._model.prepare(before, samples)

    def _begin(self, track: Track, prepared: list[tuple[list[Question], Any]] | str) -> None:
        """Hear a track and set out to answer. Several sets of questions of one track are answered one after another."""
        if isinstance(prepared, str):
            for question in track.questions:
                self._connection.send(Said(track.lane, question.preset, fault=prepared))
            return
        for number, (questions, chunks) in enumerate(prepared):
            while number and any(each.lane == track.lane for each in self._answering):
                self._step()
            try:
                self._hear(track, questions, chunks)
            except RuntimeError as error:
                self._model.forget(track.lane * SEQUENCES)
                for question in questions:
                    self._connection.send(Said(track.lane, question.preset, fault=str(error)))
            finally:
                self._model.libraries.mtmd.mtmd_input_chunks_free(chunks)

    def _hear(self, track: Track, questions: Sequence[Question], chunks: Any) -> None:
        model, first = self._model, track.lane * SEQUENCES
        started = time.monotonic()
        position, audio_tokens = model.hear(chunks, first)
        hearing = time.monotonic() - started
        for number, question in enumerate(questions):
            if number:
                model.share(first, first + number)
            tail, sampler = model.tokens(model.split(question)[1]), model.sampler(track)
            self._answering.append(
                Answering(question, track.lane, first + number, sampler, position, audio_tokens, hearing, tail)
            )

    def _step(self) -> None:
        """One more token of every answer; those that are done leave."""
        self._model.step(self._answering)
        going_on = []
        for each in self._answering:
            each.count += 1
            is_end = self._model.is_end(each.token)
            if not is_end:
                each.said += self._model.piece(each.token)
            if not is_end and each.count < each.question.limit:
                going_on.append(each)
                continue
            self._end(each, hit_limit=not is_end)
        self._answering = going_on

    def _end(self, each: Answering, hit_limit: bool) -> None:
        self._model.forget(each.sequence)
        self._model.free(each.sampler)
        self._connection.send(
            Said(
                each.lane,
                each.question.preset,
                each.said.decode("utf-8", errors="replace"),
                hit_limit,
                each.audio_tokens,
                hearing=each.hearing,
                answering=time.monotonic() - each.started,
            )
        )


def main() -> None:
    """``--connection`` is the number of a file that is inherited."""
    parser = argparse.ArgumentParser(prog="musicflamingo-native", allow_abbrev=False)
    parser.add_argument("--connection", type=int)
    parser.add_argument("--model")
    parser.add_argument("--mmproj")
    parser.add_argument("--context", type=int)
    parser.add_argument("--lanes", type=int)
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
    except Exception as error:  # a template's, too: whatever it is, one line
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
    connection.send(READY)
    Worker(model, connection).run()


if __name__ == "__main__":
    main()
