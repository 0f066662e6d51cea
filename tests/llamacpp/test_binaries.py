"""What the note of a build's version says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from musicflamingo_cli.llamacpp import binaries
from musicflamingo_cli.types import Windows
from tests.fakes.mtmd_cli import write_fake


@pytest.mark.parametrize(
    ("version", "windows"),
    [
        ("b11434-cpu-portable+output+windows", Windows.TRIMMED),
        ("b11434-cpu+windows", Windows.TRIMMED),
        ("b11434-cpu+output", Windows.PADDED),
        ("local-windows-cpu", Windows.PADDED),
        ("", Windows.PADDED),  # no note: not of our script, so the binary itself is asked
        ("Ubuntu 24.04+windows", Windows.PADDED),  # of another program
    ],
)
@pytest.mark.parametrize("name", ["VERSION.llama.cpp", "VERSION"])
def test_the_patches_in_a_build_say_how_it_treats_windows(
    tmp_path: Path, name: str, version: str, windows: Windows
) -> None:
    binary = write_fake(tmp_path / "bin", "answer") / "llama-mtmd-cli"
    if version:
        (tmp_path / name).write_text(f"{version}\n")
    assert binaries.windows(binary) == windows
