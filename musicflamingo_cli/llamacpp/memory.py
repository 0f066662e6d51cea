"""How much memory is available for a model: that of the GPUs that llama.cpp uses, else the machine's own."""

from __future__ import annotations

import contextlib
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from musicflamingo_cli.errors import ToolMissingError
from musicflamingo_cli.llamacpp import binaries
from musicflamingo_cli.llamacpp.gpus import ALL, parse_gpus, variables
from musicflamingo_cli.system.processes import ProbeError, probe

RESERVE = 1 << 30  # bytes for compute buffers, and for other users of the device
_MIB = 1 << 20
# `  CUDA0: NVIDIA H200 (143156 MiB, 142597 MiB free)`, the same for every backend (common/arg.cpp, --list-devices).
_DEVICE = re.compile(r"^\s+(\S+): (.*) \((\d+) MiB, (\d+) MiB free\)$", re.MULTILINE)
_INTEGRATED = re.compile(
    r"UHD|Iris|HD Graphics|Intel.* Graphics|Radeon(?:\(TM\))? Graphics|Radeon(?:\(TM\))? \d{3}M|"
    r"RAPHAEL|PHOENIX|REMBRANDT|RENOIR|CEZANNE|VANGOGH|STRIX|llvmpipe",
    re.IGNORECASE,
)
_DISCRETE = re.compile(r"\bArc\b.*\b(A\d{2,3}M?|B[5-7]\d0?)\b")  # `Intel(R) Arc(tm) A770 Graphics`; a B390 is not
_DRM = Path("/sys/class/drm")
_CGROUP, _OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True)
class Memory:
    """Free and total bytes; ``where`` is the name of one GPU or of several, or `RAM`."""

    free: int
    total: int
    where: str

    @property
    def is_gpu(self) -> bool:
        """Whether it is the memory of GPUs."""
        return self.where != "RAM"


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU; ``backend`` is llama.cpp's name for it (CUDA0), empty where the driver was asked. Memory in bytes."""

    name: str
    total: int
    free: int
    backend: str = ""

    @property
    def is_integrated(self) -> bool:
        """Whether it is part of a processor, by its name: llama.cpp leaves those out where there is another."""
        return _INTEGRATED.search(self.name) is not None and _DISCRETE.search(self.name) is None


def for_llama_cpp(command: Sequence[str], gpu_layers: int | None = None, gpus: str | None = None) -> Memory:
    """Return the memory in which a llama.cpp program would put a model; all GPUs that it sees count together.

    ``command`` is the program, which lists its devices; ``gpus``: see gpus.variables. RAM where it sees none, or where
    ``gpu_layers`` is 0.
    """
    if gpu_layers == 0:
        return ram()
    return _together(cards([*command, "--list-devices"], variables(gpus))) or ram()


def cards(command: Sequence[str], environment: Mapping[str, str] | None = None) -> list[Card]:
    """Return the GPUs that a command lists, as ``parse_devices`` takes them. ``environment``: more variables."""
    return _parse_cards(_output_of(command, environment))


def parse_devices(listed: str) -> Memory | None:
    """Return the GPUs in the output of `--list-devices`; None where there are none.

    >>> parse_devices("Available devices:\\n  ROCm0: AMD Radeon (16304 MiB, 16100 MiB free)\\n").where
    'AMD Radeon'
    """
    return _together(_parse_cards(listed))


def _parse_cards(listed: str) -> list[Card]:
    devices = [
        Card(name=name, total=int(total) * _MIB, free=int(free) * _MIB, backend=backend)
        for backend, name, total, free in _DEVICE.findall(listed)
    ]
    found = [device for device in devices if device.total]  # BLAS lists itself, with no memory
    # llama.cpp does not use integrated GPUs where there is another; the listing does not mark them.
    return [card for card in found if not card.is_integrated] or found


def available(llama_dir: Path | None = None, gpu_layers: int | None = None, gpus: str | None = None) -> Memory:
    """Return the memory for models on this machine: as the installed llama.cpp reports it, else the drivers.

    With ``gpus`` (`all`, or numbers) each GPU gets a model of its own: that of the one with the least counts.
    """
    for name in (binaries.SERVER, binaries.MTMD_CLI):
        with contextlib.suppress(ToolMissingError):
            command = [str(binaries.find(name, llama_dir))]
            if gpus is None or gpu_layers == 0:
                return for_llama_cpp(command, gpu_layers)
            return _least(cards([*command, "--list-devices"], variables(gpus))) or ram()
    return ram() if gpu_layers == 0 else of_drivers(gpus)


def of_drivers(gpus: str | None = None) -> Memory:
    """Return the memory of the GPUs as their drivers report it, else the machine's own; ``gpus``: see ``available``."""
    if gpus is None:
        return _together(_nvidia()) or _together(_amd()) or _apple() or ram()
    return _least(cards_of_drivers(gpus)) or ram()


def cards_of_drivers(gpus: str | None = None) -> list[Card]:
    """Return the GPUs that the drivers know, in their order; ``gpus`` names some by number."""
    found = _nvidia() or _amd()
    return found if gpus is None or gpus == ALL else [found[each] for each in parse_gpus(gpus) if each < len(found)]


def _nvidia() -> list[Card]:
    query = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    rows = [line.rsplit(", ", 2) for line in _output_of(query).splitlines()]
    cards = [row for row in rows if len(row) == 3 and row[1].isdigit() and row[2].isdigit()]  # and no warnings
    return [Card(name, int(total) * _MIB, int(free) * _MIB) for name, total, free in cards]


def _amd() -> list[Card]:
    """Return what the kernel's driver (amdgpu) reports, which needs no ROCm."""
    found = []
    for device in sorted(_DRM.glob("card[0-9]*/device")):
        with contextlib.suppress(OSError, ValueError):
            total = int((device / "mem_info_vram_total").read_text())
            used = int((device / "mem_info_vram_used").read_text())
            found.append(Card("AMD GPU", total, total - used))
    # An APU's reserved 512 MB cannot hold a model; its graphics share the RAM.
    return [card for card in found if card.total > 2 << 30]


def _apple() -> Memory | None:
    """Return the three quarters of the shared memory that Metal may use (recommendedMaxWorkingSetSize)."""
    if sys.platform != "darwin" or platform.machine() != "arm64":
        return None
    shared = ram()
    return Memory(min(shared.free, shared.total * 3 // 4), shared.total * 3 // 4, "Apple GPU")


def _together(found: Sequence[Card]) -> Memory | None:
    """Return all GPUs as one, since llama.cpp spreads a model over them; None where there are none."""
    if not found:
        return None
    return Memory(
        sum(card.free for card in found), sum(card.total for card in found), " + ".join(card.name for card in found)
    )


def _least(found: Sequence[Card]) -> Memory | None:
    """Return the GPU with the least free memory; None where there are none."""
    return _together([min(found, key=lambda card: card.free)]) if found else None


def _output_of(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Return what a program prints; empty where it is missing or fails."""
    try:
        done = probe(command, env=binaries.child_environment() | dict(environment or {}))
    except ProbeError:
        return ""
    return done.output if done.returncode == 0 else ""


def ram() -> Memory:
    """Return the machine's memory, or the container's where that is less."""
    import psutil

    memory = psutil.virtual_memory()
    free, total = int(memory.available), int(memory.total)
    for group in _control_groups():
        with contextlib.suppress(OSError, ValueError):  # `max`: no limit
            limit = int((group / "memory.max").read_text())
            used = int((group / "memory.current").read_text()) - _reclaimable(group)
            free, total = min(free, max(0, limit - used)), min(total, limit)
    return Memory(free, total, "RAM")


def _control_groups() -> list[Path]:
    """Return the control groups (version 2) of this process, from its own to the root; each may have a limit."""
    own = ""
    with contextlib.suppress(OSError):
        lines = _OWN_CGROUP.read_text().splitlines()
        own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    group = _CGROUP / own
    return [group, *(parent for parent in group.parents if parent.is_relative_to(_CGROUP))]


def _reclaimable(group: Path) -> int:
    """Return the bytes that count as used but only cache files, such as a model that was just downloaded."""
    with contextlib.suppress(OSError):
        for line in (group / "memory.stat").read_text().splitlines():
            if line.startswith("inactive_file "):
                return int(line.split()[1])
    return 0
