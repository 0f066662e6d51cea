"""Engine `server`: one resident llama-server. The model is loaded once, a clip's audio is processed once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.context import SlotBudget
from musicflamingo_cli.engines.observer import Observer, pieces_for
from musicflamingo_cli.engines.resident import ResidentEngine
from musicflamingo_cli.engines.resident_process import Died
from musicflamingo_cli.engines.server.process import IdleTimeout, Program, ServerProcess
from musicflamingo_cli.engines.slots import Slot
from musicflamingo_cli.errors import AnswerCancelledError, EngineError
from musicflamingo_cli.llamacpp import binaries
from musicflamingo_cli.models.adapter_gguf import gguf_of
from musicflamingo_cli.models.model import ModelPair
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling

logger = logging.getLogger(__name__)


def llama_server(settings: Settings) -> Program:
    """Return the installed llama-server. Raises ToolMissingError."""
    binary = binaries.find(binaries.SERVER, settings.llama_dir)
    return Program(
        name="server",
        version=binaries.version(binary),
        windows=binaries.windows(binary),
        command=(str(binary),),
    )


class ServerEngine(ResidentEngine[ServerProcess]):
    """Asks a resident server all prompts of a clip at once, in one of its slots."""

    def __init__(self, program: Program, settings: Settings, model: ModelPair, at_once: int = 1) -> None:
        """Take the server's program; nothing is started yet. ``at_once``: see ResidentEngine."""
        super().__init__(settings, model, SlotBudget(program.command, settings, model, at_once))
        self.name = program.name
        self.windows = program.windows
        self.provenance = {"llama_cpp": program.version, "windows": str(program.windows)}
        if model.adapter:
            gguf_of(model.adapter, settings.llama_dir)  # converted now, where it has to be: not while a track waits
        self._program = program
        self._pair = model
        self._warned_unshared = False

    def _new_process(self, context: int, slots: int) -> ServerProcess:
        return ServerProcess(self._program, self._settings, self._pair, context, slots)

    def _ask_all(
        self,
        slot: Slot[ServerProcess],
        clip: Clip,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        observer: Observer,
    ) -> Iterator[Answer | Failure]:
        if observer.wants_text and len(prompts) == 1:
            yield self._ask_alone(slot, clip, prompts[0], sampling, observer)
        else:
            yield from self._ask_together(slot, clip, prompts, sampling, observer)

    def _ask_alone(
        self, slot: Slot[ServerProcess], clip: Clip, prompt: Prompt, sampling: Sampling, observer: Observer
    ) -> Answer | Failure:
        """Return the answer to one prompt, after passing on its pieces, in the caller's thread."""
        timeout = IdleTimeout(self._settings.timeout)
        try:
            slot.process.put(clip, slot.number)
            on_piece = pieces_for(observer, prompt.preset, is_first=True)
            reply, seconds = slot.process.ask(prompt, sampling, slot.number, timeout, len(clip.all), on_piece)
        except AnswerCancelledError:
            raise  # the connection is closed, at which the server ends the answer
        except EngineError as error:
            return Failure.for_preset(prompt.preset, error)
        except BaseException as error:
            self._end(slot.process, error)
            raise
        return _answer(reply, self.expected_audio_tokens(clip), prompt, sampling, seconds)

    def _ask_together(
        self,
        slot: Slot[ServerProcess],
        clip: Clip,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        observer: Observer,
    ) -> Iterator[Answer | Failure]:
        """Yield results as they come: the server processes the audio for one prompt, the others share its memory.

        The first answer is streamed, since its first token shows that the audio is processed.
        """
        shared = answered = 0
        expected = self.expected_audio_tokens(clip)
        timeout = IdleTimeout(self._settings.timeout)
        pool = ThreadPoolExecutor(len(prompts), thread_name_prefix="prompt")
        try:
            slot.process.put(clip, slot.number)
            waiting = {}
            for number, prompt in enumerate(prompts):
                on_piece = pieces_for(observer, prompt.preset, is_first=number == 0)
                asked = pool.submit(slot.process.ask, prompt, sampling, slot.number, timeout, len(clip.all), on_piece)
                waiting[asked] = prompt
            for done in as_completed(waiting):
                try:
                    reply, seconds = done.result()
                except AnswerCancelledError:
                    raise
                except EngineError as error:
                    yield Failure.for_preset(waiting[done].preset, error)
                    continue
                answered += 1
                shared += reply["timings"]["cache_n"] >= expected
                yield _answer(reply, expected, waiting[done], sampling, seconds)
            self._check_shared(shared, answered)
        except AnswerCancelledError:
            raise  # as above; the other prompts' connections are closed in the same way
        except BaseException as error:
            self._end(slot.process, error)  # and with it the other requests, so that the pool's threads can end
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _end(self, process: ServerProcess, error: BaseException) -> None:
        is_first_report = self._slots.end(process)
        if isinstance(error, Died):  # another clip in progress may have noticed the same death
            error.is_first_report = is_first_report

    def _check_shared(self, shared: int, answered: int) -> None:
        """Warn once where the server did not share the processed audio between prompts."""
        if shared < answered - 1 and not self._warned_unshared:
            self._warned_unshared = True
            logger.warning(
                "this run is slow because %s processed the same audio again for %d of %d prompts",
                self.name,
                answered - shared,
                answered,
            )


def _answer(
    reply: dict[str, Any], expected_audio_tokens: int, prompt: Prompt, sampling: Sampling, seconds: float
) -> Answer:
    choice, timings = reply["choices"][0], reply["timings"]
    prompt_tokens = int(timings["cache_n"]) + int(timings["prompt_n"])
    return Answer(
        prompt=prompt,
        text=choice["message"]["content"] or "",
        hit_limit=choice["finish_reason"] == "length",
        # The server does not count audio separately: a prompt shorter than the audio alone did not contain all of it.
        audio_tokens=min(prompt_tokens, expected_audio_tokens),
        seconds=seconds,
        sampling=sampling,
        answer_tokens=timings.get("predicted_n"),
    )
