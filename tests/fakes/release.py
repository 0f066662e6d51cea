"""A git repository in the place of upstream's: the files of a test, and those that our patches change."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from musicflamingo_cli.paths import data_file

URL = "https://github.com/ggml-org/llama.cpp"
_HUNK = re.compile(r"@@ -(\d+),")


def fake_release(folder: Path, files: Mapping[str, str], tag: str, differs: str = "") -> Path:
    """Commit ``files`` and what the patches expect, under a tag. ``differs``: a file that is not as they expect it."""
    texts = dict(files)
    for patch in sorted(data_file("scripts", "build_llama_cpp.sh").parent.glob("patches/*.patch")):
        texts |= _before(patch.read_text())
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("other\n" if path.name == differs else text)
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "release"], ["tag", tag]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, "-C", str(folder), *command], check=True)
    return folder


def redirect(folder: Path) -> dict[str, str]:
    """Environment variables with which git takes the repository in ``folder`` for upstream's."""
    key = f"url.file://{folder}.insteadOf"
    return {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": key, "GIT_CONFIG_VALUE_0": URL}


def _before(patch: str) -> dict[str, str]:
    """The files that a patch changes, as it expects them: its own lines, at their places among empty ones."""
    files: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in patch[patch.index("--- a/") :].splitlines():
        if line.startswith("--- a/"):
            lines = files.setdefault(line.removeprefix("--- a/"), [])
        elif start := _HUNK.match(line):
            lines += [""] * (int(start[1]) - 1 - len(lines))
        elif line[:1] in (" ", "-"):
            lines.append(line[1:])
    return {name: "\n".join([*lines, ""]) for name, lines in files.items()}
