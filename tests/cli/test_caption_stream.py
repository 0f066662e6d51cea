"""`caption` in a terminal: answers as they are made, then the captions under the names of their presets."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from musicflamingo_cli.cli.caption_stream import CaptionStream
from musicflamingo_cli.cli.symbols import ASCII
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.observer import Stage
from tests.conftest import MakeWav
from tests.fakes.endpoint import FakeEndpoint
from tests.fakes.screen import Screen


def shown(stream: CaptionStream, rows: int = 20) -> list[str]:
    return ["".join(text for text, _ in line) for line in stream.lines(61, rows, ASCII)]


def test_answers_grow_side_by_side_and_begin_again() -> None:
    stream = CaptionStream(Path("a.wav"), ["full", "brief"], reasons=False)
    assert shown(stream) == ["a.wav: preparing"]
    stream.reached(Stage.HEARING)
    for preset, piece in (("full", "A slow "), ("brief", "Slow"), ("full", "song. " * 12)):
        stream.text(preset, piece)
    stream.reached(Stage.ANSWERING)
    assert shown(stream) == [
        "a.wav: answering",
        "full",
        "  A slow song. song. song. song. song. song. song. song.",
        "  song. song. song. song.",
        "brief",
        "  Slow",
    ]
    assert shown(stream, rows=4) == ["brief", "  Slow"]
    stream.reached(Stage.HEARING)  # a refused answer is tried again
    stream.text("brief", "Another")
    assert shown(stream)[-2:] == ["brief", "  Another"]


def test_what_a_model_thinks_is_not_shown() -> None:
    stream = CaptionStream(Path("a.wav"), ["full"], reasons=True)
    for piece in ("<think>Is it", " slow?</think>", "A slow song."):
        stream.text("full", piece)
    assert shown(stream)[1:] == ["full", "  A slow song."]


def test_neither_a_name_nor_an_answer_controls_the_terminal() -> None:
    stream = CaptionStream(Path("a\x1b[2J\n\tb.wav"), ["full"], reasons=False)
    stream.text("full", "A slow\x1b]0;owned\x07 song.")
    assert shown(stream) == ["a\ufffd[2J\ufffd\ufffdb.wav: preparing", "full", "  A slow\ufffd]0;owned\ufffd song."]


def test_pieces_appear_before_the_captions(make_wav: MakeWav, tmp_path: Path) -> None:
    make_wav("song.wav", 2.0)
    with FakeEndpoint(streams=True, pause=0.02) as fake:
        command = [sys.executable, "-m", "musicflamingo_cli", "caption", "song.wav", "--endpoint", fake.url]
        command += ["-p", "full", "-p", "brief"]
        with Screen(command, tmp_path, 80, 40) as screen:
            screen.wait_for("song.wav: answering")
            screen.wait_for("  A wärm track")
            assert "It moves slowly" not in screen.text
            screen.wait_for_end()
            assert screen.lines[:3] == ["song.wav", "full", "  A wärm track with soft drums. It moves slowly."]
            assert "song.wav: answering" not in screen.lines


@pytest.mark.real
def test_a_real_servers_answers_leave_only_the_captions(
    random_settings: Settings, make_wav: MakeWav, tmp_path: Path
) -> None:
    make_wav("song.wav", 2.0)
    settings = random_settings
    command = [
        sys.executable,
        "-m",
        "musicflamingo_cli",
        "caption",
        "song.wav",
        "--model",
        "tiny",
        "--engine",
        "server",
    ]
    command += ["--llama-dir", str(settings.llama_dir), "--threads", "1", "-p", "full", "-p", "technical"]
    with Screen(command, tmp_path, 80, 40) as screen:
        screen.wait_for_end()
        lines = screen.lines
        assert not screen.is_cursor_hidden
    assert "song.wav: answering" not in lines
    place = lines.index("song.wav")
    assert lines[place + 1] == "full"
    assert lines[place + 2].startswith("  ")
    assert "technical" in lines
    assert all(len(line) < 80 for line in lines[place:])
