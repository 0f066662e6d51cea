"""A machine without compiler, GPU, model or llama.cpp: following nothing but the messages leads to a captioned file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from musicflamingo_cli.models.catalog import load_catalog
from tests.conftest import MakeWav
from tests.fakes.hub import Hub
from tests.models.test_pull import PLAIN

pytestmark = pytest.mark.slow

# As if the wheel xllamacpp were not installed.
WITHOUT_WHEEL = """
import importlib.abc, sys
class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "xllamacpp":
            raise ModuleNotFoundError(name)
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "xllamacpp" else find_spec(name, package)
"""


class Machine:
    """A home, a PATH with a shell and nothing more, and a hub."""

    def __init__(self, home: Path, hub: Hub) -> None:
        self.home = home
        self.hub = hub
        (home / "bin").mkdir(parents=True)
        for tool in ("bash", "sh", "cat", "dirname", "uname", "getconf", "sed", "awk", "sort", "paste", "grep", "tr"):
            (home / "bin" / tool).symlink_to(str(shutil.which(tool)))
        (home / "hidden").mkdir()
        (home / "hidden" / "sitecustomize.py").write_text(WITHOUT_WHEEL)

    def type(self, line: str, *words: object) -> subprocess.CompletedProcess[str]:
        environment = {
            "HOME": str(self.home),
            "PATH": str(self.home / "bin"),
            "PYTHONPATH": str(self.home / "hidden"),
            "CUDA_HOME": "/nowhere",
            "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
            **self.hub.environment(self.home / "hf"),
        }
        command = [sys.executable, "-m", "musicflamingo_cli", *line.split()[1:], *map(str, words)]
        return subprocess.run(command, env=environment, cwd=self.home, capture_output=True, text=True, timeout=120)

    def install_wheel(self) -> None:
        (self.home / "hidden" / "sitecustomize.py").unlink()


@pytest.fixture
def machine(tmp_path: Path, random_models: Path) -> Machine:
    model, mmproj = (next(random_models.glob(pattern)).read_bytes() for pattern in ("*F32.gguf", "*mmproj*.gguf"))
    published = {f"music-flamingo-hf.{quant.name}.gguf": model for quant in load_catalog().quants}
    return Machine(tmp_path / "home", Hub({PLAIN: {**published, "music-flamingo-hf.mmproj-f16.gguf": mmproj}}))


def test_every_message_leads_one_step_further(machine: Machine, make_wav: MakeWav) -> None:
    song = make_wav("song.wav")
    models = ("--models-dir", machine.home / "models")  # in place of the checkout's own folder
    with machine.hub:
        without_model = machine.type("musicflamingo caption", song, *models)
        assert (without_model.returncode, "musicflamingo models pull auto" in without_model.stderr) == (4, True), (
            without_model.stderr
        )
        pulled = machine.type("musicflamingo models pull auto", *models)
        assert pulled.returncode == 0, pulled.stderr
        assert "GB are free" in pulled.stderr
        toolless = machine.type("musicflamingo caption", song, *models)
        assert toolless.returncode == 3
        assert "musicflamingo build" in toolless.stderr
        assert "pip install xllamacpp" in toolless.stderr
        built = machine.type("musicflamingo build")
        assert built.returncode == 3
        assert "cmake is not installed" in built.stderr
        asked = machine.type("musicflamingo doctor", *models)
        assert asked.returncode == 3
        assert "pip install xllamacpp" in asked.stdout
        machine.install_wheel()
        assert machine.type("musicflamingo doctor", *models, "--threads", 1).returncode == 0
        done = machine.type("musicflamingo caption", song, "--save", "--threads", 1, *models)
    assert done.returncode == 0, done.stderr
    assert song.with_suffix(".INFO").is_file()


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("musicflamingo batch .", 0, "0 tracks"),
        ("musicflamingo demo", 3, "pip install"),
        ("musicflamingo models list", 0, "models pull"),
        ("musicflamingo models check", 4, "models pull auto"),
        ("musicflamingo models path Q6_K", 4, "models pull Q6_K"),
        ("musicflamingo models remove Q6_K", 4, "models pull Q6_K"),
        ("musicflamingo build --backend hip", 3, "cmake is not installed"),
        ("musicflamingo prompts list", 0, ""),
    ],
)
def test_every_command_on_an_empty_machine(machine: Machine, line: str, code: int, said: str) -> None:
    place = () if "prompts" in line or "build" in line else ("--models-dir", machine.home / "models")
    done = machine.type(line, *place)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
