"""What reaches a terminal, and what reaches a file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from musicflamingo_cli.cli.console import printable
from tests.fakes.screen import Screen
from tests.fakes.terminal import Terminal

_HOSTILE = "a\x1b]0;owned\x07b\x9b2Jc\u202ed"
_PRINT = """
import sys
from rich.table import Table
from musicflamingo_cli.cli.console import Console
text = sys.argv[2].encode().decode("unicode_escape")
console = Console(as_json=sys.argv[1] == "json")
if sys.argv[1] == "table":
    table = Table("column")
    table.add_row(text)
    console.table(table)
elif sys.argv[1] == "json":
    console.json({"text": text})
elif sys.argv[1] == "fail":
    from musicflamingo_cli.errors import MusicFlamingoError
    console.fail(MusicFlamingoError(text, text))
elif sys.argv[1] == "track_failed":
    from pathlib import Path
    from musicflamingo_cli.errors import FailureKind
    from musicflamingo_cli.types import Failure
    console.track_failed(Failure(text, FailureKind.ENGINE, text, text), Path(text))
else:
    getattr(console, sys.argv[1])(text)
print("end")
"""


def arguments(method: str) -> list[str]:
    return ["-c", _PRINT, method, _HOSTILE.encode("unicode_escape").decode()]


@pytest.mark.parametrize("method", ["data", "stream", "table", "info", "warn", "fail", "track_failed"])
def test_no_control_character_reaches_a_terminal(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fakes.terminal._SEQUENCES", re.compile(r"\x1b\[\d*(?:;\d+)*m|\r"))
    with Terminal(arguments(method), tmp_path) as terminal:
        terminal.expect("end")
    assert "owned" in terminal.screen
    assert not set("\x1b\x07\x9b\u202e") & set(terminal.screen)


@pytest.mark.parametrize(("method", "shown"), [("data", _HOSTILE), ("stream", _HOSTILE), ("json", _HOSTILE)])
def test_files_and_json_hold_them_unchanged(method: str, shown: str) -> None:
    done = subprocess.run([sys.executable, *arguments(method)], capture_output=True, text=True, check=True)
    if method == "json":
        assert json.loads(done.stdout.splitlines()[0])["text"] == shown
    else:
        assert shown in done.stdout


def test_joiners_and_wide_spaces_are_shown() -> None:
    assert printable("می\u200cخواهم, 120\u00a0BPM\n") == "می\u200cخواهم, 120\u00a0BPM\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nothing here is longer than a line", ["nothing here is longer than a line"]),
        (
            "these words have no room on one line of forty columns, and none is cut in two",
            ["these words have no room on one line of", "forty columns, and none is cut in two"],
        ),
        # The terminal breaks it, and gives back the whole where it is copied.
        (
            "see: musicflamingo status '/music/a very long folder'",
            ["see: musicflamingo status '/music/a very", " long folder'"],
        ),
        ("cannot read /music/a/very/long/folder/of songs", ["cannot read /music/a/very/long/folder/of", " songs"]),
    ],
)
@pytest.mark.parametrize("method", ["info", "warn"])
def test_prose_is_broken_between_words(method: str, text: str, shown: list[str], tmp_path: Path) -> None:
    with Screen([sys.executable, "-c", _PRINT, method, text], tmp_path, columns=40) as screen:
        screen.wait_for_end()
        assert [line for line in screen.lines if line] == [*shown, "end"]
