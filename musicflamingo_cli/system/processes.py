"""The only place that starts programs: short probes, long children with a time limit, and children that stay.

Every child gets a process group of its own and no stdin, and does not outlive us. The exceptions are programs that
a person uses in the terminal (an editor, the build), which get the terminal.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_GRACE_SECONDS = 2.0  # between SIGTERM and SIGKILL
_PROBE_SECONDS = 60.0  # `--version` of a binary on a slow network disk


# Names of variables that hold secrets: HF_TOKEN, AWS_SECRET_ACCESS_KEY, OPENAI_API_KEY, PGPASSWORD, LLAMA_API_KEY.
_SECRET = re.compile(
    r"PASSWORD|PASSWD|PASSPHRASE|SECRET|CREDENTIAL|(?:^|_)(?:TOKENS?|API_?KEYS?|ACCESS_KEY|PRIVATE_KEY)(?:_|$)", re.I
)


def without_secrets() -> dict[str, str]:
    """Return our environment without tokens, keys and passwords, which no child needs and a crash report could hold."""
    return {name: value for name, value in os.environ.items() if not _SECRET.search(name)}


class ProbeError(Exception):
    """A program could not be started, or did not end in time."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A program that was asked a short question and ended. ``output`` is stdout and then stderr."""

    returncode: int
    output: str

    @property
    def last_line(self) -> str:
        """The last line that the program wrote, or its exit code where it wrote none."""
        lines = self.output.strip().splitlines()
        return lines[-1] if lines else f"exit code {self.returncode}"


def probe(
    command: Sequence[str | Path], env: Mapping[str, str] | None = None, timeout: float = _PROBE_SECONDS
) -> Probe:
    """Run a short command to its end and return what it wrote, decoded tolerantly. Raises ProbeError.

    Without ``env`` it gets our environment without secrets.
    """
    env = without_secrets() if env is None else env
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False, env=env
        )
    except OSError as error:
        raise ProbeError(error.strerror or str(error)) from error
    except subprocess.TimeoutExpired as error:
        raise ProbeError(f"it did not end within {timeout:g} s") from error
    return Probe(done.returncode, (done.stdout + done.stderr).decode("utf-8", errors="replace"))


def run_in_terminal(command: Sequence[str], env: Mapping[str, str] | None = None) -> int:
    """Run a program that a person watches or uses, with our stdin, stdout and stderr; return its exit code.

    Raises OSError where it cannot be started.
    """
    return subprocess.run(command, env=env, check=False).returncode


@dataclass(frozen=True, slots=True)
class Finished:
    """A child that ended. ``returncode`` is negative for a signal, as in subprocess; ``seconds`` is wall time."""

    returncode: int
    stdout: bytes
    log: str
    seconds: float

    @property
    def signal_name(self) -> str:
        """SIGILL and the like where a signal ended it, also as a shell reports it (128 + number), else empty."""
        number = -self.returncode if self.returncode < 0 else self.returncode - 128
        try:
            return signal.Signals(number).name
        except ValueError:
            return ""


class ChildTimeout(Exception):
    """The child was still running at the limit and was killed with its whole group; ``log`` is what it wrote."""

    def __init__(self, seconds: float, log: str) -> None:
        super().__init__(f"no end after {seconds:g} s")
        self.log = log


class Stopped(Exception):
    """The child was killed, or not started, because ``Children.stop`` was called."""


class Children:
    """Runs children to their end, from any thread; all of them can be ended at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, command: list[str], log_file: Path, timeout: float, env: dict[str, str] | None = None) -> Finished:
        """Run ``command`` to its end; stderr goes to ``log_file``, stdout is returned.

        The child gets a process group of its own and no stdin (llama.cpp's tools read the terminal), so Ctrl-C
        reaches only us; whatever ends this call early (time-out, interrupt) kills the whole group first.

        Raises OSError when the command cannot be started, ChildTimeout at the limit, Stopped after ``stop``.
        """
        started = time.monotonic()
        with log_file.open("wb") as log:
            child, lifeline = self._start(command, log, env)
            try:
                stdout, _ = child.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                kill_group(child)
                raise ChildTimeout(timeout, read_log(log_file)) from None
            except BaseException:
                kill_group(child)
                raise
            finally:
                with self._lock:
                    self._running.discard(child)
                lifeline.close()
        if self._stopped:
            raise Stopped
        return Finished(
            returncode=child.returncode,
            stdout=stdout,
            log=read_log(log_file),
            seconds=time.monotonic() - started,
        )

    def stop(self) -> None:
        """Kill all that run; whatever is requested afterwards does not start."""
        with self._lock:
            self._stopped = True
            for child in self._running:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGKILL)

    def _start(
        self, command: list[str], log: IO[bytes], env: dict[str, str] | None
    ) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
        with self._lock:
            if self._stopped:
                raise Stopped
            child, lifeline = _start_guarded(command, subprocess.PIPE, log, env)
            self._running.add(child)
            return child, lifeline


class Guarded:
    """A child that runs beside us and dies with us, however we die."""

    def __init__(
        self,
        command: list[str],
        log_file: Path,
        env: dict[str, str] | None = None,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        """Start it. The child inherits ``pass_fds``. Raises OSError when the command cannot be started."""
        self._killing = threading.Lock()
        self._is_killed = False
        with log_file.open("wb") as log:
            self.process, self._lifeline = _start_guarded(command, log, log, env, pass_fds)

    @property
    def is_running(self) -> bool:
        """Whether the child has not ended yet."""
        return self.process.poll() is None

    def kill(self) -> None:
        """End the child and its watcher.

        From any thread, any number of times: only the first call does it, the others wait for it.
        """
        with self._killing:
            if self._is_killed:
                return
            with contextlib.suppress(ProcessLookupError):
                kill_group(self.process)
            self._lifeline.close()
            self._is_killed = True  # last: a Ctrl-C in the grace period must not make the next call a no-op


# `sh` first starts a watcher in its own group, then becomes the program. So at whatever moment we are killed, the
# program either has its watcher or has not started. The watcher reads from a pipe that only we hold open; when we are
# gone (SIGKILL included) the read ends and it kills the group. That works on every POSIX system and from any thread,
# which Linux's parent-death signal does not.
_GUARDED = """exec 3<&0
(cat <&3; kill -KILL -$$) >/dev/null 2>&1 &
exec 3<&- </dev/null "$@\""""


def _start_guarded(
    command: list[str],
    stdout: int | IO[bytes],
    log: IO[bytes],
    env: dict[str, str] | None,
    pass_fds: tuple[int, ...] = (),
) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """Start a child in a group of its own, without stdin; return it and the pipe whose closing kills its group.

    Without ``env`` it gets our environment without secrets. Raises OSError when the command cannot be started.
    """
    if not os.access(command[0], os.X_OK):  # the error that Popen would raise, had it started the program itself
        missing = errno.EACCES if Path(command[0]).exists() else errno.ENOENT
        raise OSError(missing, os.strerror(missing), command[0])
    child = subprocess.Popen(
        ["/bin/sh", "-c", _GUARDED, "sh", *command],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=log,
        env=without_secrets() if env is None else env,
        start_new_session=True,
        pass_fds=pass_fds,
    )
    assert child.stdin
    lifeline, child.stdin = child.stdin, None  # communicate() would close it
    return child, lifeline


@contextlib.contextmanager
def after_our_end(script: str, *arguments: str) -> Iterator[None]:
    """Have a shell run ``script`` should this process end within the context, however it ends (SIGKILL included).

    The shell waits for a pipe that only we hold open. It is ended when the context is left.
    """
    watcher = subprocess.Popen(
        ["/bin/sh", "-c", f"read -r _\n{script}", "sh", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=without_secrets(),
        start_new_session=True,
    )
    try:
        yield
    finally:
        watcher.kill()
        watcher.wait()
        assert watcher.stdin
        watcher.stdin.close()


def kill_group(child: subprocess.Popen[bytes]) -> None:
    """End the child and all that it started, with SIGTERM and then SIGKILL, and wait until it is gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_SECONDS)
            break
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)  # grandchildren that outlived a child which ended at SIGTERM
    if child.stdout:
        child.stdout.close()


def read_log(path: Path, limit: int = 1_000_000) -> str:
    """Return the last ``limit`` bytes of a log, decoded tolerantly; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - limit))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
