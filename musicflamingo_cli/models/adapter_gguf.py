"""An adapter in GGUF, for llama.cpp: made once by llama.cpp's own converter, and kept in the adapter's folder.

The converter comes with the build script's builds. It needs torch and transformers, which the machine that only
captions need not have: the converted file travels with the adapter.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

from musicflamingo_cli.errors import ModelError, ToolMissingError
from musicflamingo_cli.models.adapters import BASE_CONFIG, GGUF
from musicflamingo_cli.models.gguf import read_header
from musicflamingo_cli.models.model import Adapter
from musicflamingo_cli.paths import llama_cache_dir
from musicflamingo_cli.system.processes import ProbeError, probe, without_secrets

CONVERTER = "convert_lora_to_gguf.py"
_BUILD = "get llama.cpp's converter with: musicflamingo build"
_SECONDS = 600.0
_PACKAGES = ("torch", "transformers", "safetensors")


def gguf_of(adapter: Adapter) -> Path:
    """Return the adapter's GGUF file; it is made where it is missing or older than the adapter.

    Raises ToolMissingError where what converts is not installed, ModelError where it fails.
    """
    file = adapter.folder / GGUF
    if not is_converted(adapter):
        convert(adapter)
    header = read_header(file)
    if header.values.get("adapter.type") != "lora":
        raise ModelError(f"{file} is not a LoRA adapter", "delete it, and it is converted again")
    return file


def is_converted(adapter: Adapter) -> bool:
    """Return whether the GGUF file is there and not older than the matrices."""
    try:
        converted = (adapter.folder / GGUF).stat()
        return converted.st_mtime_ns >= max(file.stat().st_mtime_ns for file in adapter.files)
    except OSError:
        return False


def find_converter() -> Path:
    """Return the converter of the newest build. Raises ToolMissingError where there is none."""
    file = llama_cache_dir() / "current" / "convert" / CONVERTER
    if not file.is_file():
        raise ToolMissingError(f"{CONVERTER} is not installed", _BUILD)
    return file


def convert(adapter: Adapter) -> None:
    """Write the adapter's GGUF file; it is complete or not there. Raises ToolMissingError, ModelError."""
    converter = find_converter()
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            hint = "pip install 'musicflamingo[finetune]'; or convert it where it was trained"
            raise ToolMissingError(f"converting the adapter needs {package}", hint)
    target = adapter.folder / GGUF
    with tempfile.TemporaryDirectory(prefix="musicflamingo-lora-") as folder:
        part = Path(folder) / GGUF
        command = [sys.executable, str(converter), "--outtype", "f32", "--outfile", str(part)]
        command += ["--base", str((adapter.folder / BASE_CONFIG).parent), str(adapter.folder)]
        try:
            done = probe(command, without_secrets() | {"HF_HUB_OFFLINE": "1"}, _SECONDS)
        except ProbeError as error:
            raise ModelError(f"the adapter {adapter.name} could not be converted: {error}", "see -v") from error
        if done.returncode or not part.is_file():
            reason = f"the adapter {adapter.name} could not be converted: {done.last_line}"
            raise ModelError(reason, "use it with: --engine transformers")
        _place(part, target)


def _place(part: Path, target: Path) -> None:
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copyfile(part, beside)
        beside.replace(target)
    except OSError as error:
        reason = f"cannot write {target}: {error.strerror}"
        raise ModelError(reason, "copy the adapter to a folder that you may write") from error
    finally:
        beside.unlink(missing_ok=True)
