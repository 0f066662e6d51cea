"""Engine `server`: one resident llama-server. The model is loaded once, a clip is heard once for all its prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.resident import ResidentEngine
from musicflamingo_cli.engines.resident_process import Died
from musicflamingo_cli.engines.server.process import Patience, Program, ServerProcess
from musicflamingo_cli.engines.slots import Slot
from musicflamingo_cli.errors import EngineError
from musicflamingo_cli.llamacpp import binaries as llama_cpp
from musicflamingo_cli.models.resolve import ModelPair
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling


def llama_server(settings: Settings) -> Program:
    """The llama-server that is installed. Raises ToolMissingError."""
    binary = llama_cpp.find(llama_cpp.SERVER, settings.llama_dir)
    return Program("server", llama_cpp.version(binary), (str(binary),))


class ServerEngine(ResidentEngine[ServerProcess]):
    """``warn`` also gets a sentence when the server did not share the heard audio."""

    def __init__(
        self, program: Program, settings: Settings, model: ModelPair, warn: Callable[[str], None], at_once: int = 1
    ) -> None:
        super().__init__(program.command, settings, model, warn, at_once)
        self.name = program.name
        self.version = program.version
        self._program = program
        self._told_unshared = False

    def _new_process(self, context: int, slots: int) -> ServerProcess:
        return ServerProcess(self._program, self._settings, self._model, context, slots)

    def _ask_all(
        self, slot: Slot[ServerProcess], clip: Clip, prompts: Sequence[Prompt], sampling: Sampling
    ) -> Iterator[Answer | Failure]:
        """The first to be answered hears the clip, the others find it in the slot's memory."""
        shared = answered = 0
        patience = Patience(self._settings.timeout)
        pool = ThreadPoolExecutor(len(prompts), thread_name_prefix="prompt")
        try:
            slot.process.put(clip, slot.number)
            waiting = {
                pool.submit(slot.process.ask, prompt, sampling, slot.number, patience): prompt for prompt in prompts
            }
            for done in as_completed(waiting):
                try:
                    reply, seconds = done.result()
                except EngineError as error:
                    yield Failure(waiting[done].preset, error.kind, str(error), error.hint)
                    continue
                answered += 1
                shared += reply["timings"]["cache_n"] >= clip.audio_tokens
                yield _answer(reply, clip, waiting[done], sampling, seconds)
            self._check_shared(shared, answered)
        except BaseException as error:
            is_news = self._slots.end(slot.process)  # ends the other requests, too, so that the pool's threads can
            if isinstance(error, Died):
                error.is_news = is_news  # and not yet told by another clip in work, which sees the same death
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _check_shared(self, shared: int, asked: int) -> None:
        if shared < asked - 1 and not self._told_unshared:
            self._told_unshared = True
            self._warn(f"{self.name} heard the audio anew for {asked - shared} of {asked} prompts; this run is slow")


def _answer(reply: dict[str, Any], clip: Clip, prompt: Prompt, sampling: Sampling, seconds: float) -> Answer:
    choice, timings = reply["choices"][0], reply["timings"]
    prompt_tokens = int(timings["cache_n"]) + int(timings["prompt_n"])
    return Answer(
        prompt=prompt,
        text=choice["message"]["content"] or "",
        hit_limit=choice["finish_reason"] == "length",
        # The server does not count audio apart: a prompt shorter than the audio alone was not all heard.
        audio_tokens=min(prompt_tokens, clip.audio_tokens),
        seconds=seconds,
        sampling=sampling,
    )
