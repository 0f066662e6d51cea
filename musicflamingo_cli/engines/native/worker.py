"""The worker process of engine `native`: processes a clip's audio once, and answers all its questions in one batch.

The audio is encoded and prefilled into the first sequence of the clip's slot, in a unified KV cache; the answers'
sequences share it by reference (llama_memory_seq_cp). The text after the audio is decoded together, then one token of
each answer at a time. Clips in other slots join the same batches. The audio stays until another clip comes to the
slot, so that retries and follow-up questions cost only their text. It is a process of its own because llama.cpp ends
its process where an assertion fails.

It reads each ``ClipRequest`` from a connection (see worker_process.py), and sends a ``Reply`` for each of its
questions.
"""

from __future__ import annotations

import argparse
import queue
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from musicflamingo_cli.engines.messages import Begun, Cancel, ClipRequest, Piece, Ready, Reply
from musicflamingo_cli.engines.native.audio_encoder import PreparedAudio
from musicflamingo_cli.engines.native.bindings import SEQUENCES
from musicflamingo_cli.engines.native.libraries import Libraries
from musicflamingo_cli.engines.native.model import ActiveAnswer, Model
from musicflamingo_cli.types import Prompt

# What is in a slot's first sequence: the text before the audio, and each file's path, size and time of change.
Source = tuple[str, tuple[tuple[str, int, int], ...]]


@dataclass(frozen=True, slots=True)
class Group:
    """Questions that are answered together. ``audio``: what comes before them, None where the slot has it."""

    prompts: Sequence[Prompt]
    source: Source
    audio: PreparedAudio | None


@dataclass(frozen=True, slots=True)
class Prefix:
    """The processed audio in a slot's first sequence. ``length`` is in tokens, of which some are audio."""

    source: Source
    length: int
    audio_tokens: int


class Worker:
    """Receives requests, prepares their audio in a separate thread, and answers them."""

    def __init__(self, model: Model, connection: Connection) -> None:
        """Take a loaded model and the connection to the engine."""
        self._model = model
        self._connection = connection
        self._prepared: queue.Queue[tuple[ClipRequest, list[Group] | str] | None] = queue.Queue()
        self._active: list[ActiveAnswer] = []
        # Written by one thread while the other one waits for it: a slot gets its next request after its last reply.
        self._prefixes: dict[int, Prefix] = {}
        self._cancelled: set[int] = set()  # slots

    def run(self) -> None:
        """Work until the other side closes the connection."""
        threading.Thread(target=self._receive_all, daemon=True).start()
        while True:
            try:
                item = self._prepared.get(block=not self._active)
            except queue.Empty:
                self._step()
                continue
            if item is None:
                return
            self._begin(*item)

    def _receive_all(self) -> None:
        """Prepare each request as it arrives; queue it with its groups, or with the reason why it failed."""
        while True:
            try:
                message: ClipRequest | Cancel = self._connection.recv()
            except (EOFError, OSError):
                return self._prepared.put(None)
            if isinstance(message, Cancel):
                self._cancelled.add(message.slot)
                continue
            self._cancelled.discard(message.slot)  # one that came after the last reply
            try:
                self._prepared.put((message, list(self._groups(message))))
            except Exception as error:
                self._prepared.put((message, f"{type(error).__name__}: {error}"))

    def _groups(self, request: ClipRequest) -> Iterator[Group]:
        """Yield the questions with the same text before the audio together, as many as there are sequences for.

        Those for which the slot has the audio already come first.
        """
        files = tuple(map(identity, request.paths))
        by_source: dict[Source, list[Prompt]] = {}
        for prompt in request.prompts:
            by_source.setdefault((self._model.split(prompt)[0], files), []).append(prompt)
        prefix = self._prefixes.get(request.slot)
        there = prefix.source if prefix else None
        clips: list[NDArray[np.float32]] = []
        for source in sorted(by_source, key=lambda each: each != there):
            if source != there:
                clips = clips or [read_clip(path) for path in request.paths]
            prompts, most = by_source[source], SEQUENCES - 1
            for start in range(0, len(prompts), most):
                audio = self._model.audio_encoder.prepare(source[0], clips) if source != there else None
                there = source
                yield Group(prompts[start : start + most], source, audio)

    def _begin(self, request: ClipRequest, prepared: list[Group] | str) -> None:
        """Process a clip's audio and start its answers. The groups of a clip are answered one after another."""
        if isinstance(prepared, str):
            self._send_errors(request, request.prompts, prepared)
            return
        for number, group in enumerate(prepared):
            while number and any(each.slot == request.slot for each in self._active):
                self._step()
            try:
                if request.slot in self._cancelled:
                    raise RuntimeError("cancelled")
                self._start_answers(request, group)
            except RuntimeError as error:
                self._send_errors(request, group.prompts, str(error))
            finally:
                if group.audio:
                    self._model.audio_encoder.free(group.audio)

    def _send_errors(self, request: ClipRequest, prompts: Sequence[Prompt], error: str) -> None:
        for prompt in prompts:
            self._connection.send(Reply(request.slot, request.request, prompt.preset, error=error))

    def _start_answers(self, request: ClipRequest, group: Group) -> None:
        """Start an answer to each question, in a sequence of its own.

        Raises RuntimeError before any is started; what is wrong with one question is sent as its error.
        """
        model, first = self._model, request.slot * SEQUENCES
        started = time.monotonic()
        prefix = self._prefix(request.slot, group)
        prefill_seconds = time.monotonic() - started if group.audio else 0.0
        self._connection.send(Begun(request.slot, request.request))
        for number, prompt in enumerate(group.prompts, 1):
            try:
                sampler = model.sampler(request.sampling, prompt.schema)
            except RuntimeError as error:
                self._send_errors(request, [prompt], str(error))
                continue
            model.copy_sequence(first, first + number)
            self._active.append(
                ActiveAnswer(
                    prompt=prompt,
                    slot=request.slot,
                    request=request.request,
                    sequence=first + number,
                    sampler=sampler,
                    position=prefix.length,
                    audio_tokens=prefix.audio_tokens,
                    prefill_seconds=prefill_seconds,
                    unread=model.tokens(model.split(prompt)[1]),
                    is_streamed=request.is_streamed,
                )
            )

    def _prefix(self, slot: int, group: Group) -> Prefix:
        """Return the audio of a group's questions in the slot's first sequence, processed if it is not there.

        Raises RuntimeError.
        """
        prefix = self._prefixes.get(slot)
        if prefix and prefix.source == group.source:
            return prefix
        if not group.audio:  # the group before this one, which has them, failed
            raise RuntimeError("the audio could not be decoded")
        sequence = slot * SEQUENCES
        self._prefixes.pop(slot, None)
        self._model.clear_sequence(sequence)
        try:
            length, audio_tokens = self._model.audio_encoder.prefill(group.audio, self._model.context, sequence)
        except RuntimeError:
            self._model.clear_sequence(sequence)
            raise
        return self._prefixes.setdefault(slot, Prefix(group.source, length, audio_tokens))

    def _step(self) -> None:
        """Decode one more token of every answer; send those that are complete."""
        self._model.step(self._active)
        unfinished = []
        for each in self._active:
            each.count += 1
            is_end = self._model.is_end(each.token)
            if not is_end:
                self._add(each, self._model.piece(each.token))
            if is_end or each.count >= each.prompt.max_tokens or each.slot in self._cancelled:
                self._finish(each, hit_limit=not is_end)
            else:
                unfinished.append(each)
        self._active = unfinished

    def _add(self, answer: ActiveAnswer, data: bytes, is_last: bool = False) -> None:
        """Add bytes to an answer; where it is streamed, send the characters that are complete with them."""
        text = answer.decoder.decode(data, final=is_last)
        answer.text.append(text)
        if text and answer.is_streamed:
            self._connection.send(Piece(answer.slot, answer.request, answer.prompt.preset, text))

    def _finish(self, answer: ActiveAnswer, hit_limit: bool) -> None:
        self._add(answer, b"", is_last=True)
        self._model.clear_sequence(answer.sequence)
        self._model.free_sampler(answer.sampler)
        self._connection.send(
            Reply(
                slot=answer.slot,
                request=answer.request,
                preset=answer.prompt.preset,
                text="".join(answer.text),
                hit_limit=hit_limit,
                audio_tokens=answer.audio_tokens,
                answer_tokens=answer.count,
                prefill_seconds=answer.prefill_seconds,
                answer_seconds=time.monotonic() - answer.started,
            )
        )


def identity(path: str) -> tuple[str, int, int]:
    """Return a file's path, size in bytes and time of its last change in nanoseconds."""
    status = Path(path).stat()
    return path, status.st_size, status.st_mtime_ns


def read_clip(path: str) -> NDArray[np.float32]:
    """Return the samples of a mono WAV file."""
    return np.ascontiguousarray(soundfile.read(path, dtype="float32")[0])


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the worker's options (default: the command line's); ``--connection`` is an inherited file descriptor."""
    parser = argparse.ArgumentParser(prog="musicflamingo-native", allow_abbrev=False)
    parser.add_argument("--connection", type=int)
    parser.add_argument("--model")
    parser.add_argument("--mmproj")
    parser.add_argument("--lora")
    parser.add_argument("--context", type=int)
    parser.add_argument("--slots", type=int)
    parser.add_argument("--gpu-layers", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("-fa", dest="flash_attention", choices=("on", "off"))
    parser.add_argument("--probe", action="store_true", help="only load the libraries")
    return parser.parse_args(arguments)


def main() -> None:
    """Run the worker."""
    options = options_of()
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
