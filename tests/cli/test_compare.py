"""`musicflamingo compare` as it is typed."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from musicflamingo_cli.captioning import comparison
from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.comparison_table import table_of
from musicflamingo_cli.cli.console import Console
from musicflamingo_cli.config import Settings
from tests.cli.test_cli import musicflamingo
from tests.conftest import MakeWav
from tests.fakes.engines import REAL_PAIR
from tests.fakes.mtmd_cli import write_fake

SONG = Path(__file__).parents[2] / "models" / "tiny" / "songs" / "slow organ.mp3"


@pytest.fixture
def fake(tmp_path: Path, random_models: Path) -> list[str]:
    """Options that answer every prompt with a fake binary."""
    folder = write_fake(tmp_path / "llama", "answer")
    return ["--llama-dir", str(folder), "--models-dir", str(random_models)]


@pytest.mark.real
@pytest.mark.slow
def test_two_real_engines_agree_about_a_song(tmp_path: Path, real_llama_dir: Path) -> None:
    song = tmp_path / "slow organ.mp3"
    song.write_bytes(SONG.read_bytes())
    page = tmp_path / "page.html"
    sides = ["--with", "embedded:tiny", "--with", "server:tiny"]
    greedy = ["--temperature", "0", "--repeat-penalty", "1", "--threads", "1", "--llama-dir", real_llama_dir]
    done = musicflamingo("compare", song, *sides, "-p", "brief", "--json", "--html", page, *greedy)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["track"] == str(song)
    first, second = told["presets"]["brief"]["sides"]
    assert (first["engine"], second["engine"]) == ("embedded", "server")
    for side in (first, second):
        assert side["model"] == "musicflamingo-tiny.Q8_0.gguf"
        assert side["seconds"] > 0
        assert len(side["text"].split()) <= side["tokens"] <= 100
        assert side["failure"] is None
        assert side["claims"] == {"tempo": 80.0, "key": "A minor", "genres": ["ambient"], "instruments": ["organ"]}
    (agreement,) = told["presets"]["brief"]["agreement"]
    assert (agreement["tempo"], agreement["key"]) == ("same", "same")
    assert agreement["instruments"] == {"shared": ["organ"], "only_first": [], "only_second": []}
    assert "80 BPM" in page.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "slow organ.mp3"]


def test_the_table_fits_the_terminal(make_wav: MakeWav, fake: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    sides = ["--with", "mtmd-cli:F32", "--with", "tiny", "--with", "mtmd-cli:tiny"]
    done = musicflamingo("compare", make_wav(), *sides, "-p", "full", "-p", "brief", *fake)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(len(line) for line in lines if not line.endswith("]")) <= 80  # a heading has the path
    assert [line.split("[")[1] for line in lines if line.endswith("]")] == ["full]", "brief]"]
    assert done.stdout.count("A warm track") == 6
    assert "drums (1 of 1" in done.stdout
    assert "\x1b" not in done.stdout
    assert "TINY MODEL" in done.stderr


def test_a_failure_is_shown_and_is_exit_code_1(make_wav: MakeWav, fake: list[str]) -> None:
    bad = make_wav("good.wav").with_name("bad.wav")
    bad.write_text("no music")
    sides = ["--with", "mtmd-cli:F32", "--with", "tiny"]
    done = musicflamingo("compare", bad, bad.with_name("good.wav"), *sides, "-p", "full", *fake)
    assert done.returncode == 1
    assert done.stdout.count("failed: ") == 2
    assert done.stdout.count("A warm track") == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["{wav}"], 2, "--with server:Q6_K --with server:IQ3_M"),
        (["{wav}", "--with", "tiny"], 2, "--with twice or more"),
        (["{wav}", "--with", "servr:tiny", "--with", "tiny"], 2, "did you mean server?"),
        (["{wav}", "--with", "tiny", "--with", "typo"], 2, "typo"),
        (["{wav}", "--with", "tiny", "--with", "Q6_K"], 4, "models pull Q6_K"),
        (["{wav}", "--with", "tiny", "--with", "server:tiny"], 3, "llama-server"),
        (["{wav}.gone", "--with", "tiny", "--with", "F32"], 2, "no such file"),
        (["{folder}", "--with", "tiny", "--with", "F32"], 2, "is a folder"),
        (["{wav}", "--with", "tiny", "--with", "F32", "--html", "{wav}"], 2, "another kind of file"),
        (["{wav}", "--with", "tiny", "--with", "F32", "-p", "ful"], 2, "did you mean full?"),
        (["{wav}", "--with", "tiny", "--with", "F32", "--engine", "server"], 2, "--engine"),
    ],
)
def test_what_is_wrong_is_reported_before_anything_starts(
    make_wav: MakeWav, fake: list[str], arguments: list[str], code: int, said: str
) -> None:
    wav = make_wav()
    done = musicflamingo("compare", *(each.format(wav=wav, folder=wav.parent) for each in arguments), *fake)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert said in done.stderr
    assert ".gguf: " not in done.stderr  # as where a side is asked about a track


def test_an_interrupt_says_that_nothing_is_saved(
    make_wav: MakeWav, fake: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "ask_all", interrupted)
    arguments = ["compare", str(make_wav()), "--with", "tiny", "--with", "F32", *fake]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 130
    assert "a comparison saves nothing" in done.stderr


def test_help_shows_only_what_applies() -> None:
    text = CliRunner(env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"}).invoke(app, ["compare", "--help"]).stdout
    assert "--seed" in text
    assert "ENGINE:MODEL" in text
    for option in ("--model ", "--engine ", "--mmproj", "--save", "--slots"):
        assert option not in text


@pytest.mark.parametrize(
    ("is_terminal", "colour", "marked"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_words_are_marked_where_the_terminal_has_colours(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, colour: bool, marked: bool
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    side = comparison.Side("server", REAL_PAIR, Settings())
    texts = ("A slow \x1b[31mwaltz.", "A fast \x1b[31mwaltz.")
    captions = tuple(comparison.SideCaption(side=side, text=text) for text in texts)
    Console(colour=colour).table(table_of(comparison.PresetComparison(captions)))
    assert ("\x1b[1;33mfast\x1b[0m" in screen.getvalue()) is marked
    assert "\x1b[31m" not in screen.getvalue()
