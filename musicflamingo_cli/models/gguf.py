"""Metadata from a GGUF file's header, read in milliseconds.

The gguf package's reader maps the whole file and builds an array for each of a vocabulary's 300 000 strings,
seconds of work before every caption. This one reads numbers and strings, and skips arrays.
Format: docs/gguf.md of the ggml project (version 3; 2 differs in nothing read here).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from musicflamingo_cli.errors import ModelError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
# More than these means that the file is damaged, or claims what it does not hold (a sparse file).
_MAX_LENGTH = 1 << 24  # of a string or an array
_MAX_HEADER = 1 << 25  # bytes; a vocabulary of 300 000 tokens with its merges takes 15 MB
_MAX_ENTRIES = 1 << 16  # of metadata, or tensors
_MAX_DIMENSIONS = 8
_MAX_ALIGNMENT = 1 << 20


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where a tensor is in its file. ``kind``: GGUF's number of its type; ``start``: in bytes."""

    kind: int
    shape: tuple[int, ...]
    start: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """A GGUF file's metadata without its arrays, and where its tensors are."""

    path: Path
    values: dict[str, Any]
    tensors: dict[str, TensorPlace] = field(default_factory=dict, repr=False)

    @property
    def architecture(self) -> str:
        """llama.cpp's name for the kind of model; `clip` for a projector."""
        return str(self.values.get("general.architecture", ""))

    @property
    def is_projector(self) -> bool:
        """Whether it is a projector (mmproj), not a language model."""
        return self.architecture == "clip"

    @property
    def context_length(self) -> int:
        """The model's context in tokens."""
        return self._count("context_length")

    @property
    def embedding_length(self) -> int:
        """The width of a language model's input vectors, or of a projector's output vectors."""
        key = "clip.audio.projection_dim" if self.is_projector else f"{self.architecture}.embedding_length"
        return self._whole(key)

    @property
    def projector_type(self) -> str:
        """llama.cpp's name for the kind of projector: `musicflamingo`; with several encoders, that of the audio one."""
        return str(self.values.get("clip.audio.projector_type") or self.values.get("clip.projector_type", ""))

    @property
    def kv_bytes_per_token(self) -> int:
        """The memory of a token of context at f16, in bytes: a key and a value in each layer for each KV head.

        Qwen2.5-7B: 28 layers x 4 heads x 128 x 2 x 2 bytes = 56 KiB.
        """
        heads = self._count("attention.head_count")
        width = self.embedding_length // heads if heads else 0
        key, value = self._count("attention.key_length") or width, self._count("attention.value_length") or width
        return self._count("block_count") * (self._count("attention.head_count_kv") or heads) * (key + value) * 2

    def _count(self, name: str) -> int:
        return self._whole(f"{self.architecture}.{name}")

    def _whole(self, key: str) -> int:
        value = self.values.get(key, 0)
        return value if isinstance(value, int) else 0

    @property
    def is_tiny(self) -> bool:
        """Whether it is the tiny model, made for first looks and tests, which knows no real music."""
        return bool(self.values.get("musicflamingo.toy", False))  # the name in files that exist


def read_header(path: Path) -> GgufHeader:
    """Return the header of a GGUF file. Raises ModelError for a missing, foreign or truncated file."""
    try:
        if path.exists() and not path.is_file():  # a pipe would block
            raise ModelError(f"{path} is not a file", "see: musicflamingo models list")
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(f"{path.name} is not a GGUF file", "download it again: musicflamingo models list")
            version, tensors, count = _unpack(file, "<IQQ")
            if version not in (2, 3):
                raise ModelError(f"{path.name} is GGUF version {version}; 2 and 3 are supported", "convert it again")
            values: dict[str, Any] = {}
            for _ in range(_checked(count, _MAX_ENTRIES)):
                key = _read_string(file)
                (kind,) = _unpack(file, "<I")
                if (value := _read_value(file, kind)) is not None:
                    values[key] = value
            places = _tensor_places(file, tensors, values.get("general.alignment", 32))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", "see: musicflamingo models list") from error
    except (struct.error, ValueError, KeyError, OverflowError) as error:
        raise ModelError(f"{path.name} is damaged or cut short", "delete it and download it again") from error
    return GgufHeader(path, values, places)


def _tensor_places(file: BinaryIO, count: int, alignment: Any) -> dict[str, TensorPlace]:
    """Return where each tensor is. Raises ValueError unless the file reaches at least to where its last one begins."""
    if not isinstance(alignment, int) or not 0 < alignment <= _MAX_ALIGNMENT:
        raise ValueError("not an alignment")
    found: list[tuple[str, int, tuple[int, ...], int]] = []
    for _ in range(_checked(count, _MAX_ENTRIES)):
        name = _read_string(file)
        (dimensions,) = _unpack(file, "<I")
        *shape, kind, offset = _unpack(file, f"<{_checked(dimensions, _MAX_DIMENSIONS)}QIQ")
        found.append((name, kind, tuple(shape), offset))
    start = -(-file.tell() // alignment) * alignment
    if count and file.seek(0, 2) <= start + max(offset for *_, offset in found):
        raise ValueError("cut short")
    return {name: TensorPlace(kind, shape, start + offset) for name, kind, shape, offset in found}


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    if file.tell() > _MAX_HEADER:
        raise ValueError("not a header")
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _read_string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "<Q")
    data = file.read(_checked(length))
    if len(data) != length:
        raise ValueError("cut short")
    return data.decode("utf-8")


def _read_value(file: BinaryIO, kind: int) -> Any:
    """Return the value; None for an array, which is skipped."""
    if kind == _STRING:
        return _read_string(file)
    if kind != _ARRAY:
        return _unpack(file, "<" + _SCALARS[kind])[0]
    (element,), (length,) = _unpack(file, "<I"), _unpack(file, "<Q")
    if element == _STRING:
        for _ in range(_checked(length)):
            (size,) = _unpack(file, "<Q")
            file.seek(_checked(size), 1)
    else:
        file.seek(_checked(length) * struct.calcsize("<" + _SCALARS[element]), 1)
    return None


def _checked(length: int, most: int = _MAX_LENGTH) -> int:
    if length > most:
        raise ValueError("not a length")
    return length
