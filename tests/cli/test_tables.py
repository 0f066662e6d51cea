"""Tables of doctor, status, models, check and prompts: in a terminal, in a pipe, without colours and symbols."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.cells import cell_len

from musicflamingo_cli.captioning.status import Status
from musicflamingo_cli.cli.status_table import _facts, _todo
from musicflamingo_cli.cli.symbols import ASCII, UNICODE, WORDS
from musicflamingo_cli.cli.tables import Sign, fitting, marked, sign_text
from musicflamingo_cli.doctor.checks import NOT_INSTALLED, Check
from tests.conftest import MakeWav
from tests.fakes.screen import Screen
from tests.trust.test_check import write_track

COMMAND = (sys.executable, "-m", "musicflamingo_cli")


def shown(arguments: Sequence[object], cwd: Path, columns: int, environment: dict[str, str] | None = None) -> list[str]:
    """The lines of a command in a terminal."""
    with Screen([*COMMAND, *arguments], cwd, columns, 60, environment) as screen:
        screen.wait_for_end()
        return screen.lines


def piped(*arguments: object) -> list[str]:
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.fixture
def dataset(make_wav: MakeWav, tmp_path: Path) -> Path:
    write_track(make_wav("a [live].wav"), music_flamingo_full="It runs at 131 BPM in E minor.")
    write_track(make_wav("b.wav"), music_flamingo_full="It runs at 95 BPM in E minor.")
    return tmp_path


def test_a_sign_is_a_symbol_and_a_colour() -> None:
    for symbols, texts in ((UNICODE, "✓ ! ✗ -"), (ASCII, "ok ! x -"), (WORDS, "ok warning failure absent")):
        assert [str(sign_text(sign, symbols)) for sign in Sign] == texts.split()
    assert len({sign_text(sign, UNICODE).style for sign in Sign}) == len(Sign)
    assert str(marked(Sign.WARNING, "too large", UNICODE)) == "! too large"
    assert str(marked(Sign.WARNING, "too large", WORDS)) == "too large"


def test_columns_without_room_are_left_out_from_the_end() -> None:
    columns = {"name": ["日本", "b"], "size": ["1 GB", "10 GB"], "remark": ["x", ""]}
    assert list(fitting(columns, 4 + 2 + 5 + 2 + 6)) == ["name", "size", "remark"]
    assert list(fitting(columns, 4 + 2 + 5 + 2 + 5)) == ["name", "size"]
    assert list(fitting(columns, 1)) == ["name"]


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_models_fit_any_terminal(columns: int, tmp_path: Path) -> None:
    lines = shown(["-q", "models", "list", "--models-dir", tmp_path], tmp_path, columns)
    assert any(line.startswith("-  nvidia/music-flamingo-think-2601-hf  ") for line in lines), lines
    assert any(line.split()[:3] == ["name", "size", "needs"] for line in lines)
    assert ("licence" in "".join(lines)) is (columns == 200)
    assert all(" GB" in line for line in lines if line.startswith("-"))


def test_models_in_a_pipe_are_a_line_each(tmp_path: Path) -> None:
    lines = piped("models", "list", "--models-dir", tmp_path)
    assert all(line.endswith("  not installed") and " needs " in line for line in lines)
    assert any(line.startswith("facebook/musicgen-small ") and "  CC-BY-NC-4.0  " in line for line in lines)


def test_a_doubtful_track_has_a_sign_and_its_whole_name(dataset: Path) -> None:
    lines = shown(["check", dataset, "--all"], dataset, 100)
    assert any(line.startswith("✗   0.") and "  a [live].wav  " in line for line in lines), lines
    assert any(line.startswith("✓   1.00  b.wav") for line in lines), lines
    assert any(line.startswith("failure  0.") and "  a [live].wav  full: " in line for line in piped("check", dataset))


def test_status_has_a_line_a_preset(dataset: Path) -> None:
    presets = ["--preset", "full", "--preset", "brief", "--model", "tiny"]
    lines = shown(["status", dataset, *presets], dataset, 60)
    assert "captions  2 tracks: 0 complete, 0 without any caption" in lines
    heads = next(line.split() for line in lines if line.startswith("preset"))
    assert heads == ["preset", "captioned", "missing", "outdated"]
    assert any(line.split() == ["brief", "0", "2", "0", "!", "incomplete"] for line in lines), lines
    assert "brief  0 captioned, 2 missing, 0 outdated" in piped("status", dataset, *presets)


def test_status_shows_segments_and_what_failed() -> None:
    status = Status(tracks=2, complete=2, segmented=1, segments=3, segments_complete=2, failed=1, checked=1)
    facts = {name: str(text) for name, text in _facts(status, UNICODE)}
    assert facts["captions"].startswith("✓ 2 tracks")
    assert facts["segments"] == "2 of 3 complete, in 1 tracks"
    assert facts["trust"] == "✓ 1 checked, 0 with a contradiction"
    assert [str(text) for _, text in _todo(status, "'my music'", UNICODE)] == [
        "✗ 1 failed in the last run",
        "→ retry: musicflamingo batch 'my music' --retry-failed",
    ]


@pytest.mark.parametrize(
    ("links", "line"),
    [(0, "5 files skipped"), (2, "5 files skipped, 2 of them links that lead out of the dataset")],
)
def test_status_says_how_many_links_are_not_followed(links: int, line: str) -> None:
    todo = _todo(Status(skipped=5, links_out=links), "music", UNICODE)
    assert [(name, str(text)) for name, text in todo] == [("skipped", line)]


def test_prompts_show_is_a_table_and_in_a_pipe_the_text(tmp_path: Path) -> None:
    lines = shown(["prompts", "show", "brief"], tmp_path, 60)
    assert lines[:3] == ["preset  brief", "asked   with --preset brief", "answer  at most 100 tokens"]
    (text,) = piped("prompts", "show", "brief")
    assert " ".join(line[8:] for line in lines if line[:8] in ("prompt  ", " " * 8)) == text
    origins = [line for line in shown(["prompts", "list"], tmp_path, 60) if "/" in line]
    assert origins
    assert all(line.endswith("/prompts.yaml") and cell_len(line) <= 60 for line in origins)


@pytest.mark.parametrize(
    ("environment", "more", "sign"),
    [({}, [], "✓"), ({"NO_COLOR": "1"}, [], "✓"), ({"PYTHONIOENCODING": "ascii"}, [], "ok"), ({}, ["--plain"], "ok")],
)
def test_doctor_says_what_is_absent(
    environment: dict[str, str], more: list[str], sign: str, tmp_path: Path, random_models: Path
) -> None:
    command = [*COMMAND, "doctor", "--no-hearing", "--models-dir", random_models, "--model", "F32", *more]
    with Screen(command, tmp_path, 100, 60, environment) as screen:
        screen.wait_for_end()
        lines = screen.lines
        is_coloured = b"\x1b[3" in screen.sent
    assert ["FFmpeg", sign] in [line.split()[1::-1] for line in lines]
    assert any("result  " in line and "warning" in line for line in lines)
    assert is_coloured is not ("NO_COLOR" in environment or bool(more))


def test_optional_parts_are_called_so_and_json_is_as_before() -> None:
    missing = Check.optional("transformers", "not available: torch is not installed", "pip install torch")
    assert (missing.shown, missing.detail) == (NOT_INSTALLED, "not available: torch is not installed")
    broken = Check.optional("native", "not available: x 1 is installed, 2 is needed")
    assert broken.shown == "not usable (optional): x 1 is installed, 2 is needed"
    assert Check.ok("transformers", "5.0; bitsandbytes not installed").shown.endswith(f"bitsandbytes {NOT_INSTALLED}")
    assert Check.failure("model", "it is not installed", "pull it").shown == "it is not installed"
