"""Engine `mtmd-cli`: one llama-mtmd-cli process a prompt. Slow for many, but with nothing that can go stale."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from musicflamingo_cli.config import Settings, user_log_dir
from musicflamingo_cli.engines.context import tokens_needed
from musicflamingo_cli.errors import EngineError, ModelError, StoppedError, TimedOutError, ToolMissingError
from musicflamingo_cli.llamacpp import binaries as llama_cpp
from musicflamingo_cli.models.resolve import ModelPair
from musicflamingo_cli.system import processes as process
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling

_KEPT_LOGS = 50
_TRIES = 4  # for output whose end was lost

# With -lv 4 --perf, b11434 logs each audio batch, and at the end how many tokens it decoded.
_AUDIO_BATCH = re.compile(r"decoding audio batch \d+/\d+, n_tokens_batch = (\d+)")
_PROMPT_TOKENS = re.compile(r"prompt eval time = .*?/\s*(\d+) tokens")
_RUNS = re.compile(r"\beval time = .*?/\s*(\d+) runs")


class MtmdCliEngine:
    """Raises ToolMissingError when llama-mtmd-cli is not there."""

    name = "mtmd-cli"
    lanes = 1

    def __init__(self, settings: Settings, model: ModelPair) -> None:
        self._settings = settings
        self._model = model
        self._binary = llama_cpp.find(llama_cpp.MTMD_CLI, settings.llama_dir)
        self.version = llama_cpp.version(self._binary)
        self._children = process.Children()

    def describe(self, clip: Clip, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Answer | Failure]:
        for prompt in prompts:
            try:
                yield self._ask(clip, prompt, sampling)
            except EngineError as error:
                yield Failure(prompt.preset, error.kind, str(error), error.hint)

    def close(self) -> None:
        """Ends what is being asked, from any thread."""
        self._children.stop()

    def _ask(self, clip: Clip, prompt: Prompt, sampling: Sampling) -> Answer:
        """One answer, whole. The binary can lose the end of its output when it exits (see _is_whole): ask again."""
        command = self._command(clip, prompt, sampling)
        for _ in range(_TRIES):
            done = self._run(command, clip)
            if done.returncode != 0:
                raise _failed(done, command)
            if _is_whole(done):
                return _answer(done, clip, prompt, sampling)
        raise EngineError(
            f"llama-mtmd-cli lost the end of its output {_TRIES} times (log: {_keep_log(done.log, command)})",
            "build one without that fault: musicflamingo build",
        )

    def _run(self, command: list[str], clip: Clip) -> process.Finished:
        limit = self._settings.timeout
        with tempfile.NamedTemporaryFile(prefix="log-", dir=clip.path.parent) as log:
            try:
                return self._children.run(command, Path(log.name), limit, env=llama_cpp.child_environment())
            except process.ChildTimeout as error:
                raise TimedOutError(
                    f"no answer within {limit:g} s (log: {_keep_log(error.log, command)})",
                    "allow more with --timeout, or hear less: --max-seconds 300",
                ) from error
            except process.Stopped as stop:
                raise StoppedError("stopped before it was answered", "run the same command again") from stop
            except OSError as error:
                raise ToolMissingError(
                    f"{self._binary} cannot be started: {error.strerror}", "build it with: musicflamingo build"
                ) from error

    def _command(self, clip: Clip, prompt: Prompt, sampling: Sampling) -> list[str]:
        settings = self._settings
        command = [str(self._binary), "-m", str(self._model.language_model), "--mmproj", str(self._model.projector)]
        command += ["--audio", str(clip.path), "-p", prompt.text, "--no-escape", "--jinja"]
        command += ["-n", str(prompt.max_tokens), "-c", str(self._context_size(clip, prompt))]
        command += ["--temp", str(sampling.temperature), "--top-p", str(sampling.top_p)]
        command += ["--repeat-penalty", str(sampling.repeat_penalty), "-s", str(sampling.seed)]
        command += ["--offline", "--no-warmup", "-lv", "4", "--perf", "--log-colors", "off"]
        if prompt.system:
            command += ["-sys", prompt.system]
        if settings.gpu_layers is not None:
            command += ["-ngl", str(settings.gpu_layers)]
        if settings.threads is not None:
            command += ["-t", str(settings.threads)]
        return command

    def _context_size(self, clip: Clip, prompt: Prompt) -> int:
        """Never `-c 0`, which would take the model's whole context and its memory. Raises TooLongError."""
        needed = tokens_needed(clip, prompt, self._settings, self._model)
        return self._settings.ctx_size or min(self._model.context_length, -(-needed // 256) * 256)


def _answer(done: process.Finished, clip: Clip, prompt: Prompt, sampling: Sampling) -> Answer:
    return Answer(
        prompt=prompt,
        text=done.stdout.decode("utf-8", errors="replace"),
        hit_limit=_hit_limit(done, prompt),
        audio_tokens=_tokens_heard(done.log, clip),
        seconds=done.seconds,
        sampling=sampling,
    )


def _is_whole(done: process.Finished) -> bool:
    """Whether all of the output arrived.

    Answer and log go through one queue that a thread of its own writes out, and main() does not wait for it: on a
    loaded machine the last words are lost with exit code 0 (seen on b11434; upstream issue 22142; the bootstrap
    script's build is mended). The timings come last in that queue, so where they are, everything is.
    """
    return _RUNS.search(done.log) is not None


def _hit_limit(done: process.Finished, prompt: Prompt) -> bool:
    """Whether the token limit ended the answer; the binary does not say, but leaves two traces.

    Its log counts N - 1 runs for an answer that used up its N tokens, and no fewer for one whose last token was
    the end itself; then stdout ends with one more newline (mtmd-cli.cpp, generate_response).
    """
    runs = _RUNS.search(done.log)
    assert runs
    return int(runs[1]) + 1 >= prompt.max_tokens and not done.stdout.endswith(b"\n\n\n")


def _tokens_heard(log: str, clip: Clip) -> int | None:
    """The audio tokens that the log says were decoded; None where it cannot be told.

    A release that does not log batches still logs the whole prompt's length: too short means deaf.
    """
    if batches := _AUDIO_BATCH.findall(log):
        return sum(map(int, batches))
    prompt_tokens = _PROMPT_TOKENS.search(log)
    return 0 if prompt_tokens and int(prompt_tokens[1]) < clip.audio_tokens else None


def _failed(done: process.Finished, command: list[str]) -> EngineError | ModelError:
    kept = _keep_log(done.log, command)
    if done.signal_name == "SIGILL":
        return EngineError(
            "llama-mtmd-cli met an instruction that this processor lacks",
            "build it again for this machine: musicflamingo build --force",
        )
    how = f"died of {done.signal_name}" if done.signal_name else f"ended with exit code {done.returncode}"
    if known := llama_cpp.diagnose(done.log):
        return known.error(f"llama-mtmd-cli {how}; log: {kept}")
    last = llama_cpp.tail(done.log) or "(its log is empty)"
    return EngineError(
        f"llama-mtmd-cli {how} (log: {kept}):\n{last}", "see its log, or run: musicflamingo models check"
    )


def _keep_log(log: str, command: list[str]) -> Path | str:
    """Save a failed run's log with its command in the user's log folder; the oldest beyond 50 go."""
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
