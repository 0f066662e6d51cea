"""What engines with a resident process share: the model is loaded once, and is started again when it died."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Generic

from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.context import Room, tokens_needed
from musicflamingo_cli.engines.resident_process import Died
from musicflamingo_cli.engines.slots import P, Slot, Slots
from musicflamingo_cli.errors import EngineError, ModelError
from musicflamingo_cli.llamacpp import binaries as llama_cpp
from musicflamingo_cli.models.resolve import ModelPair
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling


class ResidentEngine(ABC, Generic[P]):
    """Works on one clip a slot. ``at_once``: no more clips than that will come together.

    ``warn`` gets a sentence when the process had to be restarted.
    """

    name: str
    version: str

    def __init__(
        self, command: Sequence[str], settings: Settings, model: ModelPair, warn: Callable[[str], None], at_once: int
    ) -> None:
        """``command`` is the program that will run, or one that sees the same devices."""
        self._settings = settings
        self._model = model
        self._warn = warn
        self._room = Room(command, settings, model, at_once)
        self._slots = Slots(self._start)

    @property
    def lanes(self) -> int:
        return self._room.lanes

    @abstractmethod
    def _new_process(self, context: int, slots: int) -> P:
        """Starts it, and does not wait. Raises ToolMissingError where it cannot be started."""

    @abstractmethod
    def _ask_all(
        self, slot: Slot[P], clip: Clip, prompts: Sequence[Prompt], sampling: Sampling
    ) -> Iterator[Answer | Failure]:
        """One result a prompt. Raises Died when the process ends first."""

    def _context_for(self, clip: Clip, prompts: Sequence[Prompt]) -> int:
        """The tokens that a slot must hold. Raises TooLongError."""
        return max(tokens_needed(clip, prompt, self._settings, self._model) for prompt in prompts)

    def describe(self, clip: Clip, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Answer | Failure]:
        """All prompts at once, so that the clip is heard once for all of them.

        When the process dies, what is unanswered is asked once more, with no other clip beside it: so the clip that
        kills it is known, and those that were beside it the first time are not to blame.
        """
        context = self._context_for(clip, prompts)
        pending = list(prompts)
        for is_last in (False, True):
            try:
                with self._slots.lend(context, clip, alone=is_last) as slot:
                    for result in self._ask_all(slot, clip, pending, sampling):
                        answered = result.preset if isinstance(result, Failure) else result.prompt.preset
                        pending = [prompt for prompt in pending if prompt.preset != answered]
                        yield result
                return
            except Died as death:
                self._slots.raise_if_stopped()
                if is_last:
                    raise self._fatal(death, slot.process) from death
                if death.is_news:
                    words = llama_cpp.tail(slot.process.log())
                    self._warn(f"{self.name} died and is started again; its last words:\n{words}")

    def close(self) -> None:
        """Ends what is being asked, from any thread; a clip in work raises StoppedError."""
        self._slots.stop()

    def _start(self, context: int, note: Callable[[P], None]) -> P:
        while True:
            size, slots = self._room.for_clip(context)
            process = self._new_process(size, slots)
            try:
                note(process)
                process.wait_until_ready()
                return process
            except Died as death:
                self._slots.raise_if_stopped()
                if slots == 1 or not llama_cpp.lacks_memory(process.log()):
                    raise self._fatal(death, process) from death
                process.close()
                self._room.halve()
                self._warn(f"not enough memory for {slots} tracks at once; from now on {self._room.lanes}")

    def _fatal(self, death: Died, process: P) -> EngineError | ModelError:
        self._slots.raise_if_stopped()
        log = process.log()
        process.close()
        if known := llama_cpp.diagnose(log):
            return known.error(f"{self.name}: {death}")
        words = llama_cpp.tail(log)
        return EngineError(f"{self.name} died: {death}\n{words}", "try --engine mtmd-cli, or: musicflamingo build")
