"""Starting costs little: nothing heavy is imported before it is needed, and the time stays near bare Typer's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("numpy", "soundfile", "soxr", "av", "gguf", "huggingface_hub", "mutagen", "yaml", "filelock", "tqdm")
BARE = """
import typer
app = typer.Typer()
@app.callback(invoke_without_command=True)
def main(version: bool = False, name: str = typer.Option("x", help="A name.", rich_help_panel="Panel")) -> None:
    "A bare program."
    if version: print("1"); raise typer.Exit
@app.command()
def one(): "First."
@app.command()
def two(): "Second."
app()
"""


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["batch", "--help"], ["prompts", "path"]])
def test_nothing_heavy_is_imported_before_it_is_needed(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom musicflamingo_cli.__main__ import main\n"
        f"sys.argv = ['musicflamingo', *{arguments!r}]\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize(("argument", "ratio"), [("--version", 1.5), ("--help", 1.3)])
def test_starting_costs_little_more_than_bare_typer(tmp_path: Path, argument: str, ratio: float) -> None:
    """Processor time, the best of many runs taken in turns: other work on the machine must not decide this."""
    bare = tmp_path / "bare.py"
    bare.write_text(BARE)
    ours, theirs = [sys.executable, "-m", "musicflamingo_cli", argument], [sys.executable, str(bare), argument]
    best = {"ours": 9.0, "bare": 9.0}
    for _ in range(20):
        for name, command in (("ours", ours), ("bare", theirs)):
            best[name] = min(best[name], processor_seconds(command))
    print(f"{argument}: {best['ours']:.3f} s, bare Typer {best['bare']:.3f} s, ratio {best['ours'] / best['bare']:.2f}")
    assert best["ours"] <= ratio * best["bare"]


def processor_seconds(command: list[str]) -> float:
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    return used.ru_utime + used.ru_stime
