"""Starting costs little: nothing heavy is imported before it is needed. benchmarks/overhead.py measures the time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

THIRD_PARTY = ("numpy", "soundfile", "soxr", "av", "gguf", "huggingface_hub", "mutagen", "yaml", "filelock", "tqdm")
OURS = ("types", "config", "prompts", "captioning.captioner", "models.resolve", "engines", "cli.console")


def imported(arguments: list[str], names: tuple[str, ...]) -> str:
    """Run the command line in a new process; return which of the modules it has imported at its end."""
    code = (
        "import gc, sys\nbefore = gc.get_threshold()\nfrom musicflamingo_cli.__main__ import main\n"
        f"sys.argv = ['musicflamingo', *{arguments!r}]\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert gc.get_threshold() == before, 'the collector must run as usual after start-up'\n"
        f"print('HEAVY', [name for name in {names!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["batch", "--help"], ["prompts", "path"]])
def test_nothing_heavy_is_imported_before_it_is_needed(arguments: list[str]) -> None:
    assert imported(arguments, THIRD_PARTY) == "HEAVY []"


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_the_command_line_alone_imports_little_of_ours(argument: str) -> None:
    assert imported([argument], tuple(f"musicflamingo_cli.{name}" for name in OURS)) == "HEAVY []"


@pytest.mark.parametrize(
    ("arguments", "package", "extra"),
    [
        (["serve"], "starlette", "serve"),
        (["serve"], "python_multipart", "serve"),
        (["batch", ".", "--ray"], "ray", "ray"),
        (["batch", "s3://bucket/music"], "fsspec", "stores"),
        (["batch", "s3://bucket/music"], "s3fs", "stores"),
        (["listen", "a.wav", "--out", "x"], "transformers", "transformers"),
    ],
)
@pytest.mark.parametrize("model", ["tiny", "Q6_K"])  # one that is missing, too: the extra first, then a download
def test_a_missing_extra_is_one_message(
    arguments: list[str], package: str, extra: str, model: str, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").touch()
    code = (
        "import importlib.util, sys; find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *more: None if name == {package!r} else find(name, *more)\n"
        f"sys.argv = ['musicflamingo', *{arguments!r}, '--model', {model!r}]\n"
        "from musicflamingo_cli.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 3
    assert f"pip install 'musicflamingo[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
