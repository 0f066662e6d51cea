"""The worker process of `listen`: makes clips in batches, of fewer clips where memory runs out.

It is a process of its own so that a lack of memory or a crash of a driver costs a clip, and so that it can be stopped
at any time. It reads each ``BatchRequest`` from a connection (see engines/worker_process.py), and sends ``Step`` and,
for each clip, ``Made``.
"""

from __future__ import annotations

import argparse
import functools
import re
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import soundfile

from musicflamingo_cli.engines.messages import Notice, Ready
from musicflamingo_cli.engines.transformers.answers import is_lack_of_memory, release_memory
from musicflamingo_cli.listening.messages import BatchRequest, ClipOrder, Made, Step
from musicflamingo_cli.listening.model import Model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NO_MEMORY = "there is not enough memory for this clip"
_STEP_SECONDS = 0.5  # between two messages about progress


class Worker:
    """Receives requests and makes their clips. ``limit``: of clips at once; it falls when memory runs out."""

    def __init__(self, model: Model, connection: Connection) -> None:
        self._model = model
        self._connection = connection
        self._limit = 1 << 30
        self._last_step = 0.0

    def run(self) -> None:
        """Work until the other side closes the connection."""
        while True:
            try:
                request: BatchRequest = self._connection.recv()
            except (EOFError, OSError):
                return
            self._make_all(request)

    def _make_all(self, request: BatchRequest) -> None:
        waiting = list(request.orders)
        while waiting:
            some = waiting[: self._limit]
            try:
                clips = self._model.make(some, request.settings, functools.partial(self._step, len(some)))
            except Exception as error:
                if re.search("(CUDA|HIP) error", str(error)):
                    raise  # the device is unusable from then on: a new process is needed
                clips = []
                if is_lack_of_memory(error):
                    release_memory(self._model.device)
                if len(some) > 1:
                    self._make_fewer(len(some), error)
                    continue
                self._connection.send(Made(0, some[0].number, error=_reason(error)))
            for order, clip in zip(some, clips, strict=False):  # none after an error
                self._connection.send(self._written(order, clip))
            waiting = waiting[len(some) :]

    def _make_fewer(self, clips: int, error: Exception) -> None:
        """Halve the batches where memory ran out; after another error make one at a time, to find the clip."""
        if is_lack_of_memory(error):
            self._limit = clips // 2
            self._connection.send(
                Notice(f"not enough memory for {clips} clips at once; making {self._limit} at a time")
            )
        else:
            self._limit = 1

    def _step(self, clips: int, share: float) -> None:
        now = time.monotonic()
        if now - self._last_step >= _STEP_SECONDS:
            self._last_step = now
            self._connection.send(Step(0, share, clips))

    def _written(self, order: ClipOrder, clip: NDArray[np.float32]) -> Made:
        caption = self._model.caption(order.text) if order.text is not None else None
        try:
            soundfile.write(order.target, clip, self._model.rate, format="WAV", subtype="PCM_16")
        except (OSError, soundfile.SoundFileError) as error:
            return Made(0, order.number, error=f"cannot write the clip: {error}")
        return Made(
            slot=0,
            number=order.number,
            tokens=caption.tokens if caption else 0,
            read=caption.read if caption else 0,
            samples=len(clip),
            rate=self._model.rate,
            channels=self._model.channels,
        )


def _reason(error: Exception) -> str:
    return NO_MEMORY if is_lack_of_memory(error) else f"{type(error).__name__}: {error}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the worker; ``--connection`` is the number of an inherited file descriptor."""
    parser = argparse.ArgumentParser(prog="musicflamingo-listen", allow_abbrev=False)
    parser.add_argument("--connection", type=int)
    parser.add_argument("--folder")
    parser.add_argument("--device")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args(arguments)
    try:
        connection = Connection(options.connection)
        model = Model(options)
    except Exception as error:  # whatever torch or transformers raise: one line on stderr
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(1)
    connection.send(Ready(model.details))
    Worker(model, connection).run()


if __name__ == "__main__":
    main()
