"""musicflamingo_cli.imported_prompts: the YAML of the MIR feature pipeline."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.imported_prompts import as_yaml, import_presets, others_off
from musicflamingo_cli.paths import built_in_prompts
from musicflamingo_cli.prompts import choose, load_presets, read_presets

TEXTS = """
paths: {input: null}
music_flamingo:
  enabled: true
  model: Q8_0
  prompts:
    brief: "Describe   it briefly.\\n{metadata}"
    Genre-Mood: Name the genre, then the mood.
    technical: false
  max_tokens: {brief: 60, technical: 90}
"""
FLAGS = "music_flamingo: {prompts: {full: true, technical: false}, max_tokens: {full: 400}}"


def write(folder: Path, text: str) -> Path:
    file = folder / "master_pipeline.yaml"
    file.write_text(text)
    return file


def test_texts_and_limits_are_taken(tmp_path: Path) -> None:
    brief, mood, technical = import_presets(write(tmp_path, TEXTS))
    assert (brief.name, brief.prompt, brief.max_tokens) == ("brief", "Describe it briefly. {metadata}", 60)
    assert (mood.name, mood.default, mood.max_tokens) == ("genre_mood", True, 300)
    assert (technical.default, technical.max_tokens) == (False, 90)


def test_true_and_false_choose_built_in_presets(tmp_path: Path) -> None:
    full, technical = import_presets(write(tmp_path, FLAGS))
    assert (full.default, full.max_tokens, technical.default) == (True, 400, False)
    assert full.prompt.startswith("Describe this track in full detail")


def test_a_file_of_prompts_alone_is_read(tmp_path: Path) -> None:
    assert [preset.name for preset in import_presets(write(tmp_path, "flamingo_prompts: {mood: Which mood}"))] == [
        "mood"
    ]


@pytest.mark.parametrize("text", [TEXTS, FLAGS])
def test_what_is_written_reads_back(tmp_path: Path, text: str) -> None:
    presets = import_presets(write(tmp_path, text))
    own = tmp_path / "prompts.yaml"
    own.write_text(as_yaml(presets, Path("master_pipeline.yaml")))
    assert read_presets(own) == {preset.name: preset for preset in presets}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("paths: {input: null}", "has no `music_flamingo:` with `prompts:`"),
        ("- a list", "has no `music_flamingo:`"),
        ("music_flamingo: {prompts: {}}", "has no `music_flamingo:`"),
        ("music_flamingo: {prompts: {mine: true}}", "no built-in preset has this name"),
        ("music_flamingo: {prompts: {mine: [1]}}", "must be a text, true or false"),
        ("music_flamingo: {prompts: {mine: x}, max_tokens: {mine: many}}", "must be a whole number"),
        ("music_flamingo: {prompts: {a-b: x, a_b: y}}", "two prompts are named a_b"),
        ("music_flamingo: {prompts: {mine: 'in {nothing}'}}", "unknown name"),
        ("presets: {full: x}", "is a presets file already"),
        ("music_flamingo: [", "cannot be read as YAML"),
    ],
)
def test_what_cannot_be_imported_is_one_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")) as caught:
        import_presets(write(tmp_path, text))
    assert "prompts check" not in caught.value.hint, "the pipeline's file is no presets file"


def test_only_what_the_pipeline_asks_is_asked(tmp_path: Path) -> None:
    presets = import_presets(write(tmp_path, FLAGS))
    own = tmp_path / "own.yaml"
    own.write_text(as_yaml([*presets, *others_off(presets)], Path("master_pipeline.yaml")))
    assert [preset.name for preset in choose(load_presets([built_in_prompts(), own]), [])] == ["full"]


def test_the_command_writes_a_file_that_is_in_force(tmp_path: Path) -> None:
    pipeline = write(tmp_path, TEXTS)

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "musicflamingo_cli", "prompts", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)

    done = run("import", pipeline, "--dataset", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["presets"] == ["brief", "genre_mood", "technical"]
    assert run("show", "genre_mood").stdout.strip() == "Name the genre, then the mood."
    again = run("import", pipeline, "--dataset", tmp_path)
    assert (again.returncode, "exists already" in again.stderr) == (2, True)
