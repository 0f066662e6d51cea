"""The llama.cpp binaries: where they are, what version they are, what their logs mean."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from musicflamingo_cli.errors import EngineError, ModelError, ToolMissingError
from musicflamingo_cli.llamacpp.gpus import variables
from musicflamingo_cli.paths import llama_cache_dir, read_regular
from musicflamingo_cli.system.processes import ProbeError, probe, without_secrets
from musicflamingo_cli.types import Windows

MTMD_CLI = "llama-mtmd-cli"
SERVER = "llama-server"
_BUILD = "build it with: musicflamingo build"
_NOTE, _LONGEST_NOTE = "VERSION.llama.cpp", 4096  # bytes
_NOTED = re.compile(r"[\w.-]+-(?:cpu|cuda|hip|vulkan|metal)(?:-portable)?(?:\+[\w.-]+)*")


def find(name: str, llama_dir: Path | None = None) -> Path:
    """Return the path of a llama.cpp binary. Raises ToolMissingError, which says how to get one.

    Looked for in ``llama_dir`` (itself, its `bin`, its `build/bin`) and nowhere else when that is given; else in
    the newest build of the build script, then on PATH.
    """
    if llama_dir is not None:
        for folder in (llama_dir, llama_dir / "bin", llama_dir / "build" / "bin"):
            if os.access(folder / name, os.X_OK):
                return folder / name
        raise ToolMissingError(
            f"no {name} in {llama_dir}", "name another folder with --llama-dir, or run: musicflamingo build"
        )
    built = llama_cache_dir() / "current" / "bin" / name
    if os.access(built, os.X_OK):
        return built
    if on_path := shutil.which(name):
        return Path(on_path)
    raise ToolMissingError(f"{name} is not installed", _BUILD)


@lru_cache
def version(binary: Path) -> str:
    """Return what the build script noted (`b11434-cpu+output+windows`), else what the binary prints, on one line.

    Raises ToolMissingError when the binary does not run here.
    """
    try:
        done = probe([binary, "--version"])
    except ProbeError as error:
        raise ToolMissingError(f"{binary} does not run: {error}", _BUILD) from error
    if done.returncode != 0:
        raise ToolMissingError(f"{binary} does not run: {done.last_line}", f"{_BUILD} -- --force")
    if (noted := _noted_version(binary.resolve().parent.parent)) is not None:
        return noted
    match = re.search(r"version:\s*(.+)", done.output)
    return match[1].strip() if match else "unknown"


def _noted_version(folder: Path) -> str | None:
    """Return what the build script noted in a build's folder; None where it is not from there."""
    for name in (_NOTE, "VERSION"):  # its earlier name, which another program's file may have, too
        with contextlib.suppress(OSError, UnicodeDecodeError):
            noted = read_regular(folder / name, _LONGEST_NOTE).decode("ascii").strip()
            if _NOTED.fullmatch(noted):
                return noted
    return None


def windows(binary: Path) -> Windows:
    """Return how a binary treats windows, which our patch `windows` changes. Raises ToolMissingError."""
    patches = version(binary).split("+")[1:]
    return Windows.TRIMMED if "windows" in patches else Windows.PADDED


def takes_projector(binary: Path) -> bool:
    """Return whether a binary can process audio at all: one of an old or a cut-down build cannot."""
    try:
        return "--mmproj" in probe([binary, "--help"]).output
    except ProbeError:
        return False


def child_environment(gpus: str | None = None) -> dict[str, str]:
    """Return our environment without secrets and LLAMA_ARG_*, which would override what we set (context, seed, …).

    LLAMA_API_KEY is one of the secrets: our server would require the key of another one. Without a backtrace, too:
    ggml would start a debugger on itself, whose pages bury the one line that matters. ``gpus``: see gpus.variables.
    """
    theirs = ("LLAMA_ARG_", "LLAMA_LOG_")
    ours = {name: value for name, value in without_secrets().items() if not name.startswith(theirs)}
    return ours | {"GGML_NO_BACKTRACE": "1"} | variables(gpus)


def list_item(path: Path) -> str:
    """Return a path for an option that takes a list: llama.cpp reads its value as a row of CSV."""
    text = str(path)
    return '"{}"'.format(text.replace('"', '""')) if {",", '"'} & set(text) else text


FLASH_ATTENTION = {"off": 0, "on": 1}  # what -fa takes: llama.h's enum llama_flash_attn_type


def flash_attention(is_on: bool | None) -> list[str]:
    """Return the option for it; none: llama.cpp uses it where the backend and the model can."""
    return [] if is_on is None else ["-fa", "on" if is_on else "off"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a log means. ``model_is_bad``: no track can be captioned with this model."""

    reason: str
    hint: str
    model_is_bad: bool = False

    def error(self, how: str) -> EngineError | ModelError:
        """Return the error for a binary that ended as ``how`` says."""
        return (ModelError if self.model_is_bad else EngineError)(f"{self.reason} ({how})", self.hint)


NO_MEMORY = "there is not enough memory"
# What a line of llama.cpp's log means; the first that matches counts.
_KNOWN_FAULTS: tuple[tuple[str, Diagnosis], ...] = (
    (
        r"CLIP cannot be used as main model",
        Diagnosis("the model given is a projector", "swap --model and --mmproj", True),
    ),
    (
        r"wrong mmproj|mismatch between text model .* and mmproj|n_embd.*mismatch",
        Diagnosis("the projector does not belong to this model", "name the one made for it with --mmproj", True),
    ),
    (
        r"failed to (?:apply|load) lora|lora adapter|llama_adapter_lora_init",
        Diagnosis("the adapter does not fit this model", "check both with: musicflamingo models check --lora", True),
    ),
    (
        r"out of memory|OutOfMemory|failed to allocate|unable to allocate|cudaMalloc failed|alloc_tensor_range: failed",
        Diagnosis(NO_MEMORY, "use --slots 1, a smaller quant (--model IQ3_M), or less audio: --max-seconds 300"),
    ),
    (
        r"failed to decode audio|Unable to (?:decode media|eval text) chunk|failed to find a memory slot",
        Diagnosis("the clip does not fit into the context", "raise --ctx-size, or use less audio: --max-seconds 300"),
    ),
    (
        r"failed to load model|error loading model|Failed to load vision model|tensor .* data is not within the file",
        Diagnosis("llama.cpp cannot load the model", "download its files again: musicflamingo models list", True),
    ),
    (
        r"does not have chat template",
        Diagnosis(
            "the model has no chat template", "use a GGUF of an instruction-tuned model: musicflamingo models list"
        ),
    ),
    (
        r"invalid argument|unknown argument",
        Diagnosis("this llama.cpp does not know a flag that is needed", "build the tested one: musicflamingo build"),
    ),
)
_COSMETIC = re.compile(
    r"audio input is in experimental stage|discussions/13759|POOL_1D|experimental CLI|standard llama-cli|"
    r"^\s*$|llama_perf|^(?:<\|im_start\|>|You are a|Hello|Hi there|How are you)"
)


def diagnose(log: str) -> Diagnosis | None:
    """Return what a failed run's log means, where it holds a known fault."""
    return next((fault for pattern, fault in _KNOWN_FAULTS if re.search(pattern, log)), None)


def is_lack_of_memory(known: Diagnosis | None) -> bool:
    """Return whether a known fault is that memory ran out."""
    return known is not None and known.reason == NO_MEMORY


def tail(log: str, lines: int = 5) -> str:
    """Return the last lines of a log that mean something."""
    shown = [line.rstrip() for line in log.splitlines() if not _COSMETIC.search(line)]
    return "\n".join(shown[-lines:])
