"""Every command line of the README is run, as it stands there."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from musicflamingo_cli.prompts import read_presets
from tests.conftest import MakeWav
from tests.fakes.mtmd_cli import write_fake
from tiny_flamingo import random_pair

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.split("  #")[0].strip() for block in BLOCKS for line in block.splitlines() if line]
DEFAULT = ("full", "technical", "genre_mood", "instrumentation", "structure")
# Run in tests of their own, or they download.
NOT_RUN = (
    "make demo",
    "make test",
    "pip install",
    "musicflamingo build",
    "musicflamingo models pull auto",
    "musicflamingo doctor",
)


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith(NOT_RUN) or "--dry-run" in c])
def test_the_commands_run(
    command: str, make_wav: MakeWav, tmp_path: Path, random_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wav("music/a.wav")
    captioned = make_wav("music/captioned.wav").with_suffix(".INFO")
    caption = "A calm piece with piano, in words enough."
    captioned.write_text(json.dumps({f"music_flamingo_{name}": caption for name in DEFAULT}))
    make_wav("song.wav").rename(tmp_path / "song.flac")
    shutil.copytree(tmp_path / "music", Path(os.environ["HOME"]) / "Music")
    shutil.copytree(random_models, tmp_path / "models")
    names = {random_pair.LANGUAGE_MODEL_NAME: "Q6_K", random_pair.PROJECTOR_NAME: "mmproj-f16"}
    for name, real in names.items():
        (tmp_path / "models" / name).rename(tmp_path / "models" / f"music-flamingo-hf.{real}.gguf")
    monkeypatch.setenv("MUSICFLAMINGO_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("MUSICFLAMINGO_LLAMA_DIR", str(write_fake(tmp_path / "llama", "answer")))
    words = shlex.split(command.replace("~", os.environ["HOME"]))
    assert words[0] == "musicflamingo"
    done = subprocess.run(
        [sys.executable, "-m", "musicflamingo_cli", *words[1:]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_the_prompts_example_is_right(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "prompts.yaml").write_text(example)
    assert set(read_presets(tmp_path / "prompts.yaml")) == {"full", "decade"}


def test_the_two_commands_are_in_the_makefile_and_the_gate_runs_one() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "\ndemo:" in makefile
    assert "\ntest:" in makefile
    assert "exec make test" in (ROOT / ".ci" / "run").read_text()


def test_every_file_that_it_links_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


@pytest.mark.real
def test_the_python_example_runs(
    make_wav: MakeWav, tmp_path: Path, random_models: Path, real_llama_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    for name in ("track", "a", "b"):
        make_wav("x.wav").rename(tmp_path / f"{name}.flac")
    (tmp_path / "models").mkdir()
    for name, quant in ((random_pair.LANGUAGE_MODEL_NAME, "Q6_K"), (random_pair.PROJECTOR_NAME, "mmproj-f16")):
        shutil.copy(random_models / name, tmp_path / "models" / f"music-flamingo-hf.{quant}.gguf")
    monkeypatch.setenv("MUSICFLAMINGO_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("MUSICFLAMINGO_LLAMA_DIR", str(real_llama_dir))
    # Short answers and one thread, since the tests beside this one use the others.
    limits = "".join(f"  {name}: {{prompt: 'Say {name}.', max_tokens: 12, default: true}}\n" for name in DEFAULT)
    (tmp_path / "prompts.yaml").write_text(f"presets:\n{limits}")
    (tmp_path / "config.yaml").write_text("threads: 1\nprompts: prompts.yaml\n")
    monkeypatch.setenv("MUSICFLAMINGO_CONFIG", str(tmp_path / "config.yaml"))
    code = f"{block}\n    print(sorted(captions), mood, answer)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *many, last = done.stdout.splitlines()
    assert {line.split()[0] for line in many} == {"a.flac", "b.flac"}
    assert last.startswith("['full', 'genre_mood', 'instrumentation', 'structure', 'technical']")
