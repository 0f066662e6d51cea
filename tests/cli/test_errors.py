"""Errors have one layout: what, where, what to do; misspelt words get a suggestion."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.error_layout import error_lines, short_paths
from musicflamingo_cli.cli.styled import rendered, width_of
from musicflamingo_cli.cli.symbols import ASCII, UNICODE
from tests.conftest import MakeWav
from tests.fakes.mtmd_cli import write_fake
from tests.fakes.screen import Screen

COMMAND = (sys.executable, "-m", "musicflamingo_cli")
LONG = "/home/somebody/Music/A Band With a Long Name/An Album (Deluxe Edition)/01 - song.flac"


def texts(what: str, where: str, hint: str, is_whole: bool = False) -> list[str]:
    return [rendered(line, False) for line in error_lines(what, where, hint, 60, UNICODE, is_whole)]


def test_what_where_and_what_to_do() -> None:
    lines = texts("no setting 'x'; did you mean y?", LONG, "edit it with:\n  nano file")
    assert lines == [
        "✗ no setting 'x'; did you mean y?",
        "  in /home/somebody/Mu…lbum (Deluxe Edition)/01 - song.flac",
        "  → edit it with:",
        "      nano file",
    ]
    assert texts("broken", "", "") == ["✗ broken"]
    assert texts("broken", LONG, "", is_whole=True)[1] == f"  in {LONG}"


def test_long_messages_are_wrapped_but_nothing_to_type_is() -> None:
    hint = f"musicflamingo batch '{LONG}' --retry-failed"
    lines = error_lines("many words " * 20, "", hint, 60, ASCII)
    assert all(width_of(line) < 60 for line in lines[:-1])
    assert rendered(lines[-1], False) == f"  -> {hint}"


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("no such file: /a/b.wav", "no such file: /a/b.wav"),
        (
            "see https://example.org/a/long/address/that/is/no/path",
            "see https://example.org/a/long/address/that/is/no/path",
        ),
        ("ratio 3/4 of /very/long/path/to/some/folder/x.yaml", "ratio 3/4 of /very…der/x.yaml"),
    ],
)
def test_only_long_paths_are_shortened(text: str, short: str) -> None:
    assert short_paths(text, 32, UNICODE) == short


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bacth", "."], "no command 'bacth'; did you mean batch?"),
        (["models", "pth"], "no command 'pth'; did you mean path?"),
        (["prompts", "lst"], "no command 'lst'; did you mean list?"),
        (["zzz"], "known: batch, build, "),
        (["batch", ".", "--engin", "server"], "no option --engin; did you mean --engine?"),
        (["batch", ".", "--engine", "srver"], "--engine cannot be 'srver'; did you mean server?"),
        (["caption", "x.wav", "--quantize", "nf5"], "--quantize cannot be 'nf5'; did you mean nf4?"),
        (["export", "parket", "."], "FORMAT cannot be 'parket'; did you mean parquet?"),
        (["export", "???", "."], "known: ace-step, audiocraft, "),
        (["batch", ".", "--preset", "breif"], "no preset 'breif'; did you mean brief?"),
        (["prompts", "show", "techncal"], "no preset 'techncal'; did you mean technical?"),
        (["compare", "x.wav", "--with", "natve:Q6_K", "--with", "server"], "no engine 'natve'; did you mean native?"),
        (["batch", ".", "--limit", "some"], "invalid value for '--limit'"),
        (["caption"], "missing argument 'AUDIO'"),
    ],
)
def test_misspelt_words_get_a_suggestion(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    what, *hint = done.stderr.splitlines()
    assert what.startswith("error: ")
    assert said in what
    assert "--with" in arguments or [line[:7] for line in hint] == ["  see: "]
    assert done.stdout == ""


def test_help_and_exit_codes_are_as_before() -> None:
    assert CliRunner().invoke(app, ["prompts", "path"]).exit_code == 0
    shown = CliRunner().invoke(app, ["models"])
    assert (shown.exit_code, "Usage" in shown.output, "error" in shown.stderr) == (2, True, False)
    refused = subprocess.run([*COMMAND, "models", "remove", "F32"], capture_output=True, text=True)
    assert (refused.returncode, refused.stderr.startswith("error: ")) == (4, True)


def test_errors_in_a_terminal(tmp_path: Path) -> None:
    folder = tmp_path / "a folder with a long name" / "and another one with a long name"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("sed: 1\n")
    with Screen([*COMMAND, "doctor", "--config", folder / "mine.yaml"], tmp_path, 70) as screen:
        screen.wait_for_end()
        lines = [line for line in screen.lines if line]
    assert lines[0] == "✗ no setting 'sed'; did you mean seed?"
    assert lines[1].startswith("  in /")
    assert lines[1].endswith("/mine.yaml")
    assert "…" in lines[1]
    assert len(lines[1]) < 70
    assert lines[2].startswith("  → ")
    with Screen([*COMMAND, "batch", ".", "--engine", "srver"], tmp_path, 70, environment={"NO_COLOR": "1"}) as screen:
        screen.wait_for_end()
        assert screen.lines[0] == "✗ --engine cannot be 'srver'; did you mean server?"
        assert b"\x1b[" not in screen.sent


def test_failures_of_tracks_have_it_too(tmp_path: Path, random_models: Path, make_wav: MakeWav) -> None:
    make_wav("music/good.wav")
    (tmp_path / "music" / "bad.mp3").write_text("no music")
    fake = ["--llama-dir", write_fake(tmp_path / "llama", "answer"), "--models-dir", random_models, "--model", "F32"]
    with Screen([*COMMAND, "batch", "music", "--preset", "full", *fake], tmp_path, 100) as screen:
        screen.wait_for_end()
        lines = screen.lines
    start = next(n for n, line in enumerate(lines) if line.startswith("✗ bad.mp3 is not audio"))
    assert lines[start + 1] == "  in music/bad.mp3"
    assert lines[start + 2].startswith("  → convert it to FLAC or WAV")
