"""Engine `mtmd-cli`: one llama-mtmd-cli process for each prompt. Slow for many prompts, but keeps no state."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.context import tokens_needed
from musicflamingo_cli.engines.observer import UNOBSERVED, Observer, Stage
from musicflamingo_cli.errors import EngineError, ModelError, StoppedError, TimedOutError, ToolMissingError
from musicflamingo_cli.llamacpp import binaries
from musicflamingo_cli.models.adapter_gguf import gguf_of
from musicflamingo_cli.models.model import ModelPair
from musicflamingo_cli.paths import user_log_dir
from musicflamingo_cli.system import processes
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling

_KEPT_LOGS = 50
_TRIES = 4  # for output whose end was lost

# With -lv 4 --perf, b11434 logs each audio batch, and at the end how many tokens it decoded.
_AUDIO_BATCH = re.compile(r"decoding audio batch \d+/\d+, n_tokens_batch = (\d+)")
_PROMPT_TOKENS = re.compile(r"prompt eval time = .*?/\s*(\d+) tokens")
_RUNS = re.compile(r"\beval time = .*?/\s*(\d+) runs")


class MtmdCliEngine:
    """Runs llama-mtmd-cli once for each prompt."""

    name = "mtmd-cli"
    slots = 1

    def __init__(self, settings: Settings, model: ModelPair) -> None:
        """Find the binary. Raises ToolMissingError where there is none."""
        self._settings = settings
        self._model = model
        self._binary = binaries.find(binaries.MTMD_CLI, settings.llama_dir)
        self._windows = binaries.windows(self._binary)
        self.provenance = {"llama_cpp": binaries.version(self._binary), "windows": str(self._windows)}
        self._lora = gguf_of(model.adapter, settings.llama_dir) if model.adapter else None
        self._children = processes.Children()

    def expected_audio_tokens(self, clip: Clip) -> int:
        """The audio tokens that a clip makes here: see ``Engine.expected_audio_tokens``."""
        return clip.audio_tokens(self._windows)

    def describe(
        self,
        clip: Clip,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        observer: Observer = UNOBSERVED,
    ) -> Iterator[Answer | Failure]:
        """Yield one result for each prompt, in their order; see ``Engine.describe``. It cannot hold conversations."""
        if clip.also or any(prompt.history for prompt in prompts):
            raise EngineError("llama-mtmd-cli cannot hold a conversation", "use --engine server, native or embedded")
        if not clip.all:
            raise EngineError("llama-mtmd-cli answers nothing without audio", "use --engine server, native or embedded")
        for prompt in prompts:
            observer.reached(Stage.HEARING)  # each time again
            try:
                yield self._ask(clip, prompt, sampling)
            except EngineError as error:
                yield Failure.for_preset(prompt.preset, error)

    def close(self) -> None:
        """Stop all work, from any thread."""
        self._children.stop()

    def _ask(self, clip: Clip, prompt: Prompt, sampling: Sampling) -> Answer:
        """Return one complete answer; retry where the binary lost the end of its output (see _is_complete)."""
        command = self._command(clip, prompt, sampling)
        for _ in range(_TRIES):
            done = self._run(command, clip)
            if done.returncode != 0:
                raise _failed(done, command)
            if _is_complete(done):
                return _answer(done, self.expected_audio_tokens(clip), prompt, sampling)
        raise EngineError(
            f"llama-mtmd-cli lost the end of its output {_TRIES} times (log: {_keep_log(done.log, command)})",
            "build one without that fault: musicflamingo build",
        )

    def _run(self, command: list[str], clip: Clip) -> processes.Finished:
        limit = self._settings.timeout
        with tempfile.NamedTemporaryFile(prefix="log-", dir=clip.path.parent) as log:
            try:
                return self._children.run(
                    command, Path(log.name), limit, env=binaries.child_environment(self._settings.gpus)
                )
            except processes.ChildTimeout as error:
                raise TimedOutError(
                    f"no answer within {limit:g} s (log: {_keep_log(error.log, command)})",
                    "allow more with --timeout, or use less audio: --max-seconds 300",
                ) from error
            except processes.Stopped as stop:
                raise StoppedError(
                    "the run was stopped before the answer arrived", "run the same command again"
                ) from stop
            except OSError as error:
                raise ToolMissingError(
                    f"{self._binary} cannot be started: {error.strerror}", "build it with: musicflamingo build"
                ) from error

    def _command(self, clip: Clip, prompt: Prompt, sampling: Sampling) -> list[str]:
        settings = self._settings
        command = [str(self._binary), "-m", str(self._model.language_model), "--mmproj", str(self._model.projector)]
        if self._lora:
            command += ["--lora", binaries.list_item(self._lora)]
        command += ["--audio", binaries.list_item(clip.path), "-p", prompt.text, "--no-escape", "--jinja"]
        command += ["-n", str(prompt.max_tokens), "-c", str(self._context_size(clip, prompt))]
        command += ["--temp", str(sampling.temperature), "--top-p", str(sampling.top_p)]
        command += ["--repeat-penalty", str(sampling.repeat_penalty), "-s", str(sampling.seed)]
        command += ["--offline", "--no-warmup", "-lv", "4", "--perf", "--log-colors", "off"]
        if prompt.system:
            command += ["-sys", prompt.system]
        if prompt.schema:
            command += ["--json-schema", prompt.schema]
        if settings.gpu_layers is not None:
            command += ["-ngl", str(settings.gpu_layers)]
        if settings.threads is not None:
            command += ["-t", str(settings.threads)]
        command += binaries.flash_attention(settings.flash_attention)
        return command

    def _context_size(self, clip: Clip, prompt: Prompt) -> int:
        """Return the context in tokens. Raises TooLongError.

        Never 0, with which the binary would take the model's whole context and the memory for it.
        """
        needed = tokens_needed(self.expected_audio_tokens(clip), clip, prompt, self._settings, self._model)
        return self._settings.ctx_size or min(self._model.context_length, -(-needed // 256) * 256)


def _answer(done: processes.Finished, expected_audio_tokens: int, prompt: Prompt, sampling: Sampling) -> Answer:
    return Answer(
        prompt=prompt,
        text=done.stdout.decode("utf-8", errors="replace"),
        hit_limit=_hit_limit(done, prompt),
        audio_tokens=_audio_tokens(done.log, expected_audio_tokens),
        seconds=done.seconds,
        sampling=sampling,
    )


def _is_complete(done: processes.Finished) -> bool:
    """Return whether all of the output arrived.

    Answer and log go through one queue that a separate thread writes out, and main() does not wait for it: on a
    loaded machine the end of the answer is lost with exit code 0 (seen on b11434; upstream issue 22142; the build
    script patches it). The timings come last in that queue, so where they are, everything is.
    """
    return _RUNS.search(done.log) is not None


def _hit_limit(done: processes.Finished, prompt: Prompt) -> bool:
    """Return whether the token limit ended the answer; the binary does not say so, but leaves two traces.

    Its log counts N - 1 runs for an answer that used up its N tokens, and no fewer for one whose last token was
    the end itself; then stdout ends with one more newline (mtmd-cli.cpp, generate_response).
    """
    runs = _RUNS.search(done.log)
    assert runs
    return int(runs[1]) + 1 >= prompt.max_tokens and not done.stdout.endswith(b"\n\n\n")


def _audio_tokens(log: str, expected: int) -> int | None:
    """Return how many audio tokens were decoded, by the log; None where the log does not show it.

    A release that does not log batches still logs the length of the whole prompt: one shorter than the audio means
    that the audio did not reach the model (0).
    """
    if batches := _AUDIO_BATCH.findall(log):
        return sum(map(int, batches))
    prompt_tokens = _PROMPT_TOKENS.search(log)
    return 0 if prompt_tokens and int(prompt_tokens[1]) < expected else None


def _failed(done: processes.Finished, command: list[str]) -> EngineError | ModelError:
    """Return the error for a run that failed, and keep its log."""
    kept = _keep_log(done.log, command)
    if done.signal_name == "SIGILL":
        return EngineError(
            "llama-mtmd-cli used an instruction that this processor lacks",
            "build it again for this machine: musicflamingo build --force",
        )
    how = f"was killed by {done.signal_name}" if done.signal_name else f"ended with exit code {done.returncode}"
    if known := binaries.diagnose(done.log):
        return known.error(f"llama-mtmd-cli {how}; log: {kept}")
    tail = binaries.tail(done.log) or "(its log is empty)"
    return EngineError(
        f"llama-mtmd-cli {how} (log: {kept}):\n{tail}", "see its log, or run: musicflamingo models check"
    )


def _keep_log(log: str, command: list[str]) -> Path | str:
    """Save a failed run's log with its command in the user's log folder, which keeps the newest 50."""
    folder = user_log_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"mtmd-cli-{datetime.now():%Y%m%d-%H%M%S-%f}.log"
        path.write_text(f"{command}\n{log}", encoding="utf-8")
        for old in sorted(folder.glob("mtmd-cli-*.log"))[:-_KEPT_LOGS]:
            old.unlink(missing_ok=True)
        return path
    except OSError as error:
        return f"not kept, {error.strerror}"
