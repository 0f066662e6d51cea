"""Engine `server`: one resident llama-server. The model is loaded once, a clip is heard once for all its prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from musicflamingo_cli import llama_cpp
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.context import Room, tokens_needed
from musicflamingo_cli.engines.server_process import Program, ServerDied, ServerProcess
from musicflamingo_cli.engines.slots import Slot, Slots
from musicflamingo_cli.errors import EngineError, ModelError
from musicflamingo_cli.models import ModelPair
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling


def llama_server(settings: Settings) -> Program:
    """The llama-server that is installed. Raises ToolMissingError."""
    binary = llama_cpp.find(llama_cpp.SERVER, settings.llama_dir)
    return Program("server", llama_cpp.version(binary), (str(binary),))


class ServerEngine:
    """Works on one clip a slot. ``at_once``: no more clips than that will come together.

    ``warn`` gets a sentence when the server had to be restarted or did not share the heard audio.
    """

    def __init__(
        self, program: Program, settings: Settings, model: ModelPair, warn: Callable[[str], None], at_once: int = 1
    ) -> None:
        self.name = program.name
        self.version = program.version
        self._program = program
        self._settings = settings
        self._model = model
        self._warn = warn
        self._room = Room(program.command, settings, model, at_once)
        self._slots = Slots(self._start)
        self._told_unshared = False

    @property
    def lanes(self) -> int:
        return self._room.lanes

    def describe(self, clip: Clip, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Answer | Failure]:
        """All prompts at once: the first to be answered hears the clip, the others find it in the slot's memory.

        When the server dies, what is unanswered is asked once more, with no other clip beside it: so the clip that
        kills it is known, and those that were beside it the first time are not to blame.
        """
        context = max(tokens_needed(clip, prompt, self._settings, self._model) for prompt in prompts)
        pending = list(prompts)
        for is_last in (False, True):
            try:
                with self._slots.lend(context, clip, alone=is_last) as slot:
                    for result in self._ask_all(slot, clip, pending, sampling):
                        answered = result.preset if isinstance(result, Failure) else result.prompt.preset
                        pending = [prompt for prompt in pending if prompt.preset != answered]
                        yield result
                return
            except ServerDied as death:
                self._slots.raise_if_stopped()
                if is_last:
                    raise self._fatal(death, slot.server) from death
                if death.is_news:
                    words = llama_cpp.tail(slot.server.log())
                    self._warn(f"{self.name} died and is started again; its last words:\n{words}")

    def close(self) -> None:
        """Ends what is being asked, from any thread; a clip in work raises StoppedError."""
        self._slots.stop()

    def _start(self, context: int, note: Callable[[ServerProcess], None]) -> ServerProcess:
        while True:
            size, slots = self._room.for_clip(context)
            server = ServerProcess(self._program, self._settings, self._model, size, slots)
            try:
                note(server)
                server.wait_until_ready()
                return server
            except ServerDied as death:
                self._slots.raise_if_stopped()
                if slots == 1 or not llama_cpp.lacks_memory(server.log()):
                    raise self._fatal(death, server) from death
                server.close()
                self._room.halve()
                self._warn(f"not enough memory for {slots} tracks at once; from now on {self._room.lanes}")

    def _ask_all(
        self, slot: Slot, clip: Clip, prompts: Sequence[Prompt], sampling: Sampling
    ) -> Iterator[Answer | Failure]:
        shared = 0
        pool = ThreadPoolExecutor(len(prompts), thread_name_prefix="prompt")
        try:
            slot.server.put(clip, slot.number)
            waiting = {pool.submit(slot.server.ask, prompt, sampling, slot.number): prompt for prompt in prompts}
            for done in as_completed(waiting):
                try:
                    reply, seconds = done.result()
                except EngineError as error:
                    yield Failure(waiting[done].preset, error.kind, str(error), error.hint)
                    continue
                shared += reply["timings"]["cache_n"] >= clip.audio_tokens
                yield _answer(reply, clip, waiting[done], sampling, seconds)
            self._check_shared(shared, len(prompts))
        except BaseException as error:
            is_news = self._slots.end(slot.server)  # ends the other requests, too, so that the pool's threads can
            if isinstance(error, ServerDied):
                error.is_news = is_news  # and not yet told by another clip in work, which sees the same death
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _check_shared(self, shared: int, asked: int) -> None:
        if shared < asked - 1 and not self._told_unshared:
            self._told_unshared = True
            self._warn(f"{self.name} heard the audio anew for {asked - shared} of {asked} prompts; this run is slow")

    def _fatal(self, death: ServerDied, server: ServerProcess) -> EngineError | ModelError:
        self._slots.raise_if_stopped()
        log = server.log()
        server.close()
        if known := llama_cpp.diagnose(log):
            return known.error(f"{self.name}: {death}")
        words = llama_cpp.tail(log)
        return EngineError(f"{self.name} died: {death}\n{words}", "try --engine mtmd-cli, or: musicflamingo build")


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
