"""`musicflamingo listen` as users run it: real processes, a random MusicGen, a dataset that no run may change."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
from typer.testing import CliRunner

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.console import Console
from musicflamingo_cli.cli.listen_progress import clip_bar
from musicflamingo_cli.dataset.tracks import NO_TRACKS
from tests.conftest import MakeWav, hear_interrupts
from tests.fakes.checkpoints import put_generator

LONG = "Fast techno at 140 BPM in C# minor with synth, bass and drums. " + "It goes on with the same beat. " * 20
SLOW = "A slow piano piece at 72 BPM in A minor."
Listen = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def dataset(make_wav: MakeWav, tmp_path: Path) -> Path:
    for name, caption in (("a/slow", SLOW), ("b/techno", LONG), ("plain", "")):
        audio = make_wav(f"music/{name}.wav", seconds=2.0, rate=44_100, channels=2)
        if caption:
            audio.with_suffix(".INFO").write_text(json.dumps({"bpm": 1e400, "music_flamingo_full": caption}))
    return tmp_path / "music"


@pytest.fixture
def listen(generators: Path, tmp_path: Path) -> Listen:
    def run(*arguments: Any, kind: str = "mono", code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command(generators / kind, *arguments), capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        return done

    return run


def command(folder: Path, *arguments: Any) -> list[str]:
    words = [sys.executable, "-m", "musicflamingo_cli", "listen", *map(str, arguments)]
    return [*words, "--model", str(folder), "--threads", "1"]


def state(folder: Path) -> dict[str, tuple[str, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.slow
def test_a_sample_makes_clips_beside_a_page(dataset: Path, listen: Listen, tmp_path: Path) -> None:
    before = state(dataset)
    out = tmp_path / "clips"
    arguments = (dataset, "--sample", 5, "--out", out, "--seconds", 1.1, "--json")
    done = listen(*arguments, kind="stereo")
    assert state(dataset) == before
    *clips, last = map(json.loads, done.stdout.splitlines())
    by_track = {Path(clip["track"]).stem: clip for clip in clips}
    assert sorted(by_track) == ["slow", "techno"]
    slow, techno = by_track["slow"], by_track["techno"]
    assert soundfile.info(slow["clip"]).frames == slow["samples"] == 35_200
    assert soundfile.info(slow["clip"]).channels == slow["channels"] == 2
    assert (slow["caption"], slow["cut_off"], slow["tokens"]) == (SLOW, "", len(SLOW) + 1)
    assert (techno["tokens"], techno["cut_off"]) == (len(LONG) + 1, LONG[511:])
    assert f"{len(LONG) + 1} T5 tokens, more than the text encoder reads; cut off: {LONG[511:540]}" in done.stderr
    assert json.loads((out / "a - slow.full.json").read_text()) == {
        **{key: value for key, value in slow.items() if key not in ("was_there", "failure")},
        "clip": "a - slow.full.wav",
    }
    assert last["page"] == str(out / "listen.html")
    assert LONG[511:540] in (out / "listen.html").read_text()
    assert [path.name for path in out.glob(".*")] == [NO_TRACKS]

    kept = state(out)
    again = [json.loads(line) for line in listen(*arguments, kind="stereo").stdout.splitlines()]
    assert [clip["was_there"] for clip in again[:-1]] == [True, True]
    del kept[str(out / "listen.html")], kept[str(out / NO_TRACKS)]
    assert kept.items() <= state(out).items()
    other = [json.loads(line) for line in listen(*arguments, "--seed", 7, kind="stereo").stdout.splitlines()]
    assert [clip["was_there"] for clip in other[:-1]] == [False, False]


@pytest.mark.slow
def test_a_clip_continues_its_track(dataset: Path, listen: Listen, tmp_path: Path) -> None:
    out = tmp_path / "clips"
    audio = dataset / "plain.wav"
    done = listen(audio, "--text", SLOW, "--continue", 0.5, "--seconds", 1, "--out", out, "--json")
    clip = json.loads(done.stdout.splitlines()[0])
    assert clip["audio"]["size"] == audio.stat().st_size
    assert clip["settings"]["start_seconds"] == 0.5
    assert soundfile.info(out / "plain.text.wav").frames == 32_000


@pytest.mark.slow
def test_an_interrupt_keeps_what_is_finished(dataset: Path, listen: Listen, generators: Path, tmp_path: Path) -> None:
    out = tmp_path / "clips"
    arguments = (dataset, "--sample", 2, "--out", out, "--seconds", 12, "--at-once", 1)
    running = subprocess.Popen(
        command(generators / "mono", *arguments), stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts
    )
    wait_until(lambda: bool(list(out.glob("*.json"))) or running.poll() is not None)
    running.send_signal(signal.SIGINT)
    _, messages = running.communicate(timeout=60)
    assert running.returncode == 130, messages
    assert "finished clips are kept, and the same command continues from here" in messages
    assert len(list(out.glob("*.wav"))) == len(list(out.glob("*.json"))) == 1
    assert [path.name for path in out.glob(".*")] == [NO_TRACKS]
    assert "full.wav" in (out / "listen.html").read_text()
    assert "1 made, 1 were there" in listen(*arguments).stderr


@pytest.mark.slow
def test_what_cannot_be_made_is_one_failure(dataset: Path, listen: Listen, tmp_path: Path) -> None:
    out = tmp_path / "clips"
    out.mkdir()
    (out / "techno.full.json").write_text('{"mine": true}')
    tracks = [dataset / name for name in ("a/slow.wav", "b/techno.wav", "plain.wav")]
    done = listen(*tracks, "--seconds", 1, "--out", out, "--json", code=1)
    results = {Path(each["track"]).stem: each for each in map(json.loads, done.stdout.splitlines()[:-1])}
    assert results["slow"]["failure"] is None
    assert "is another file" in results["techno"]["failure"]["reason"]
    assert "--save -p full" in results["plain"]["failure"]["hint"]
    assert (out / "techno.full.json").read_text() == '{"mine": true}'
    assert "1 made, 0 were there, 2 failed" in done.stderr
    assert done.stderr.count("] failed ") == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["music", "--out", "clips"], 2, "say how many of its tracks: --sample 5"),
        (["music", "music/plain.wav", "--sample", "2", "--out", "clips"], 2, "name one folder, or only tracks"),
        (["music/plain.wav", "--sample", "2", "--out", "clips"], 2, "--sample is for a folder"),
        (["music", "--sample", "2", "-p", "lyrics", "--out", "clips"], 2, "has such a caption"),
        (["music/a/slow.wav", "--out", "music/a/clips"], 2, "is inside the dataset"),
        (["music", "--sample", "2", "--out", "music/clips"], 2, "is inside the dataset"),
        (["music/none.wav", "--out", "clips"], 2, "no such file"),
        (["music/plain.wav", "--out", "clips", "--seconds", "31"], 2, "--seconds must be between 1 and 30"),
        (["music/plain.wav", "--out", "clips", "--seconds", "nan"], 2, "--seconds must be between 1 and 30"),
        (["music/plain.wav", "--out", "clips", "--continue", "10"], 2, "--continue must be shorter than --seconds"),
        (["music/plain.wav", "--out", "clips", "--text", " "], 2, "--text is empty"),
        (["music/plain.wav", "--out", "clips", "--text", "x", "-p", "full"], 2, "exclude each other"),
        (["music/plain.wav", "--out", "clips", "-p", "provenance"], 2, "is not a preset"),
        (["music/plain.wav", "--out", "clips", "--engine", "server"], 2, "are for --round-trip"),
        (["music/plain.wav", "--out", "clips", "--text", "x", "--melody"], 2, "takes no melody"),
        (["music/plain.wav", "--out", "generator/config.json/x", "--text", "x"], 2, "cannot make the folder"),
        (["music/plain.wav", "--out", "clips", "--model", "facebook/musicgen-small"], 4, "musicflamingo models pull"),
        (["music/plain.wav", "--out", "clips", "--model", "music"], 4, "music"),
    ],
)
def test_wrong_use_is_one_error(
    arguments: list[str],
    code: int,
    message: str,
    dataset: Path,
    generator_without_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if "--model" not in arguments:
        arguments = [*arguments, "--model", str(generator_without_weights)]
    done = CliRunner().invoke(app, ["listen", *arguments])
    assert done.exit_code == code, done.stderr
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stdout == ""
    assert not (tmp_path / "clips").exists()


def test_the_bar_counts_and_estimates(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    monkeypatch.setattr("musicflamingo_cli.cli.listen_progress.time.monotonic", lambda: now)
    with clip_bar(Console(), 4, "made") as bar:
        now = 10.0
        bar.step(0.5, 2)  # one clip's work of four
        bar.finished("a.wav")
        now = 60.0
        bar.step(1.0, 2)
        bar.finished("b.wav")
    assert capsys.readouterr().err.splitlines() == [
        "[1/4] made a.wav (30 s left)",
        "[2/4] made b.wav (20 s left)",
    ]


@pytest.fixture
def generator_without_weights(tmp_path: Path) -> Path:
    return put_generator(tmp_path / "generator")


@pytest.mark.slow
def test_a_killed_run_leaves_no_worker(dataset: Path, generators: Path, tmp_path: Path) -> None:
    arguments = command(generators / "mono", dataset, "--sample", 2, "--out", tmp_path / "clips", "--seconds", 30)
    running = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(tmp_path)})
    wait_until(lambda: bool(workers(generators)))
    running.kill()
    running.wait()
    wait_until(lambda: not workers(generators))


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def workers(folder: Path) -> list[int]:
    import psutil

    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "musicflamingo_cli.listening.worker" in words and str(folder / "mono") in words:
            found.append(process.pid)
    return found
