"""`--endpoint` against a plain llama-server with the tiny model, as anybody starts it."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from musicflamingo_cli.captioning.captioner import open_captioner
from musicflamingo_cli.captioning.conversation import Chat
from musicflamingo_cli.config import Settings
from musicflamingo_cli.demo.songs import songs
from musicflamingo_cli.errors import AnswerCancelledError
from musicflamingo_cli.models.model import TINY
from musicflamingo_cli.paths import data_file
from musicflamingo_cli.types import Workload
from tests.conftest import MakeWav

PRESETS = ("-p", "brief", "-p", "full")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def plain_server(real_llama_dir: Path, log_folder: Path, *more: str) -> Iterator[str]:
    """A llama-server with the tiny model; yields its address."""
    folder, port = data_file("models", TINY), free_port()
    (language_model,) = folder.glob("*.Q8_0.gguf")
    (projector,) = folder.glob("*mmproj*.gguf")
    command = [str(real_llama_dir / "llama-server"), "-m", str(language_model), "--mmproj", str(projector), "--jinja"]
    command += ["--host", "127.0.0.1", "--port", str(port), "-np", "2", "-c", "16384", "-t", "1", "--no-webui"]
    command += more
    with (log_folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def llama_server(real_llama_dir: Path, tmp_path: Path) -> Iterator[str]:
    with plain_server(real_llama_dir, tmp_path) as address:
        yield address


@pytest.mark.real
@pytest.mark.slow
def test_a_batch_by_a_plain_llama_server(llama_server: str, make_wav: MakeWav, tmp_path: Path) -> None:
    tracks = [make_wav(f"music/{number}.wav", 6, 200 + 60 * number) for number in range(6)]
    command = [sys.executable, "-m", "musicflamingo_cli", "batch", str(tmp_path / "music"), "--json"]
    command += [*PRESETS, "--endpoint", llama_server, "--temperature", "0", "--retries", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(outcome["track"] for outcome in outcomes) == sorted(map(str, tracks)), done.stderr
    for track in tracks:
        made = json.loads(track.with_suffix(".INFO").read_text())["music_flamingo_provenance"]
        for preset in made.values():
            assert preset["engine"] == "remote"
            assert preset["endpoint"] == f"{llama_server}/v1"
            assert preset["model"] == "musicflamingo-tiny.Q8_0.gguf"
            assert preset["toy"] is True
            assert "heard" not in preset
    assert not any("not heard" in failure["reason"] for outcome in outcomes for failure in outcome["failures"])
    assert "engine" in outcomes[0]
    assert {outcome["engine"] for outcome in outcomes} == {"remote"}


@pytest.mark.real
@pytest.mark.slow
def test_a_conversation_with_a_plain_llama_server(llama_server: str, tmp_path: Path) -> None:
    """The server gets the whole conversation each time, and keeps the audio: later questions read only their text."""
    song = songs()[0]
    command = [sys.executable, "-m", "musicflamingo_cli", "chat", str(song.path), "--json", "--endpoint", llama_server]
    command += ["--temperature", "0", "--ask", "What are the tempo and the key of this track?"]
    command += ["--ask", "Which instruments are played?", "--ask", "How is the track structured?"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 3, done.stderr
    assert song.truth["tempo"].split()[0] in answers[0]["answer"]
    assert {answer["engine"] for answer in answers} == {"remote"}
    assert [answer["audio_tokens"] > 400 for answer in answers] == [True] * 3
    read = [int(count) for count in re.findall(r"prompt eval time = .*? / +(\d+) tokens", log_of(tmp_path))]
    assert read[0] > 400
    assert max(read[1:]) < 200, read
    settings = Settings(endpoint=llama_server, temperature=0.0)
    pieces: list[str] = []
    with open_captioner(settings, Workload(1, 1)) as captioner, Chat(captioner, [song.path]) as chat:
        text = chat.ask("What are the tempo and the key of this track?", pieces.append)
        assert text == answers[0]["answer"]
        assert len(pieces) > 5

        def stop(piece: str) -> None:
            raise AnswerCancelledError("enough")

        with pytest.raises(AnswerCancelledError):
            chat.ask("Which instruments are played?", stop)
        assert chat.ask("Which instruments are played?") == answers[1]["answer"]
    assert "cancel task" in log_of(tmp_path)


def log_of(folder: Path) -> str:
    return (folder / "server.log").read_text(errors="replace")
