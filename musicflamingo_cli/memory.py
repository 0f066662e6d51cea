"""How much memory there is for a model: of the GPUs that llama.cpp itself sees, else the machine's own."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from musicflamingo_cli import llama_cpp

_MIB = 1 << 20
# `  CUDA0: NVIDIA H200 (143156 MiB, 142597 MiB free)`, the same for every backend (common/arg.cpp, --list-devices).
_DEVICE = re.compile(r"^\s+(\S+): (.*) \((\d+) MiB, (\d+) MiB free\)$", re.MULTILINE)
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes, and whose: a GPU's name, several, or RAM."""

    free: int
    total: int
    where: str

    @property
    def is_gpu(self) -> bool:
        return self.where != "RAM"


def for_llama_cpp(command: Sequence[str], gpu_layers: int | None = None) -> Memory:
    """Where a llama.cpp program would put a model: ``command`` is asked for its devices, all GPUs count together.

    RAM where it sees none, or where ``gpu_layers`` is 0.
    """
    if gpu_layers == 0:
        return ram()
    try:
        done = subprocess.run(
            [*command, "--list-devices"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
            env=llama_cpp.child_environment(),
        )
    except (OSError, subprocess.TimeoutExpired):
        return ram()
    return parse_devices((done.stdout + done.stderr).decode("utf-8", errors="replace")) or ram()


def parse_devices(listed: str) -> Memory | None:
    """The GPUs in the output of `--list-devices`; None where there are none.

    >>> parse_devices("Available devices:\\n  ROCm0: AMD Radeon (16304 MiB, 16100 MiB free)\\n").where
    'AMD Radeon'
    """
    devices = _DEVICE.findall(listed)
    if not devices:
        return None
    names = [name for _, name, _, _ in devices]
    free = sum(int(free) for *_, free in devices) * _MIB
    return Memory(free, sum(int(total) for *_, total, _ in devices) * _MIB, " + ".join(names))


def ram() -> Memory:
    """The machine's memory, or the container's where that is less."""
    import psutil

    memory = psutil.virtual_memory()
    free, total = int(memory.available), int(memory.total)
    if (limit := _read_number("memory.max")) is not None:
        used = _read_number("memory.current") or 0
        free, total = min(free, max(0, limit - used)), min(total, limit)
    return Memory(free, total, "RAM")


def _read_number(name: str) -> int | None:
    """A figure of the control group (version 2) that we run in; None without one, or where it is `max`."""
    try:
        return int((_CGROUP / name).read_text())
    except (OSError, ValueError):
        return None
