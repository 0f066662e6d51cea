"""GGUF files that claim what cannot be: each is one error, quickly, with little memory."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from musicflamingo_cli.errors import ModelError
from musicflamingo_cli.models.gguf import read_header

_NAME = "music-flamingo-hf.Q6_K.gguf"


def entry(key: str, kind: int, data: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + data


def header(tensors: int, *entries: bytes, count: int | None = None) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, len(entries) if count is None else count) + b"".join(entries)


_HOSTILE = {
    "alignment 0": (header(1, entry("general.alignment", 4, bytes(4))) + bytes(64), 0),
    "alignment of text": (header(1, entry("general.alignment", 8, struct.pack("<Q", 1) + b"x")) + bytes(64), 0),
    "infinite alignment": (header(0, entry("general.alignment", 6, struct.pack("<f", float("inf")))), 0),
    "metadata without end": (header(0, count=1 << 24), 1 << 33),
    "tensors without end": (header(1 << 24), 1 << 33),
    "strings without end": (header(0, *[entry("a", 9, struct.pack("<IQ", 8, 1 << 24))], count=1 << 12), 1 << 33),
    "dimensions without end": (header(1) + struct.pack("<QI", 0, 1 << 24), 1 << 33),
}


def write(path: Path, kind: str) -> None:
    data, size = _HOSTILE[kind]
    path.write_bytes(data)
    if size:
        os.truncate(path, size)  # sparse: it takes no space


@pytest.mark.parametrize("kind", _HOSTILE)
def test_a_hostile_header_is_one_error(tmp_path: Path, kind: str) -> None:
    write(tmp_path / _NAME, kind)
    started = time.process_time()
    with pytest.raises(ModelError, match="damaged"):
        read_header(tmp_path / _NAME)
    assert time.process_time() - started < 8


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / _NAME)
    with pytest.raises(ModelError, match="not a file"):
        read_header(tmp_path / _NAME)


def test_values_of_wrong_types_count_as_missing(tmp_path: Path) -> None:
    text = struct.pack("<Q", 1) + b"x"
    values = [entry("general.architecture", 8, text), entry("x.context_length", 8, text)]
    (tmp_path / _NAME).write_bytes(header(0, *values, entry("x.embedding_length", 6, struct.pack("<f", float("nan")))))
    found = read_header(tmp_path / _NAME)
    assert (found.context_length, found.embedding_length, found.kv_bytes_per_token) == (0, 0, 0)


@pytest.mark.parametrize("command", [["models", "list"], ["doctor"]])
@pytest.mark.parametrize("kind", ["alignment 0", "dimensions without end"])
def test_commands_survive_a_hostile_model(tmp_path: Path, command: list[str], kind: str) -> None:
    # `doctor` reads a model that its name says is ours, `models list` one of another name.
    for name in (_NAME, "music-flamingo-hf.mmproj-f16.gguf", "other.Q8_0.gguf"):
        write(tmp_path / name, kind)
    environment = {**os.environ, "MUSICFLAMINGO_MODELS_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "musicflamingo_cli", *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr
    assert done.stdout
