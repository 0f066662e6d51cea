"""What engines `native` and `transformers` share: a worker process of ours answers all prompts of a clip together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence

from musicflamingo_cli.engines.observer import Observer
from musicflamingo_cli.engines.resident import ResidentEngine
from musicflamingo_cli.engines.resident_process import Died
from musicflamingo_cli.engines.slots import Slot
from musicflamingo_cli.engines.worker_process import WorkerProcess
from musicflamingo_cli.errors import AnswerCancelledError, FailureKind
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling

logger = logging.getLogger(__name__)


class WorkerEngine(ResidentEngine[WorkerProcess]):
    """Sends a clip and its prompts to the worker. ``instead``: what to try where it fails, for hints."""

    instead: str

    def _start(self, context: int, register: Callable[[WorkerProcess], None]) -> WorkerProcess:
        """Start a worker, and take what it says of how it runs the model."""
        process = super()._start(context, register)
        self.provenance = {**self.provenance, **process.details}
        return process

    def _context_for(self, clip: Clip, prompts: Sequence[Prompt]) -> int:
        """Return the tokens for the audio once, and for all prompts and answers. Raises TooLongError."""
        audio = self.expected_audio_tokens(clip)
        needed = [self._tokens_needed(clip, prompt) for prompt in prompts]
        return sum(needed) - (len(needed) - 1) * audio

    def _ask_all(
        self,
        slot: Slot[WorkerProcess],
        clip: Clip,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        observer: Observer,
    ) -> Iterator[Answer | Failure]:
        pending = {prompt.preset: prompt for prompt in prompts}
        started = time.monotonic()
        try:
            for reply in slot.process.ask(slot.number, clip, prompts, sampling, observer):
                prompt = pending.pop(reply.preset)
                if reply.error:
                    yield Failure(
                        preset=prompt.preset,
                        kind=FailureKind.ENGINE,
                        reason=reply.error,
                        hint=f"see more with -v, or {self.instead}",
                    )
                    continue
                yield Answer(
                    prompt=prompt,
                    text=reply.text,
                    hit_limit=reply.hit_limit,
                    audio_tokens=reply.audio_tokens,
                    seconds=time.monotonic() - started,
                    sampling=sampling,
                    answer_tokens=reply.answer_tokens,
                )
        except TimeoutError:
            yield from self._time_out(slot.process, list(pending))
        except AnswerCancelledError:
            raise
        except BaseException as error:
            is_first_report = self._slots.end(slot.process)
            if isinstance(error, Died):
                error.is_first_report = is_first_report
            raise

    def _time_out(self, process: WorkerProcess, presets: Sequence[str]) -> Iterator[Failure]:
        """End the worker, which still works on the clip, and yield a failure for each preset without an answer."""
        reason = f"no answer within {self._settings.timeout:g} s"
        if self._slots.end(process):
            logger.warning("%s gave %s and is restarted; the other clips in progress are retried", self.name, reason)
        for preset in presets:
            yield Failure(
                preset=preset,
                kind=FailureKind.TIMEOUT,
                reason=reason,
                hint="allow more with --timeout, or use less audio: --max-seconds 300",
            )
