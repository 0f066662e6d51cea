"""Engine `transformers`: a checkpoint in Hugging Face transformers. All prompts of a clip share its processed audio.

For the checkpoints that llama.cpp does not run, and as the reference that a quant is compared with. What the worker
does is in worker.py; torch and transformers are imported there only.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys

from musicflamingo_cli.choices import Quantization
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.transformers.environment import installed_versions
from musicflamingo_cli.engines.worker_engine import WorkerEngine
from musicflamingo_cli.engines.worker_process import WorkerProcess
from musicflamingo_cli.errors import ToolMissingError
from musicflamingo_cli.llamacpp import memory
from musicflamingo_cli.llamacpp.binaries import NO_MEMORY, Diagnosis
from musicflamingo_cli.llamacpp.gpus import variables
from musicflamingo_cli.models.model import Checkpoint
from musicflamingo_cli.system.processes import without_secrets
from musicflamingo_cli.types import Windows

WORKER: tuple[str, ...] = (sys.executable, "-P", "-m", "musicflamingo_cli.engines.transformers.worker")
_TOKENS, _QUESTIONS = 8192, 5  # of a clip and of each of its answers, for the estimate of how many clips fit
_MAX_SLOTS_GPU, _MAX_SLOTS_CPU = 4, 1  # see engines/context.py
_LIBRARIES = {
    Quantization.EIGHT_BIT: "bitsandbytes",
    Quantization.NF4: "bitsandbytes",
    Quantization.INT8: "torchao",
}
# How torch and the system say so in the log of a worker: a regular expression.
LACK_OF_MEMORY = r"out of memory|OutOfMemoryError|can't allocate memory|not enough memory|MemoryError|bad_alloc"
# What a line of the worker's log means; the first that matches counts.
_KNOWN_FAULTS = (
    (
        LACK_OF_MEMORY,
        Diagnosis(
            NO_MEMORY, "use --quantize nf4, less audio (--max-seconds 300), or a GGUF: musicflamingo models list"
        ),
    ),
    (
        r"flash_attn|FlashAttention2? .*(?:not|isn't)|flash-attn",
        Diagnosis("flash-attention is not installed", "pip install flash-attn, or use --attention sdpa", True),
    ),
    (
        r"Torch not compiled with CUDA|Invalid device string|Expected one of cpu, cuda|No CUDA GPUs",
        Diagnosis("torch does not have this device", "see: musicflamingo doctor; or leave --device out", True),
    ),
    (
        r"SafetensorError|does not appear to have a file named|Unrecognized (?:model|configuration)|size mismatch",
        Diagnosis("transformers cannot load the checkpoint", "get it again: musicflamingo models list", True),
    ),
)


class TransformersEngine(WorkerEngine):
    """Answers all prompts of a clip, and of several clips, in one batch."""

    name = "transformers"
    windows = Windows.TRIMMED
    instead = "use less audio: --max-seconds 300"

    def __init__(self, settings: Settings, checkpoint: Checkpoint, at_once: int = 1) -> None:
        """Check that it can work, without starting it. Raises ToolMissingError where a package is missing."""
        self.provenance = {**installed_versions(), "windows": str(self.windows)}
        _require_quantization(settings.quantize)
        if checkpoint.adapter and importlib.util.find_spec("peft") is None:
            raise ToolMissingError("--lora needs peft", "install it with: pip install 'musicflamingo[finetune]'")
        self._checkpoint = checkpoint
        super().__init__(settings, checkpoint, SlotsByMemory(settings, checkpoint, at_once))

    def _new_process(self, context: int, slots: int) -> WorkerProcess:
        settings = self._settings
        command = [*WORKER, "--folder", str(self._checkpoint.folder), "--slots", str(slots)]
        command += ["--attention", settings.attention, "--quantize", settings.quantize]
        if self._checkpoint.adapter:
            command += ["--lora", str(self._checkpoint.adapter.folder)]
        if settings.device:
            command += ["--device", settings.device]
        if settings.threads:
            command += ["--threads", str(settings.threads)]
        return WorkerProcess(
            command, environment(settings.gpus), context=context, slots=slots, timeout=settings.timeout
        )

    def _diagnose(self, log: str) -> Diagnosis | None:
        return next((fault for pattern, fault in _KNOWN_FAULTS if re.search(pattern, log)), None)


class SlotsByMemory:
    """How many clips are answered at once. Nothing is reserved for a slot: a clip takes what it needs."""

    def __init__(self, settings: Settings, checkpoint: Checkpoint, at_once: int) -> None:
        """Look at the memory; ``at_once`` is an upper limit."""
        self._context = checkpoint.context_length
        found = memory.ram() if settings.device == "cpu" else memory.of_drivers(settings.gpus)
        by_device = _MAX_SLOTS_GPU if found.is_gpu else _MAX_SLOTS_CPU
        a_clip = max(1, checkpoint.kv_bytes_per_token * _TOKENS * (1 + _QUESTIONS))
        fitting = max(1, (found.free - checkpoint.size - memory.RESERVE) // a_clip)
        self.slots = max(1, min(at_once, settings.slots or min(by_device, fitting)))

    def size_for(self, context: int) -> tuple[int, int]:
        """See ``resident.Budget``: any clip fits into any slot."""
        return max(self._context, context), self.slots

    def shrink(self) -> None:
        """Halve the number of slots."""
        self.slots = max(1, self.slots // 2)


def environment(gpus: str | None = None) -> dict[str, str]:
    """Return the environment of a worker: it reads local files only, and gets no secrets. ``gpus``: which it sees."""
    return without_secrets() | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"} | variables(gpus)


def _require_quantization(name: Quantization) -> None:
    """Raise ToolMissingError where what stores weights in fewer bits is missing, or does not work on this GPU."""
    if name == Quantization.NONE:
        return
    library = _LIBRARIES[name]
    if "rocm" in importlib.metadata.version("torch"):
        raise ToolMissingError(
            f"--quantize {name} does not work with torch for ROCm",
            "use a GGUF quant instead: musicflamingo models list",
        )
    for package in (library, "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise ToolMissingError(f"--quantize {name} needs {package}", f"install it with: pip install {package}")
