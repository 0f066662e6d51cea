"""An adapter in GGUF, for llama.cpp: made once by llama.cpp's own converter, and kept in the adapter's folder.

The converter comes with the build script's builds. It needs torch and transformers, which the machine that only
captions need not have: the converted file travels with the adapter.
"""

from __future__ import annotations

import contextlib
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
from musicflamingo_cli.system.identity import digest
from musicflamingo_cli.system.processes import ProbeError, probe, without_secrets

SOURCE = f"{GGUF}.source"  # says which matrices it was made of
CONVERTER = "convert_lora_to_gguf.py"
_BUILD = "get llama.cpp's converter with: musicflamingo build"
_SECONDS = 600.0
_PACKAGES = ("torch", "transformers", "safetensors")


def gguf_of(adapter: Adapter, llama_dir: Path | None = None) -> Path:
    """Return the adapter's GGUF file; it is made where it is missing or was made of other matrices.

    ``llama_dir``: where llama.cpp is, as in the settings.

    Raises ToolMissingError where what converts is not installed, ModelError where it fails.
    """
    file = adapter.folder / GGUF
    if not is_converted(adapter):
        convert(adapter, llama_dir)
    header = read_header(file)
    if header.values.get("adapter.type") != "lora":
        raise ModelError(f"{file} is not a LoRA adapter", "delete it, and it is converted again")
    return file


def is_converted(adapter: Adapter) -> bool:
    """Return whether the GGUF file is there and made of these matrices; without a record of that, whether it is newer.

    Times alone would not do: copies, as those of git, need not keep their order.
    """
    try:
        converted, record = (adapter.folder / GGUF).stat(), adapter.folder / SOURCE
        if record.exists():
            return record.read_text() == digest(adapter.files)
        return converted.st_mtime_ns >= max(file.stat().st_mtime_ns for file in adapter.files)
    except OSError:
        return False


def find_converter(llama_dir: Path | None = None) -> Path:
    """Return the converter of the build in ``llama_dir``, or of the newest one. Raises ToolMissingError."""
    builds = [llama_dir, llama_dir.absolute().parent] if llama_dir else []  # itself may be a build's `bin`
    for build in (*builds, llama_cache_dir() / "current"):
        if (file := build / "convert" / CONVERTER).is_file():
            return file
    raise ToolMissingError(f"{CONVERTER} is not installed", _BUILD)


def convert(adapter: Adapter, llama_dir: Path | None = None) -> None:
    """Write the adapter's GGUF file; it is complete or not there. Raises ToolMissingError, ModelError."""
    converter = find_converter(llama_dir)
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
        with contextlib.suppress(OSError):
            (adapter.folder / SOURCE).write_text(digest(adapter.files) or "")


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
