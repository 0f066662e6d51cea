"""A MusicGen checkpoint in a worker process, which is started again after it died."""

from __future__ import annotations

import itertools
import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from musicflamingo_cli.config import GenerationSettings, Settings
from musicflamingo_cli.engines.resident_process import Died
from musicflamingo_cli.engines.transformers.engine import LACK_OF_MEMORY, environment
from musicflamingo_cli.engines.worker_process import WorkerProcess
from musicflamingo_cli.errors import ModelError, ToolMissingError
from musicflamingo_cli.listening.messages import BatchRequest, ClipOrder, Made, Step
from musicflamingo_cli.llamacpp import binaries
from musicflamingo_cli.models.generators import Generator

logger = logging.getLogger(__name__)

WORKER: tuple[str, ...] = (sys.executable, "-P", "-m", "musicflamingo_cli.listening.worker")
_NO_DEVICE = re.compile(r"Torch not compiled with CUDA|Invalid device string|Expected one of cpu, cuda|No CUDA GPUs")


class MusicGenerator:
    """Makes clips with one checkpoint. Close it when all are made: a GPU holds one model."""

    def __init__(self, checkpoint: Generator, settings: Settings, generation: GenerationSettings) -> None:
        """Take what was decided; nothing is started yet. ``settings``: whose device, threads and timeout count."""
        self._checkpoint = checkpoint
        self._settings = settings
        # Padding counts in MusicGen Melody, so that a clip would depend on the longest caption of its batch.
        self._generation = replace(generation, at_once=1) if checkpoint.takes_melody else generation
        self._process: WorkerProcess | None = None

    def make(self, orders: Sequence[ClipOrder], on_step: Callable[[Step], None]) -> Iterator[Made]:
        """Yield a result for each order, as it is made. ``on_step`` gets the progress of the clips in progress.

        Where the worker dies, the clips that it was making are made one at a time, so that the one that kills it is
        known. Raises ModelError or ToolMissingError where it cannot start.
        """
        at_once = self._generation.at_once
        for _, group in itertools.groupby(orders, key=lambda order: order.start_samples):
            waiting = list(group)
            while waiting:
                batch = waiting[:at_once]
                left = {order.number for order in batch}
                try:
                    for made in self._ask(batch, on_step):
                        left.discard(made.number)
                        yield made
                except (Died, TimeoutError) as error:
                    why = self._ended(error)
                    if len(batch) > 1:
                        at_once = len(batch) // 2
                        logger.warning("the worker that makes music %s; making %d clips at a time", why, at_once)
                    else:
                        left.clear()
                        yield Made(0, batch[0].number, error=f"the worker that makes music {why}")
                waiting = [order for order in batch if order.number in left] + waiting[len(batch) :]

    def close(self) -> None:
        """End the worker, from any thread."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def _ask(self, batch: Sequence[ClipOrder], on_step: Callable[[Step], None]) -> Iterator[Made]:
        process = self._running()
        process.send(BatchRequest(batch, self._generation))
        for _ in batch:
            while isinstance(message := process.next_message(0), Step):
                on_step(message)
            assert isinstance(message, Made)
            yield message

    def _running(self) -> WorkerProcess:
        """Return the worker; start it where there is none. Raises ModelError or ToolMissingError."""
        if self._process is not None:
            return self._process
        command = [*WORKER, "--folder", str(self._checkpoint.folder)]
        if self._settings.device:
            command += ["--device", self._settings.device]
        if self._settings.threads:
            command += ["--threads", str(self._settings.threads)]
        process = WorkerProcess(
            command, environment(self._settings.gpus), context=0, slots=1, timeout=self._settings.timeout
        )
        self._process = process
        try:
            process.wait_until_ready()
        except Died as death:
            log = process.log()
            self.close()
            raise self._cannot_start(death, log) from death
        return process

    def _cannot_start(self, death: Died, log: str) -> ModelError | ToolMissingError:
        name = self._checkpoint.name
        if re.search(LACK_OF_MEMORY, log):
            return ModelError(f"not enough memory for {name}", "use a smaller one: --model facebook/musicgen-small")
        if _NO_DEVICE.search(log):
            return ToolMissingError(
                "torch does not have this device", "see: musicflamingo doctor; or leave --device out"
            )
        return ModelError(
            f"{name} cannot be loaded: {death}\n{binaries.tail(log)}", f"check it: musicflamingo models check {name}"
        )

    def _ended(self, error: Died | TimeoutError) -> str:
        """End what is left of the worker, and return what happened to it."""
        assert self._process is not None
        log = self._process.log()
        self.close()
        if isinstance(error, TimeoutError):
            return f"sent nothing for {self._settings.timeout:g} s"
        if re.search(LACK_OF_MEMORY, log):
            return "ran out of memory"
        return f"died ({error})"
