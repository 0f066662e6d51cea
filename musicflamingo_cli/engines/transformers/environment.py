"""What engine `transformers` would run on: versions, the device, and which optional libraries are installed.

Importing torch takes seconds, and a broken driver can crash it; so this module is also a program
(`python -m …environment [DEVICE]`), which asks torch in a process of its own and writes the answer as JSON.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from musicflamingo_cli.choices import Attention, Quantization
from musicflamingo_cli.config import Settings
from musicflamingo_cli.errors import ToolMissingError
from musicflamingo_cli.models.checkpoints import HOW_TO_INSTALL
from musicflamingo_cli.system.processes import ProbeError, probe

# The supported versions, from the first to below the second, as in pyproject.toml.
VERSIONS = {"torch": ((2, 8), (3,)), "transformers": ((5, 20), (6,))}
OPTIONAL = ("accelerate", "flash-attn", "bitsandbytes", "torchao")
_MARK = "musicflamingo-environment "  # begins the line with the answer; libraries may print others
_SECONDS = 180.0  # for importing torch from a slow disk


@dataclass(frozen=True, slots=True)
class Environment:
    """What the libraries report. ``libraries``: those of OPTIONAL that are installed, with their versions."""

    torch: str
    transformers: str
    device: str  # torch's name for it
    device_name: str  # for a person
    free: int  # bytes of the device's memory; 0 for the CPU, which has none of its own
    total: int
    has_bf16: bool  # whether the device itself computes in bf16
    libraries: dict[str, str]


def installed_versions() -> dict[str, str]:
    """Return the versions of torch and transformers. Raises ToolMissingError: missing, or too old or too new."""
    if missing := missing_packages():
        verb = "is" if len(missing) == 1 else "are"
        raise ToolMissingError(f"{' and '.join(missing)} {verb} not installed", f"install it with: {HOW_TO_INSTALL}")
    if unsupported := unsupported_versions():
        raise ToolMissingError(f"{' and '.join(unsupported)}: not supported", f"install it with: {HOW_TO_INSTALL}")
    return {name: importlib.metadata.version(name) for name in VERSIONS}


def missing_packages() -> list[str]:
    """Return which of torch and transformers are not installed; looks for them without importing them."""
    return [name for name in VERSIONS if importlib.util.find_spec(name) is None]


def unsupported_versions() -> list[str]:
    """Return which of the installed torch and transformers are too old or too new, with their versions."""
    versions = {name: importlib.metadata.version(name) for name in VERSIONS}
    return [f"{name} {version}" for name, version in versions.items() if not _is_supported(name, version)]


def missing_libraries(settings: Settings) -> list[str]:
    """Return which of OPTIONAL the settings need and are not installed."""
    needed = {
        Quantization.NONE: (),
        Quantization.INT8: ("accelerate", "torchao"),
        Quantization.EIGHT_BIT: ("accelerate", "bitsandbytes"),
        Quantization.NF4: ("accelerate", "bitsandbytes"),
    }[settings.quantize]
    if settings.attention is Attention.FLASH_ATTENTION_2:
        needed = (*needed, "flash-attn")
    return [name for name in needed if name not in _installed_libraries()]


def describe_environment(device: str | None = None) -> Environment:
    """Return what torch reports, asked in a child process. ``device``: torch's name; None for the best there is.

    Raises ToolMissingError where the packages are missing, unsupported, or do not start.
    """
    installed_versions()
    try:
        command = [sys.executable, "-P", "-m", __name__, *([device] if device else [])]
        done = probe(command, timeout=_SECONDS)
    except ProbeError as error:
        raise ToolMissingError(f"torch does not start: {error}", f"install it again: {HOW_TO_INSTALL}") from error
    answer = next((line for line in done.output.splitlines() if line.startswith(_MARK)), "")
    if not answer:
        hint = f"check --device and the driver, or install it again: {HOW_TO_INSTALL}"
        raise ToolMissingError(f"torch does not start: {done.last_line}", hint)
    return Environment(**json.loads(answer.removeprefix(_MARK)))


def _is_supported(name: str, version: str) -> bool:
    low, high = VERSIONS[name]
    return low <= _numbers(version) < high


def _numbers(version: str) -> tuple[int, ...]:
    """Return a version's numbers: (2, 13, 0) for `2.13.0+cpu`, (5, 24, 0) for `5.24.0.dev0`."""
    parts = version.partition("+")[0].split(".")
    return tuple(int(part) for part in parts if part.isdigit())


def _installed_libraries() -> dict[str, str]:
    return dict(_versions_of(OPTIONAL))


def _versions_of(names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield name, importlib.metadata.version(name)


def _ask_torch(device: str | None) -> Environment:
    """Return what torch reports, in this process. Raises RuntimeError for a device that it does not have."""
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    torch.zeros(1, device=device)  # a listed GPU may still be unusable
    name, free, total, has_bf16 = _describe_device(torch, device)
    return Environment(
        torch=torch.__version__,
        transformers=importlib.metadata.version("transformers"),
        device=device,
        device_name=name,
        free=free,
        total=total,
        has_bf16=has_bf16,
        libraries=_installed_libraries(),
    )


def _describe_device(torch: Any, device: str) -> tuple[str, int, int, bool]:
    """Return a device's name, free and total memory in bytes, and whether it computes in bf16."""
    kind = torch.device(device).type
    if kind == "cuda":  # also AMD's
        platform_name = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
        free, total = torch.cuda.mem_get_info(device)
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return f"{torch.cuda.get_device_name(device)}, {platform_name}", free, total, has_bf16
    if kind == "mps":
        total = torch.mps.recommended_max_memory()
        return "Apple GPU", total - torch.mps.driver_allocated_memory(), total, _computes_in_bf16(torch, device)
    has_bf16 = kind == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return f"{platform.machine()} processor", 0, 0, bool(has_bf16)


def _computes_in_bf16(torch: Any, device: str) -> bool:
    try:
        ones = torch.ones(2, 2, dtype=torch.bfloat16, device=device)
        return bool((ones @ ones).sum().item() == 8)
    except (RuntimeError, TypeError):
        return False


if __name__ == "__main__":
    found = _ask_torch(sys.argv[1] if len(sys.argv) > 1 else None)
    sys.stdout.write(f"{_MARK}{json.dumps(asdict(found))}\n")
