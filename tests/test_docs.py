"""Checks of README.md and docs/: every command and example runs, every link leads somewhere."""

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
README = ROOT / "README.md"
GENERATED = ROOT / "docs" / "cli.md"  # by `make docs`; other tests check it
PAGES = [README, *sorted(page for page in (ROOT / "docs").glob("*.md") if page != GENERATED)]
LINKING = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("models/**/README.md")]
DEFAULT = ("full", "technical", "genre_mood", "instrumentation", "structure")
# These run in tests of their own, or they download.
NOT_RUN = (
    "musicflamingo review",
    "musicflamingo demo &&",
    "musicflamingo build",
    "musicflamingo models pull",
    "musicflamingo doctor",
    "musicflamingo finetune",
    "musicflamingo listen",
)
OTHER_COMMANDS = (
    "python train.py",
    "make demo",
    "podman ",
    "make review",
    "make test",
    "pip install",
    "CMAKE_ARGS=-DLLAMA_BUILD=OFF pip install",
)


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def _command_lines() -> list[str]:
    """Return each different line of the bash blocks, without its comment."""
    lines = [line for page in PAGES for block in _blocks(page, "bash") for line in block.splitlines() if line]
    return list(dict.fromkeys(line.split("  #")[0].strip() for line in lines))


def _is_run(command: str) -> bool:
    if "--lora" in command or "+mine" in command:  # tests/finetuning has an adapter
        return False
    return command.startswith("musicflamingo ") and (not command.startswith(NOT_RUN) or "--dry-run" in command)


def _install_models(source: Path, folder: Path) -> None:
    """Copy the random pair under the names of the real model, in two quants."""
    folder.mkdir()
    for quant in ("Q6_K", "IQ3_M"):
        shutil.copy(source / random_pair.LANGUAGE_MODEL_NAME, folder / f"music-flamingo-hf.{quant}.gguf")
    shutil.copy(source / random_pair.PROJECTOR_NAME, folder / "music-flamingo-hf.mmproj-f16.gguf")


@pytest.mark.parametrize("command", [command for command in _command_lines() if _is_run(command)])
def test_the_commands_run(
    command: str, make_wav: MakeWav, tmp_path: Path, random_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wav("music/a.wav")
    captioned = make_wav("music/captioned.wav").with_suffix(".INFO")
    caption = "A calm and slow piece in C major for solo piano."
    segments = [{"start": 0, "end": 1, "captions": dict.fromkeys(DEFAULT, caption)}]
    captions = {f"music_flamingo_{name}": caption for name in DEFAULT}
    captioned.write_text(json.dumps({**captions, "music_flamingo_segments": segments}))
    for name in ("song", "other"):
        make_wav("x.wav").rename(tmp_path / f"{name}.flac")
    shutil.copytree(tmp_path / "music", Path(os.environ["HOME"]) / "Music")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "master_pipeline.yaml").write_text(
        "music_flamingo: {prompts: {full: true, mood: Which mood}}"
    )
    _install_models(random_models, tmp_path / "models")
    monkeypatch.setenv("MUSICFLAMINGO_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("MUSICFLAMINGO_LLAMA_DIR", str(write_fake(tmp_path / "llama", "answer")))
    words = shlex.split(command.replace("~", os.environ["HOME"]))
    done = subprocess.run(
        [sys.executable, "-m", "musicflamingo_cli", *words[1:]],
        cwd=tmp_path,
        input="Which key is it in?\n",  # `chat` without --ask reads questions
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [each for each in _command_lines() if each.startswith("musicflamingo listen")])
def test_the_commands_of_listen_run(
    command: str, make_wav: MakeWav, tmp_path: Path, random_models: Path, generators: Path
) -> None:
    _install_models(random_models, tmp_path / "models")
    (tmp_path / "models" / "facebook--musicgen-small").symlink_to(generators / "mono")
    home = Path(os.environ["HOME"])
    captions = {f"music_flamingo_{name}": "A calm and slow piece in C major for solo piano." for name in DEFAULT}
    (home / "Music").mkdir()
    make_wav("x.wav").rename(home / "Music" / "song.flac")
    (home / "Music" / "song.INFO").write_text(json.dumps(captions))
    words = [*shlex.split(command.replace("~", str(home))), "--seconds", "6"]  # the last one counts
    places = ["--models-dir", str(tmp_path / "models"), "--llama-dir", str(write_fake(tmp_path / "llama", "answer"))]
    done = subprocess.run(
        [sys.executable, "-m", "musicflamingo_cli", *words[1:], *places], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "listened" / "listen.html").is_file()


def test_other_commands_are_known() -> None:
    others = [command for command in _command_lines() if not command.startswith("musicflamingo ")]
    assert [command for command in others if not command.startswith(OTHER_COMMANDS)] == []


def test_quoted_benchmarks_exist() -> None:
    quoted = {name for page in PAGES for name in re.findall(r"benchmarks/\w+\.py", page.read_text(encoding="utf-8"))}
    assert quoted
    assert [name for name in sorted(quoted) if not (ROOT / name).is_file()] == []


def test_the_prompts_example_is_valid(tmp_path: Path) -> None:
    names = []
    for example in _blocks(ROOT / "docs" / "prompts.md", "yaml"):
        (tmp_path / "prompts.yaml").write_text(example)
        names.append(set(read_presets(tmp_path / "prompts.yaml")))
    assert names == [{"full", "decade"}, {"voice"}]


def test_the_two_commands_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "\ndemo:" in makefile
    assert "\ntest:" in makefile
    assert " make test " in (ROOT / ".ci" / "run").read_text()


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_index_and_the_readme_link_to_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {page.name for page in PAGES if page.parent.name == "docs"} - {"README.md"} | {GENERATED.name}
    assert {name for name in pages if f"]({name})" not in index} == set()
    assert {name for name in pages if f"](docs/{name})" not in README.read_text(encoding="utf-8")} == set()


@pytest.mark.real
@pytest.mark.parametrize("page", [README, ROOT / "docs" / "python.md"], ids=lambda page: page.name)
def test_the_python_example_runs(
    page: Path,
    make_wav: MakeWav,
    tmp_path: Path,
    random_models: Path,
    real_llama_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    block = _blocks(page, "python")[0]
    for name in ("track", "a", "b"):
        make_wav("x.wav").rename(tmp_path / f"{name}.flac")
    _install_models(random_models, tmp_path / "models")
    monkeypatch.setenv("MUSICFLAMINGO_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("MUSICFLAMINGO_LLAMA_DIR", str(real_llama_dir))
    # Short answers and one thread, since other tests run at the same time.
    limits = "".join(
        f"  {name}: {{prompt: 'Say {name}.', max_tokens: 12, min_words: 1, default: true}}\n" for name in DEFAULT
    )
    (tmp_path / "prompts.yaml").write_text(f"presets:\n{limits}")
    (tmp_path / "config.yaml").write_text("threads: 1\nprompts: prompts.yaml\n")
    monkeypatch.setenv("MUSICFLAMINGO_CONFIG", str(tmp_path / "config.yaml"))
    code = f"{block}\n    print(sorted(captions), mood, answer)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *many, last = done.stdout.splitlines()
    assert {line.split()[0] for line in many} == ({"a.flac", "b.flac"} if "analyze_many" in block else set())
    assert last.startswith("['full', 'genre_mood', 'instrumentation', 'structure', 'technical']")


def test_the_command_reference_is_up_to_date() -> None:
    script = ROOT / "docs" / "command_reference.py"
    printed = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True).stdout
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == printed, "write it again with: make docs"
