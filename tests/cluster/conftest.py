"""A Ray cluster of two nodes on loopback, in a private folder, for a whole module of tests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import hear_interrupts, tone

TOKEN = "0123456789abcdef" * 4


def processes(*words: str) -> dict[int, str]:
    """Return the command lines of all processes that hold one of the words, zombies left out."""
    listed = subprocess.run(["ps", "-ewwo", "pid,stat,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()[1:]]
    found = {int(row[0]): row[2] for row in rows if len(row) == 3 and not row[1].startswith("Z")}
    return {pid: args for pid, args in found.items() if any(word in args for word in words) and pid != os.getpid()}


def wait_until_gone(*words: str, seconds: float = 20.0) -> dict[int, str]:
    """Return the processes that are left after at most so many seconds."""
    deadline = time.monotonic() + seconds
    while (left := processes(*words)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def descendants(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout
    parents = {int(row.split()[0]): int(row.split()[1]) for row in listed.splitlines()[1:]}
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


@dataclass(frozen=True)
class Cluster:
    """Two nodes. ``raylets``: their process numbers, the head's first; a node's other processes are its children."""

    address: str
    raylets: list[int]
    environment: dict[str, str]
    holder: subprocess.Popen[str]

    def signal_node(self, number: int, which: int) -> None:
        for pid in descendants(self.raylets[which])[::-1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def running(self, *words: str) -> list[int]:
        """The processes of this cluster whose command lines hold one of the words."""
        ours = set(descendants(self.holder.pid))
        return [pid for pid in processes(*words) if pid in ours]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    environment = {
        **os.environ,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": os.environ.get("PYTHONPATH", str(Path(__file__).parents[2])),
    }
    with tempfile.TemporaryDirectory(prefix="mf-test-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        environment["RAY_TMPDIR"] = folder
        command = [sys.executable, str(Path(__file__).parent / "nodes.py"), folder, "2"]
        with (Path(folder) / "log").open("w") as log:
            holder = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        assert holder.stdout
        try:
            started = json.loads(holder.stdout.readline() or "null")
            assert started, (Path(folder) / "log").read_text()
            yield Cluster(started["address"], started["raylets"], environment, holder)
        finally:
            everything = descendants(holder.pid)
            for number in (signal.SIGCONT, signal.SIGKILL):
                for pid in everything[::-1]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
            holder.wait()


@pytest.fixture
def music(tmp_path: Path) -> Path:
    import soundfile

    folder = tmp_path / "music"
    folder.mkdir()
    for number in range(60):
        soundfile.write(folder / f"{number:02}.wav", tone(2, 200 + 10 * number), 16_000)
    return folder


def start_batch(music: Path, *options: str, environment: dict[str, str], folder: Path) -> subprocess.Popen[str]:
    """`musicflamingo batch` with the tiny model; stdout and stderr go to files in ``folder``."""
    command = [
        sys.executable,
        "-m",
        "musicflamingo_cli",
        "batch",
        str(music),
        "--model",
        "tiny",
        "--json",
        "-p",
        "full",
    ]
    command += ["--temperature", "0", "--repeat-penalty", "1", "--retries", "0", "--threads", "1", *options]
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        return subprocess.Popen(command, stdout=out, stderr=err, text=True, env=environment, preexec_fn=hear_interrupts)
