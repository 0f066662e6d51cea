"""What engines with a resident process share: the model is loaded once, and the process is restarted when it dies."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, Protocol

from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.context import tokens_needed
from musicflamingo_cli.engines.observer import UNOBSERVED, Observer, Stage
from musicflamingo_cli.engines.resident_process import Died
from musicflamingo_cli.engines.slots import P, Slot, Slots
from musicflamingo_cli.errors import EngineError, ModelError, TooLongError
from musicflamingo_cli.llamacpp import binaries
from musicflamingo_cli.llamacpp.binaries import Diagnosis, is_lack_of_memory
from musicflamingo_cli.models.model import Model
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling, Windows

logger = logging.getLogger(__name__)


class Budget(Protocol):
    """How many slots there is memory for."""

    slots: int

    def size_for(self, context: int) -> tuple[int, int]:
        """Return the size of a slot for a clip that needs ``context`` tokens, in tokens, and how many fit."""
        ...

    def shrink(self) -> None:
        """Memory ran out: halve the number of slots."""
        ...


class ResidentEngine(ABC, Generic[P]):
    """An engine whose process works on one clip in each slot. ``windows``: how it treats those of 30 s."""

    name: str
    provenance: Mapping[str, str]
    windows: Windows

    def __init__(self, settings: Settings, model: Model, budget: Budget) -> None:
        """Take what was decided; nothing is started yet."""
        self._settings = settings
        self._model = model
        self._budget: Budget = budget
        self._slots = Slots(self._start)

    @property
    def slots(self) -> int:
        """How many clips it works on at once."""
        return self._budget.slots

    @abstractmethod
    def _new_process(self, context: int, slots: int) -> P:
        """Start a process without waiting for it. Raises ToolMissingError where it cannot be started."""

    @abstractmethod
    def _ask_all(
        self,
        slot: Slot[P],
        clip: Clip,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        observer: Observer,
    ) -> Iterator[Answer | Failure]:
        """Yield one result for each prompt. Raises Died when the process ends first."""

    def expected_audio_tokens(self, clip: Clip) -> int:
        """The audio tokens that a clip makes here: see ``Engine.expected_audio_tokens``."""
        return clip.audio_tokens(self.windows)

    def _tokens_needed(self, clip: Clip, prompt: Prompt) -> int:
        """Return the tokens for the audio, one prompt and its answer. Raises TooLongError."""
        return tokens_needed(self.expected_audio_tokens(clip), clip, prompt, self._settings, self._model)

    def _context_for(self, clip: Clip, prompts: Sequence[Prompt]) -> int:
        """Return the tokens that a slot must hold. Raises TooLongError."""
        return max(self._tokens_needed(clip, prompt) for prompt in prompts)

    def _fitting(self, clip: Clip, prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[Failure]]:
        """Return the prompts that fit into the context, and why the others do not. Raises TooLongError: none does."""
        fitting, failures = [], []
        for prompt in prompts:
            try:
                self._tokens_needed(clip, prompt)
                fitting.append(prompt)
            except TooLongError as error:
                failures.append(Failure.for_preset(prompt.preset, error))
                last = error
        if failures and not fitting:
            raise last
        return fitting, failures

    def _diagnose(self, log: str) -> Diagnosis | None:
        """Return what the log of a process that died means, where it holds a known fault."""
        return binaries.diagnose(log)

    def describe(
        self,
        clip: Clip,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        observer: Observer = UNOBSERVED,
    ) -> Iterator[Answer | Failure]:
        """Ask all prompts at once, so that the audio is processed once for all of them; see ``Engine.describe``.

        When the process dies, unanswered prompts are retried once, while no other clip is in progress: so the clip
        that kills the process is identified, and clips that were in progress beside it do not fail. Raises
        TooLongError where no prompt fits into the context.
        """
        pending, too_long = self._fitting(clip, prompts)
        yield from too_long
        context = self._context_for(clip, pending)
        for is_last in (False, True):
            try:
                with self._slots.acquire(context, clip, exclusive=is_last) as slot:
                    observer.reached(Stage.HEARING)
                    for result in self._ask_all(slot, clip, pending, sampling, observer):
                        answered = result.preset if isinstance(result, Failure) else result.prompt.preset
                        pending = [prompt for prompt in pending if prompt.preset != answered]
                        yield result
                return
            except Died as death:
                self._slots.raise_if_stopped()
                if is_last:
                    raise self._fatal(death, slot.process) from death
                if death.is_first_report:
                    tail = binaries.tail(slot.process.log())
                    logger.warning("%s died and is restarted; the end of its log:\n%s", self.name, tail)

    def close(self) -> None:
        """Stop all work, from any thread; a clip in progress raises StoppedError."""
        self._slots.stop()

    def _start(self, context: int, register: Callable[[P], None]) -> P:
        """Start a process (see ``slots.Start``); where memory runs out, start it again with half as many slots."""
        while True:
            size, slots = self._budget.size_for(context)
            process = self._new_process(size, slots)
            try:
                register(process)
                process.wait_until_ready()
                return process
            except Died as death:
                self._slots.raise_if_stopped()
                if slots == 1 or not is_lack_of_memory(self._diagnose(process.log())):
                    raise self._fatal(death, process) from death
                process.close()
                self._budget.shrink()
                logger.warning("not enough memory for %d tracks at once; trying %d", slots, self._budget.slots)

    def _fatal(self, death: Died, process: P) -> EngineError | ModelError:
        """Return the error for a process that is not restarted, with what its log says."""
        self._slots.raise_if_stopped()
        log = process.log()
        process.close()
        if known := self._diagnose(log):
            return known.error(f"{self.name}: {death}")
        return EngineError(
            f"{self.name} died: {death}\n{binaries.tail(log)}", "try --engine mtmd-cli, or: musicflamingo build"
        )
