"""Adapters: what `finetune` trains, a folder of small matrices that change a base model's answers.

An adapter may come from other people: nothing of it is executed, and its files are read up to a limit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from musicflamingo_cli.errors import ModelError
from musicflamingo_cli.models.fingerprint import fingerprint
from musicflamingo_cli.models.model import PEFT_CONFIG, WEIGHTS, Adapter, Checkpoint, ModelPair
from musicflamingo_cli.models.safetensors import require_whole
from musicflamingo_cli.paths import LARGEST_TEXT, expanded, read_regular

ADAPTER = "adapter.json"  # ours: what it was trained on and how
BASE_CONFIG = Path("base", "config.json")  # of the base checkpoint: what llama.cpp's converter needs of it
GGUF = "adapter.gguf"  # the same weights for llama.cpp
_AGAIN = "train it with: musicflamingo finetune DIR --out ADAPTER"


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds an adapter of ours, complete or not."""
    return (folder / ADAPTER).is_file()


def check_adapter(folder: Path) -> Adapter:
    """Return the adapter in a folder. Raises ModelError where there is none, or where it is damaged."""
    folder = expanded(folder)
    if not folder.is_dir():
        raise ModelError(f"no adapter at {folder}", _AGAIN)
    if not is_adapter(folder):
        raise ModelError(f"{folder} is not an adapter of musicflamingo (no {ADAPTER})", _AGAIN)
    record, config = _read_json(folder / ADAPTER), _read_json(folder / PEFT_CONFIG)
    base = record.get("base")
    if config.get("peft_type") != "LORA" or not isinstance(base, dict):
        raise ModelError(f"{folder} is not a LoRA adapter with a known base model", _AGAIN)
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"{folder} lacks {WEIGHTS}", _AGAIN)
    require_whole(folder / WEIGHTS, _AGAIN)
    return Adapter(
        folder=folder,
        name=folder.resolve().name,
        base=str(base.get("name", "")),
        fingerprint=str(base.get("fingerprint", "")),
        has_projector=record.get("projector") is True,
        record=record,
    )


def adapter_for(model: ModelPair | Checkpoint, folder: Path) -> Adapter:
    """Return the adapter in a folder, if this model can use it. Raises ModelError."""
    adapter = check_adapter(folder)
    require_base(adapter, model)
    if isinstance(model, ModelPair) and adapter.has_projector:
        raise ModelError(
            f"the adapter {adapter.name} also changes the projector, which llama.cpp cannot",
            f"use --engine transformers --model {adapter.base}, or train without --projector",
        )
    return adapter


def require_base(adapter: Adapter, model: ModelPair | Checkpoint) -> None:
    """Raise ModelError unless the adapter was trained on this model, or on the checkpoint that it was made of."""
    if fingerprint(model) != adapter.fingerprint:
        raise ModelError(
            f"the adapter {adapter.name} was trained on {adapter.base}; {model.name} is another model",
            "name its base model, or a quant of it, with --model",
        )


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(read_regular(file, LARGEST_TEXT))
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror or error}", _AGAIN) from error
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ModelError(f"{file} is not a description in JSON", _AGAIN)
    return values
