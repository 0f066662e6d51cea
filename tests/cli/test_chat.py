"""`musicflamingo chat`: as scripts call it, and in a real terminal as a person uses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from musicflamingo_cli.audio.clip import write_clip
from musicflamingo_cli.cli.console import Console
from musicflamingo_cli.cli.typing_line import TypedLines
from musicflamingo_cli.demo.songs import songs
from musicflamingo_cli.sidecars.merge import read_sidecar
from tests.conftest import MakeWav
from tests.fakes.mtmd_cli import write_fake
from tests.fakes.terminal import CTRL_A, CTRL_C, CTRL_D, UP, Terminal

ROOT = Path(__file__).parents[2]
TEMPO = "What are the tempo and the key of this track?"


def chat(*arguments: object, typed: str | bytes = "") -> subprocess.CompletedProcess[str]:
    """Run the command with ``typed`` on a pipe as stdin."""
    command = [sys.executable, "-m", "musicflamingo_cli", "chat", *map(str, arguments)]
    data = typed.encode() if isinstance(typed, str) else typed
    done = subprocess.run(command, capture_output=True, timeout=120, input=data)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """A copy of the first song of the demo."""
    copy = tmp_path / "song.mp3"
    copy.write_bytes(songs()[0].path.read_bytes())
    return copy


@pytest.fixture
def tiny(real_llama_dir: Path) -> list[object]:
    """Options for the tiny model, whose answers are the same each time."""
    return ["--model", "tiny", "--llama-dir", real_llama_dir, "--threads", "1", "--temperature", "0"]


# -- in scripts ----------------------------------------------------------------------------------------


@pytest.mark.real
def test_questions_as_options_give_one_object_each(song: Path, tiny: Sequence[object], tmp_path: Path) -> None:
    done = chat(song, "--ask", TEMPO, "--ask", "Which drums?", "--json", *tiny)
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    assert first.pop("seconds") > 0
    tempo = songs()[0].truth["tempo"]
    assert tempo in first.pop("answer")
    assert first.pop("tokens") > 5
    assert first == {
        "tracks": [str(song)],
        "question": TEMPO,
        "audio_tokens": write_clip(song, tmp_path / "clip.wav").trimmed_tokens,
        "engine": "native",
        "model": "musicflamingo-tiny.Q8_0.gguf",
    }
    assert second["question"] == "Which drums?"
    alone = chat(song, "--ask", TEMPO, *tiny)
    assert tempo in alone.stdout
    assert len(alone.stdout.splitlines()) == 1
    assert not song.with_suffix(".INFO").exists()


@pytest.mark.real
def test_lines_of_a_pipe_are_questions_and_commands(song: Path, tiny: Sequence[object]) -> None:
    prompts = song.with_name("prompts.yaml")
    prompts.write_text(f"presets: {{speed: {{prompt: '{TEMPO}', max_tokens: 3}}}}")
    lines = ["Which drums?", "", "/prompt", "/seed 9", "/seed", "/prompt speed", "/forget", TEMPO, "/save tempo"]
    done = chat(song, "--prompts", prompts, *tiny, typed="\n".join([*lines, "/help", "/quit", "Never asked?"]))
    assert done.returncode == 0, done.stderr
    drums, limited, tempo = done.stdout.splitlines()
    assert (drums, limited) != ("", "")
    assert "limit of 3 tokens" in done.stderr
    assert f"speed            {TEMPO}\n" in done.stderr
    assert done.stderr.count("seed 9\n") == 2
    assert "/save NAME" in done.stderr
    saved = read_sidecar(song.with_suffix(".INFO"))
    assert saved["music_flamingo_tempo"] == tempo
    made = saved["music_flamingo_provenance"]["tempo"]
    assert (made["seed"], made.get("conversation")) == (9, None)


@pytest.mark.parametrize(
    ("arguments", "typed", "code", "reported"),
    [
        (["{wav}"], "", 2, "musicflamingo chat song.flac --ask"),
        (["{wav}"], b"\xff?\n", 2, "not UTF-8"),
        (["{wav}"], "/sav x\n", 2, "did you mean /save?"),
        (["{wav}"], "/save x\n", 2, "ask a question first"),
        (["{wav}"], "/save\n", 2, "/save mood"),
        (["{wav}"], "/seed x\n", 2, "not a whole number"),
        (["{wav}"], "/seed 4294967295\n", 2, "seed must be between"),
        (["{wav}"], "/prompt ful\n", 2, "did you mean full?"),
        (["{wav}", "--ask", ""], "", 2, "has no prompt"),
        (["{wav}", "--ask", "x", "--engine", "mtmd-cli"], "", 2, "mtmd-cli cannot hold a conversation"),
        (["{wav}", "--ask", "x", "--preset", "full"], "", 2, "no option --preset"),
        (["{wav}", "{folder}/gone.wav", "--ask", "x"], "", 2, "no such file"),
        (["{folder}", "--ask", "x"], "", 2, "is a folder"),
        (["{broken}", "--ask", "x"], "", 1, "broken.wav"),
    ],
)
def test_wrong_use_gets_one_error(
    make_wav: MakeWav,
    tmp_path: Path,
    random_models: Path,
    arguments: list[str],
    typed: str | bytes,
    code: int,
    reported: str,
) -> None:
    wav = make_wav("data/a.wav")
    broken = wav.with_name("broken.wav")
    broken.write_text("no audio")
    filled = [part.format(wav=wav, folder=wav.parent, broken=broken) for part in arguments]
    options = ["--llama-dir", write_fake(tmp_path / "llama", "answer"), "--models-dir", random_models, "--model", "F32"]
    if "--engine" not in filled:
        options += ["--engine", "embedded"]
    done = chat(*filled, *options, typed=typed)
    assert done.returncode == code, done.stderr
    assert reported in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


# -- in a terminal -------------------------------------------------------------------------------------


@pytest.mark.real
def test_a_conversation_in_a_terminal(song: Path, tiny: Sequence[object]) -> None:
    history = Path(os.environ["XDG_STATE_HOME"]) / "musicflamingo" / "chat-history"
    command = ["-m", "musicflamingo_cli", "chat", song, *tiny]
    with Terminal(command, ROOT) as terminal:
        terminal.expect("song.mp3, 20 s of audio; /help lists the commands, Ctrl-D ends")
        terminal.expect("> ")
        terminal.type(f"{TEMPO}\n")
        terminal.expect(f"{TEMPO}\n")
        answer = terminal.expect("> ").removesuffix("\n> ")
        assert songs()[0].truth["tempo"] in answer
        terminal.type("/save tempo\n")
        terminal.expect("song.INFO, as music_flamingo_tempo")
        assert read_sidecar(song.with_suffix(".INFO"))["music_flamingo_tempo"] == answer
        terminal.expect("> ")
        terminal.type("/sav\n")
        terminal.expect("did you mean /save?")
        terminal.expect("> ")
        terminal.type("/quit\n")
        assert terminal.end() == 0
    assert history.read_text().splitlines() == [TEMPO, "/save tempo", "/sav", "/quit"]
    assert history.stat().st_mode & 0o777 == 0o600
    with Terminal(command, ROOT) as terminal:
        terminal.expect("> ")
        terminal.type(UP * 4)
        terminal.expect(TEMPO)
        terminal.type(f"{CTRL_A}Well: \n")
        terminal.expect("> ")
        terminal.type(CTRL_D)
        assert terminal.end() == 0
    assert history.read_text().splitlines()[4:] == [f"Well: {TEMPO}"]


@pytest.mark.real
def test_ctrl_c_ends_an_answer_not_the_conversation(song: Path, tiny: Sequence[object]) -> None:
    """The answer would go on for 4096 tokens: its worker never takes the end."""
    prompts = song.with_name("prompts.yaml")
    prompts.write_text("presets: {long: {prompt: 'Go on.', max_tokens: 4096}, brief: {prompt: 'Stop.', max_tokens: 4}}")
    command = ["-m", "tests.fakes.endless_chat", "chat", song, "--prompts", prompts, "--engine", "native", *tiny]
    with Terminal(command, ROOT) as terminal:
        terminal.expect("> ")
        terminal.type("/prompt long\n")
        terminal.expect("/prompt long\n")
        _expect_more(terminal)
        pressed = time.monotonic()
        terminal.type(CTRL_C)
        terminal.expect("stopped: this question is not part of the conversation", 5.0)
        assert time.monotonic() - pressed < 1.0
        terminal.expect("> ")
        terminal.type("/prompt brief\n")
        terminal.expect("limit of 4 tokens")
        terminal.expect("> ")
        assert "limit of 4096" not in terminal.screen
        assert "restarted" not in terminal.screen
        terminal.type("half a question")
        terminal.expect("half a question")
        terminal.press_ctrl_c()
        terminal.expect("> ")
        assert "/quit" not in terminal.screen.rpartition("half a question")[2]
        terminal.press_ctrl_c()
        terminal.expect("to leave, press Ctrl-D or type /quit")
        terminal.expect("> ")
        terminal.type(CTRL_D)
        assert terminal.end() == 0


def _expect_more(terminal: Terminal) -> None:
    """Wait until some of an answer is shown."""
    terminal.expect(" ")
    terminal.expect(" ")


@pytest.mark.real
def test_ctrl_c_twice_ends_the_program(song: Path, tiny: Sequence[object]) -> None:
    """While the audio is processed nothing can be shown: the first Ctrl-C waits for that, the second does not."""
    command = ["-m", "musicflamingo_cli", "chat", *[song] * 8, "--engine", "server", *tiny]
    with Terminal(command, ROOT) as terminal:
        terminal.expect("> ")
        terminal.type("Which key?\n")
        terminal.expect("Which key?\n")
        terminal.press_ctrl_c()
        terminal.expect("stopping as soon as the answer begins")
        terminal.type(CTRL_C)
        terminal.expect("interrupted")
        assert terminal.end() == 130


@pytest.mark.real
def test_data_stays_data_where_only_the_input_is_a_terminal(song: Path, tiny: Sequence[object]) -> None:
    """With --json the prompt goes to stderr, and stdout holds the objects alone."""
    words = " ".join(f"'{part}'" for part in [sys.executable, "-m", "musicflamingo_cli", "chat", song, *tiny, "--json"])
    script = f"import os; os.execvp('sh', ['sh', '-c', \"\"\"{words} > '{song.parent}/out'\"\"\"])"
    with Terminal(["-c", script], ROOT) as terminal:
        terminal.expect("> ")
        terminal.type(f"{TEMPO}\n")
        terminal.expect("> ")
        terminal.type(CTRL_D)
        assert terminal.end() == 0
    (line,) = (song.parent / "out").read_text().splitlines()
    assert songs()[0].truth["tempo"] in json.loads(line)["answer"]


def test_an_answer_cannot_control_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    Console().stream("A\x1b[31m \x07d\u202er\num\u0301.")
    Console(as_json=True).stream("nothing")
    assert capsys.readouterr().out == "A\ufffd[31m \ufffdd\ufffdr\num\u0301."


def test_the_history_is_bounded_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "state" / "chat-history"
    typed = iter([f"question {number}" for number in range(1500)])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    for _ in range(3):
        with TypedLines(file, is_edited=True) as lines:
            for _ in range(500):
                lines.read()
    kept = file.read_text().splitlines()
    assert (len(kept), kept[0], kept[-1]) == (1000, "question 500", "question 1499")
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    typed = iter(["two\nlines"])
    with TypedLines(file, is_edited=True) as lines:
        lines.read()
    assert file.read_text().splitlines()[-1] == "two lines"
    assert file.stat().st_mode & 0o777 == 0o600
