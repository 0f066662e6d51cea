"""What Tab offers in bash, zsh and fish, installed and used as a person does it; a shell that is absent is skipped."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from musicflamingo_cli.prompts import DATASET_FILE
from tests.fakes.screen import Screen
from tiny_flamingo import random_pair

SHELLS = ("bash", "zsh", "fish")
_CLEAR_LINE = "\x15"
# What is typed before Tab, and the whole of it afterwards.
COMPLETED = {
    "musicflamingo bat": "musicflamingo batch",
    "musicflamingo batch --preset instr": "musicflamingo batch --preset instrumentation",
    "musicflamingo batch 'my music' --preset own_": "musicflamingo batch 'my music' --preset own_question",
    "musicflamingo batch --engine nat": "musicflamingo batch --engine native",
    "musicflamingo caption --model IQ": "musicflamingo caption --model IQ3_M",
    "musicflamingo caption --model F": "musicflamingo caption --model F32",
    "musicflamingo models path F": "musicflamingo models path F32",
    "musicflamingo export audioc": "musicflamingo export audiocraft",
    "musicflamingo batch son": "musicflamingo batch songs/",
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home with models, and a folder with two datasets, one of which has presets of its own."""
    home, models, here = tmp_path / "home", tmp_path / "models", tmp_path / "here"
    for folder in (home, models, here / "songs", here / "my music"):
        folder.mkdir(parents=True)
    random_pair.write_random_pair(models)
    (here / "my music" / DATASET_FILE).write_text("presets:\n  own_question: What is the mood?\n")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    places = {"HOME": home, "XDG_CONFIG_HOME": home / ".config", "XDG_DATA_HOME": home / ".local"}
    variables = {**places, "PATH": path, "MUSICFLAMINGO_MODELS_DIR": models, "SHELL": "", "HISTFILE": ""}
    return {name: str(value) for name, value in variables.items()}


def install(shell: str, environment: dict[str, str]) -> None:
    """Type what the documentation says; `true` keeps the shell from replacing itself by the command."""
    line = "musicflamingo --install-completion; true"
    done = subprocess.run([shell, "-c", line], env={**os.environ, **environment}, capture_output=True, text=True)
    if shell == "fish":  # what it suggests in grey is not what Tab offers
        subprocess.run(
            ["fish", "-c", "set -U fish_autosuggestion_enabled 0"], env={**os.environ, **environment}, check=True
        )
    assert f"{shell} completion installed" in done.stdout, done


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
def test_tab_completes(shell: str, environment: dict[str, str], tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    install(shell, environment)
    with Screen([shell, "-i"], tmp_path / "here", 200, 60, environment) as screen:
        screen.wait_until(lambda: screen.text.rstrip()[-1:] in set("#$%>"), "there is a prompt", 30)
        screen.settle(1.0)
        if shell == "zsh":  # its first Tab only loads the completion, and beeps
            screen.type("musicflamingo b\t")
            screen.wait_until(lambda: b"\a" in screen.sent, "it has beeped", 30)
            screen.type(_CLEAR_LINE)
            screen.settle()
        for typed, completed in COMPLETED.items():
            screen.type(typed)
            screen.settle()
            screen.type("\t")
            screen.wait_for(completed, 30)
            screen.type(_CLEAR_LINE)
            screen.settle()
        screen.type("musicflamingo listen --model facebook/musicgen-me\t\t")
        screen.wait_until(lambda: all(word in screen.text for word in ("medium", "melody-large")), "all are listed", 30)


@pytest.mark.parametrize("shell", ["zsh", "bash"])
@pytest.mark.parametrize("file", ["--prompts mine.yaml", "--prompts=mine.yaml", "--config settings.yaml"])
def test_presets_of_a_named_file_are_offered(
    shell: str, file: str, environment: dict[str, str], tmp_path: Path
) -> None:
    here = tmp_path / "here"
    (here / "mine.yaml").write_text("presets:\n  mine: {prompt: Mine.}\n")
    (here / "settings.yaml").write_text(f"prompts: {here / 'mine.yaml'}\n")
    line = f"musicflamingo batch 'my music' {file} --preset "
    variables = {"_MUSICFLAMINGO_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": line}
    if shell == "bash":
        words = line.replace("=", " = ")
        number = str(len(shlex.split(words)))
        variables = {"_MUSICFLAMINGO_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": number}
    program = Path(sys.executable).parent / "musicflamingo"
    done = subprocess.run(
        [program], env={**os.environ, **environment, **variables}, cwd=here, capture_output=True, text=True
    )
    assert "mine" in done.stdout, done


def test_what_cannot_be_read_offers_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    """No traceback in the middle of a line."""
    (tmp_path / "here" / "my music" / DATASET_FILE).write_text("presets: [")
    (tmp_path / "home" / ".config" / "musicflamingo").mkdir(parents=True)
    (tmp_path / "home" / ".config" / "musicflamingo" / "config.yaml").write_text("sed: 1")
    for line in ("musicflamingo batch 'my music' --preset ", "musicflamingo caption --model "):
        variables = {"_MUSICFLAMINGO_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": line}
        done = subprocess.run(
            [Path(sys.executable).parent / "musicflamingo"],
            env={**os.environ, **environment, **variables},
            cwd=tmp_path / "here",
            capture_output=True,
            text=True,
        )
        assert done.stderr == ""
        assert "Traceback" not in done.stdout
        assert ("tiny" in done.stdout) is ("--model" in line)
