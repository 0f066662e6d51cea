"""A training from the command's side: a worker process that can be killed and continued, and the adapter at its end."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musicflamingo_cli.engines.transformers.engine import LACK_OF_MEMORY, environment
from musicflamingo_cli.engines.transformers.environment import installed_versions
from musicflamingo_cli.errors import ConfigError, EngineError, MusicFlamingoError, ToolMissingError
from musicflamingo_cli.finetuning.folder import Result, write_adapter
from musicflamingo_cli.finetuning.plan import Plan
from musicflamingo_cli.finetuning.worker_files import EVENTS, PLAN, STATE, TRAINED
from musicflamingo_cli.models.adapters import is_adapter
from musicflamingo_cli.models.model import Checkpoint
from musicflamingo_cli.system.processes import Guarded, read_log

WORKER = "musicflamingo_cli.finetuning.worker"
HOW_TO_INSTALL = "pip install 'musicflamingo[finetune]'"
_PACKAGES = ("peft", "accelerate")
_POLL_SECONDS = 0.2
OnEvent = Callable[[Mapping[str, Any]], None]


def require_packages() -> dict[str, str]:
    """Return the versions of what trains. Raises ToolMissingError where a package is missing."""
    versions = installed_versions()
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise ToolMissingError(f"{package} is not installed", f"install it with: {HOW_TO_INSTALL}")
        versions[package] = importlib.metadata.version(package)
    return versions


@dataclass(frozen=True, slots=True)
class Training:
    """What to train, and where the adapter goes. ``processes``: one for each GPU."""

    plan: Plan
    checkpoint: Checkpoint
    out: Path
    gpus: str | None = None
    processes: int = 1

    @property
    def folder(self) -> Path:
        """Where an unfinished training is, beside the adapter."""
        return self.out.with_name(f".{self.out.name}.training")

    @property
    def _lock_file(self) -> Path:
        """Beside the folder, which ``restart`` removes."""
        return self.folder.with_name(f"{self.folder.name}.lock")

    def prepare(self, restart: bool = False, overwrite: bool = False) -> bool:
        """Make the folder of the training; return whether an unfinished one is continued.

        Raises ConfigError where ``out`` is something else than an adapter, or an adapter and ``overwrite`` is not set;
        where the unfinished training is another one and ``restart`` is not set; and where another process trains there.
        """
        if self.out.exists() and not (is_adapter(self.out) and overwrite):
            hint = (
                "replace it with --overwrite, or name another --out" if is_adapter(self.out) else "name another --out"
            )
            raise ConfigError(f"{self.out} exists", hint)
        if self.folder.exists():
            with self._locked():  # a training that runs is neither discarded nor given another plan
                return self._prepare(restart)
        return self._prepare(restart)

    def _prepare(self, restart: bool) -> bool:
        """See ``prepare``."""
        if restart and self.folder.exists():
            shutil.rmtree(self.folder)
        plan = self.folder / PLAN
        if plan.exists():
            try:
                is_same = Plan.read(plan).digest == self.plan.digest
            except (OSError, ValueError, LookupError, TypeError):
                is_same = False
            if not is_same:
                raise ConfigError(
                    f"{self.folder} holds an unfinished training with other captions or settings",
                    "give the same options to continue it, or discard it with --restart",
                )
        self.folder.mkdir(parents=True, exist_ok=True)
        self.plan.write(plan)
        return (self.folder / STATE).exists()

    def run(self, on_event: OnEvent, versions: Mapping[str, str]) -> Result:
        """Train, and write the adapter. ``on_event`` gets what the worker reports.

        An interrupt ends the worker; the training continues with the next call. Raises EngineError where it fails.
        """
        with self._locked():
            done = self._train(on_event)
            result = Result.from_event(done)
            part = self.folder / "adapter"
            shutil.rmtree(part, ignore_errors=True)
            write_adapter(part, self.folder / TRAINED, self.plan, self.checkpoint, result, versions)
            if self.out.exists():
                shutil.rmtree(self.out)
            part.rename(self.out)
            shutil.rmtree(self.folder, ignore_errors=True)
            self._lock_file.unlink(missing_ok=True)
        return result

    def _train(self, on_event: OnEvent) -> Mapping[str, Any]:
        """Run the worker to its end; return its last event. Raises EngineError."""
        events = self.folder / EVENTS
        events.unlink(missing_ok=True)
        last: Mapping[str, Any] = {}
        try:
            child = Guarded(self._command(), self.folder / "log", environment(self.gpus))
        except OSError as error:
            raise ToolMissingError(f"{sys.executable} cannot be started: {error.strerror}", HOW_TO_INSTALL) from error
        try:
            for last in _events(events, lambda: child.is_running):
                on_event(last)
        finally:
            child.kill()
        if last.get("kind") == "done":
            return last
        raise self._failed(last, child.process.returncode)

    def _command(self) -> list[str]:
        if self.processes == 1:
            return [sys.executable, "-P", "-m", WORKER, str(self.folder)]
        launch = [sys.executable, "-P", "-m", "accelerate.commands.launch", "--num_processes", str(self.processes)]
        launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--multi_gpu"]
        if self.plan.device == "cpu":
            launch = [*launch[:-1], "--cpu"]
        return [*launch, "-m", WORKER, str(self.folder)]

    def _failed(self, event: Mapping[str, Any], code: int | None) -> MusicFlamingoError:
        """Return the error for a worker that ended early."""
        log = read_log(self.folder / "log")
        if event.get("kind") == "failed" and event.get("hint"):
            return EngineError(str(event["reason"]), str(event["hint"]))
        if re.search(LACK_OF_MEMORY, log) or code == -9:
            return EngineError(
                "the training ran out of memory",
                "use less audio (--max-seconds 60), --quantize nf4 on a GPU, or a smaller --rank; it continues if you"
                " change none of these and free memory",
            )
        reason = event.get("reason") or f"exit code {code}"
        return EngineError(f"the training failed: {reason}", f"see {self.folder / 'log'}; or run it again with -v")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep a second command away from the same training. Raises ConfigError."""
        from filelock import FileLock, Timeout

        try:
            with FileLock(self._lock_file, timeout=0):
                yield
        except Timeout as error:
            raise ConfigError(
                f"another process trains in {self.folder}", "wait for it, or name another --out"
            ) from error


def _events(file: Path, is_running: Callable[[], bool]) -> Iterator[Mapping[str, Any]]:
    """Yield what the worker writes, until it has ended and all of it is read."""
    read, text = 0, ""
    while True:
        runs = is_running()
        if file.exists():
            with file.open(encoding="utf-8") as stream:
                stream.seek(read)
                text += stream.read()
                read = stream.tell()
        *lines, text = text.split("\n")
        for line in lines:
            yield json.loads(line)
        if not runs:
            return
        time.sleep(_POLL_SECONDS)
