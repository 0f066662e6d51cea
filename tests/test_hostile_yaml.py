"""Settings and prompts files of others: one error, within a small memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_ALIASES = "[&a0 [x], " + ", ".join(f"&a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)) + "]"
_HOSTILE = {
    "aliases in prompts": f"presets: {{full: {{prompt: {_ALIASES}}}}}\n",
    "aliases in settings": f"model: {_ALIASES}\n",
    "merges": "m0: &m0 {a: 1, b: 2}\n"
    + "".join(f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}\n" for n in range(1, 10)),
    "digits": f"temperature: {'9' * 5000}\n",
    "hexadecimal": f"temperature: 0x{'f' * 5000}\npresets: {{full: {{max_tokens: 0x{'f' * 5000}}}}}\n",
    "large float": f"temperature: {'9' * 400}\n",
    "nested": "presets: " + "[" * 5000,
    "no date": "model: 2001-02-31\n",
    "long key": f"? {'k' * 100_000}\n: 1\n",
}
_READ = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (600 << 20,) * 2)
from musicflamingo_cli.config import load_settings
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.prompts import read_presets
for read in (read_presets, lambda file: load_settings({}, file)):
    try:
        read(Path(sys.argv[1]))
    except ConfigError as error:
        assert len(str(error)) < 3000, len(str(error))
        print("error")
"""


@pytest.mark.parametrize("kind", _HOSTILE)
def test_a_hostile_file_is_one_short_error(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(_HOSTILE[kind])
    done = subprocess.run([sys.executable, "-c", _READ, str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.split() == ["error", "error"]
