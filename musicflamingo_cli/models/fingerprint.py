"""What identifies a language model whatever its weights are stored in: a hash of its vectors.

Matrices differ between a checkpoint and each of its quants, but norms and biases are stored in GGUF at full precision.
So an adapter that was trained on a checkpoint recognises the quants that were made of it, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from musicflamingo_cli.errors import ModelError
from musicflamingo_cli.models.gguf import read_header
from musicflamingo_cli.models.model import Checkpoint, ModelPair

# The ends of vectors' names in checkpoints, and the same in GGUF.
_VECTORS = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "self_attn.q_proj.bias": "attn_q.bias",
    "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.bias": "attn_v.bias",
}
_LAYER = re.compile(r"(?:.*\.)?language_model\.(?:model\.)?layers\.(\d+)\.(.+)")
_NORM = re.compile(r"(?:.*\.)?language_model\.(?:model\.)?norm\.weight")
_IN_GGUF = re.compile(rf"output_norm\.weight|blk\.\d+\.(?:{'|'.join(map(re.escape, _VECTORS.values()))})")
_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_KINDS = {0: "F32", 1: "F16", 30: "BF16"}  # by GGUF's numbers
_LONGEST = 1 << 24  # values of a vector: more means that the file is damaged


def fingerprint(model: ModelPair | Checkpoint) -> str:
    """Return 16 hex digits that a checkpoint's language model and its quants have in common.

    Raises ModelError where the files are damaged or hold no such vectors.
    """
    if isinstance(model, ModelPair):
        found = dict(_of_gguf(model.language_model))
    else:
        found = {name: value for file in model.weights for name, value in _of_safetensors(file)}
    if "output_norm.weight" not in found:
        raise ModelError(f"{model.name} is not a language model that an adapter could belong to", "name its base model")
    done = hashlib.sha256()
    for name in sorted(found):
        done.update(name.encode() + found[name].astype("<f4").tobytes())
    return done.hexdigest()[:16]


def _of_gguf(file: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for name, place in read_header(file).tensors.items():
        if _IN_GGUF.fullmatch(name) and len(place.shape) == 1 and place.kind in _KINDS:
            yield name, _read(file, place.start, place.shape[0], _KINDS[place.kind])


def _of_safetensors(file: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            entries = json.loads(stream.read(length))
        for name, entry in entries.items():
            if (known := _gguf_name(name)) and entry["dtype"] in _BYTES:
                (count,) = entry["shape"]
                yield known, _read(file, 8 + length + int(entry["data_offsets"][0]), count, entry["dtype"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(f"{file} cannot be read", "get it again: musicflamingo models list") from error


def _gguf_name(name: str) -> str | None:
    """Return a vector's name in GGUF; None for what is not one of the language model's vectors."""
    if _NORM.fullmatch(name):
        return "output_norm.weight"
    match = _LAYER.fullmatch(name)
    return f"blk.{match[1]}.{_VECTORS[match[2]]}" if match and match[2] in _VECTORS else None


def _read(file: Path, start: int, count: int, kind: str) -> NDArray[np.float32]:
    """Return ``count`` numbers as float32, which holds each of these types exactly. Raises ModelError."""
    size = _BYTES[kind]
    if not 0 < count <= _LONGEST:
        raise ModelError(f"{file} is damaged", "get it again: musicflamingo models list")
    with file.open("rb") as stream:
        stream.seek(start)
        data = stream.read(count * size)
    if len(data) != count * size:
        raise ModelError(f"{file} is cut short", "get it again: musicflamingo models list")
    if kind == "BF16":  # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, "<f4" if kind == "F32" else "<f2").astype(np.float32)
