"""The live view of a batch, its estimate of the time left, and the lines of a pipe."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from musicflamingo_cli.captioning.batch import Dataset, make_plan
from musicflamingo_cli.cli.batch_view import BatchView, Heading
from musicflamingo_cli.cli.outcomes import next_commands
from musicflamingo_cli.cli.progress import BatchBar
from musicflamingo_cli.cli.symbols import UNICODE
from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.engines.pool.member import MemberState, MemberStatus
from musicflamingo_cli.errors import FailureKind
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.types import (
    Answer,
    Caption,
    CaptionedSegment,
    Failure,
    Outcome,
    Prompt,
    Sampling,
    Summary,
    Track,
)
from tests.conftest import MakeWav
from tests.fakes.mtmd_cli import write_fake
from tests.fakes.screen import Screen
from tests.fakes.watched_batch import READY, Times, WatchedBatch, sizes_of, write_tracks

ROOT = Path(__file__).parent.parent.parent
SCREENS = Path(__file__).parent / "screens"


def outcome(audio: Path, seconds: float) -> Outcome:
    failures = () if seconds else (Failure(preset="", kind=FailureKind.SILENT, reason="no sound"),)
    return Outcome(Track(audio, audio.with_suffix(".INFO")), failures=failures, audio_seconds=seconds, seconds=2.0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One short track and nine that are ten times as long, as WAV; two MP3s with as much audio in fewer bytes."""
    for index in range(10):
        (tmp_path / f"{index}.wav").write_bytes(bytes(1_000 if index == 0 else 10_000))
    for index in range(2):
        (tmp_path / f"m{index}.mp3").write_bytes(bytes(1_000))
    return tmp_path


def test_audio_left_follows_from_the_bytes_of_each_format(data: Path) -> None:
    plan = make_plan([Dataset(data, [Preset("full", "x")])], Selection())
    assert plan.sizes == {".wav": 91_000, ".mp3": 2_000}
    view = BatchView(plan.tasks, plan.sizes)
    assert view.time_left.audio_left is None
    assert view.time_left_text() == ""
    view.finished(outcome(data / "0.wav", 10.0))
    assert view.time_left.audio_left == pytest.approx(920)  # 10 s a kilobyte; of MP3s nothing is known yet
    view.finished(outcome(data / "m0.mp3", 100.0))
    assert view.time_left.audio_left == pytest.approx(900 + 100)
    view.left_out(data / "m1.mp3")
    view.finished(outcome(data / "1.wav", 0.0))
    assert view.time_left.audio_left == pytest.approx(800)
    assert view.time_left_text().endswith(" left")


_GPU, _SLOW_GPU, _CPU = Times(base=6.0, per_second=0.02), Times(base=10.0, per_second=0.1), Times(2.0, 2.0, 0.3)


@pytest.mark.parametrize(
    ("times", "slots"),
    [
        pytest.param(_SLOW_GPU, 4, id="slow GPU, 4 slots"),
        pytest.param(_GPU, 1, id="GPU, 1 slot", marks=pytest.mark.slow),
        pytest.param(_GPU, 4, id="GPU, 4 slots", marks=pytest.mark.slow),
        pytest.param(_SLOW_GPU, 1, id="slow GPU, 1 slot", marks=pytest.mark.slow),
        pytest.param(_CPU, 1, id="CPU, 1 slot", marks=pytest.mark.slow),
        pytest.param(_CPU, 4, id="CPU, 4 slots", marks=pytest.mark.slow),
    ],
)
def test_the_time_left_is_within_a_quarter_of_the_truth(slots: int, times: Times, tmp_path: Path) -> None:
    """After 5 of 100 tracks of 10 s to 10 min, in 19 of 20 batches; the worst are those where only audio counts."""
    errors = []
    for seed in range(20):
        lengths = write_tracks(tmp_path / str(seed), 100, seed=seed)
        clock: list[WatchedBatch] = []
        view = BatchView(100, sizes_of(lengths), clock=lambda clock=clock: clock[0].now if clock else 0.0)  # type: ignore[misc]
        batch = WatchedBatch(view, lengths, slots, times, seed=seed)
        clock.append(batch)
        estimated: list[tuple[float, float | None]] = []

        def note() -> None:
            if view.done == 5 and not estimated:  # noqa: B023
                estimated.append((batch.now, view.time_left.seconds()))  # noqa: B023

        batch.run(on_finished=note)
        when, seconds = estimated[0]
        assert seconds is not None
        errors.append(abs(seconds / (batch.now - when) - 1))
    assert sum(error <= 0.25 for error in errors) > 18, sorted(errors)
    assert max(errors) < 0.4, sorted(errors)


def test_lines_of_a_pipe_are_short(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bar = BatchBar(BatchView(12, {}), quiet=False)
    bar.finished(outcome(data / "0.wav", 0.0))
    assert capsys.readouterr().err == f"[1/12] failed {data / '0.wav'} (2.0 s, 1 failed)\n"


def screens(moments: Sequence[str], columns: int, environment: dict[str, str] | None = None) -> Iterator[str]:
    """What a terminal shows at moments of a batch."""
    command = [sys.executable, "-m", "tests.fakes.watched_batch", *moments]
    with Screen(command, ROOT, columns, 30, environment) as screen:
        for _ in moments:
            screen.wait_until(lambda: READY in screen.text and screen.sent.endswith(b"\x1b[?2026l"), READY)
            yield screen.text.replace(f"{READY}\n", "")
            screen.clear()
            screen.type("\n")


@pytest.mark.parametrize("columns", [60, 100, 200])
def test_the_view_at_three_moments_and_widths(columns: int) -> None:
    moments = ("start", "middle", "late")
    for moment, text in zip(moments, screens(moments, columns), strict=True):
        compare(f"{moment}-{columns}", text)


def test_members_and_nodes_are_groups() -> None:
    moments = ("pool", "cluster")
    for moment, text in zip(moments, screens(moments, 100), strict=True):
        compare(f"{moment}-100", text)


def test_without_colours_or_unicode() -> None:
    (text,) = screens(["middle"], 60, {"PYTHONIOENCODING": "ascii", "NO_COLOR": "1"})
    compare("ascii-60", text)


def test_nothing_that_is_shown_controls_the_terminal() -> None:
    """Names of files, folders and machines, answers, and the reasons of failures may hold anything."""
    hostile = "x\x1b[2J\x9b\u202ey\n\tz"
    root, heading = Path("/music"), Heading(hostile, hostile, lambda: 1)
    members = [MemberStatus(hostile, MemberState.READY, 1, 1, 1, 1.0)]
    view = BatchView(9, {}, heading, members=lambda: members, roots=[root])
    view.device = hostile
    view.starting(root / hostile / "a.wav").placed(hostile)
    view.starting(Path("/elsewhere") / f"{hostile}.wav")
    answer = Answer(Prompt("full", "x", 9), hostile, False, 750, 1.0, Sampling())
    track = Track(root / hostile, root / hostile)
    view.finished(Outcome(track, captions=(Caption("full", hostile, answer),), audio_seconds=9.0, seconds=1.0))
    view.finished(Outcome(track, failures=(Failure("", FailureKind.ENGINE, hostile),)))
    shown = ["".join(text for text, _ in line) for line in view.lines(120, 40, UNICODE)]
    assert sum("x\ufffd[2J\ufffd\ufffdy" in line for line in shown) == 7, shown
    assert all(line.isprintable() for line in shown), shown


def compare(name: str, text: str) -> None:
    """Compare with the stored screen; write it instead where UPDATE_SCREENS is set."""
    stored = SCREENS / f"{name}.txt"
    if os.environ.get("UPDATE_SCREENS"):
        stored.parent.mkdir(exist_ok=True)
        stored.write_text(text, encoding="utf-8")
    assert text == stored.read_text(encoding="utf-8"), "look at the difference, then: UPDATE_SCREENS=1 pytest"


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_nothing_is_lost_when_the_terminal_gets_narrower(tmp_path: Path) -> None:
    """In tmux, which breaks long lines anew, as most terminals do."""

    def tmux(*words: str) -> str:
        done = subprocess.run(["tmux", "-S", str(tmp_path / "s"), *words], capture_output=True, text=True, check=True)
        return done.stdout

    def capture(times: int, *more: str) -> str:
        deadline = time.monotonic() + 60
        while (text := tmux("capture-pane", "-p", "-t", "x", *more)).count(READY) < times:
            assert time.monotonic() < deadline, text
            time.sleep(0.1)
        return text

    command = f"stty -echo; exec {shlex.quote(sys.executable)} -m tests.fakes.watched_batch middle"
    tmux("-f", "/dev/null", "new-session", "-d", "-s", "x", "-x", "120", "-y", "40", "-c", str(ROOT), command)
    try:
        capture(1)
        tmux("resize-window", "-t", "x", "-x", "70", "-y", "30")
        tmux("send-keys", "-t", "x", "draw", "Enter")
        everything, visible = capture(2, "-S", "-"), capture(1)
    finally:
        tmux("kill-server")
    for line in ("100 tracks to caption", "an assertion failed"):
        assert everything.count(line) == 1, everything
    for line in ("10 min", "5 failed"):
        assert visible.count(line) == 1, visible


@pytest.fixture
def arguments(tmp_path: Path, random_models: Path, make_wav: MakeWav) -> list[object]:
    """A batch over four tracks and one that is no audio, answered by a fake binary."""
    for number in range(4):
        make_wav(f"my data/{number}.wav")
    (tmp_path / "my data" / "bad.mp3").write_text("no music")
    fake = ["--llama-dir", write_fake(tmp_path / "llama", "answer"), "--models-dir", random_models, "--model", "F32"]
    return [sys.executable, "-m", "musicflamingo_cli", "batch", "my data", "--preset", "full", *fake]


def test_a_batch_in_a_terminal_ends_with_what_to_do_next(arguments: list[object], tmp_path: Path) -> None:
    with Screen(arguments, tmp_path, 120, 40) as screen:
        screen.wait_for_end()
        lines = screen.lines
        assert not screen.is_cursor_hidden
    text = "\n".join(lines)
    assert b"mtmd-cli" in screen.sent
    assert "TINY MODEL" in text
    assert text.count("bad.mp3 is not audio") == 2  # when it happened, and in the summary
    assert "4 captioned, 0 already complete, 1 failed" in text
    assert "of audio per hour)" in text
    for command in ("review 'my data'", "report 'my data'", "batch 'my data' --retry-failed"):
        assert f"  musicflamingo {command} " in text
    assert "━" not in text, "the view is still there"


def test_a_run_of_segments_shows_their_captions() -> None:
    view = BatchView(2, {}, Heading("server", "x.gguf", lambda: 1), roots=[Path("/music")])
    answer = Answer(Prompt("full", "x", 9), "A calm intro.", False, 750, 1.0, Sampling())
    segment = CaptionedSegment(0.0, 30.0, (Caption("full", "A calm intro.", answer),))
    track = Track(Path("/music/a.wav"), Path("/music/a.INFO"))
    view.finished(Outcome(track, segments=(segment,), audio_seconds=30.0, seconds=1.0))
    assert "  A calm intro." in ["".join(text for text, _ in line) for line in view.lines(80, 40, UNICODE)]
    commands = next_commands(Summary(captioned=1), [Path("/music")], None, of_segments=True)
    assert [line.split()[1] for line in commands] == ["report"]


@pytest.mark.parametrize(
    ("more", "environment"), [(["--plain"], {}), ([], {"TERM": "dumb"})], ids=["--plain", "a dumb terminal"]
)
def test_plain_output_has_lines_and_no_escapes(
    arguments: list[object], more: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    with Screen([*arguments, *more], tmp_path, 120, 40, environment) as screen:
        screen.wait_for_end()
    assert b"\x1b" not in screen.sent
    assert b"[5/5] " in screen.sent


@pytest.mark.slow
def test_the_view_costs_under_one_percent_of_a_processor(tmp_path: Path) -> None:
    """All 4 slots busy, drawn each second as in a run; measured in processor time, not on the clock."""
    code = (
        "import sys, time; from musicflamingo_cli.cli import progress; from tests.fakes import watched_batch as w\n"
        "from pathlib import Path; from musicflamingo_cli.cli.live_area import LiveArea\n"
        f"lengths = w.write_tracks(Path({str(tmp_path)!r}), 100); batch = []\n"
        "view = w.BatchView(100, w.sizes_of(lengths), roots=[Path('/')], clock=lambda: batch[0].now if batch else 0)\n"
        "batch.append(w.WatchedBatch(view, lengths)); batch[0].run(400.0)\n"
        "with progress._drawn(view, LiveArea(sys.stderr, True), None):\n"
        "    before = time.process_time(); batch[0].run(401.0); started = time.monotonic()\n"
        "    while time.monotonic() - started < 6: time.sleep(0.5); batch[0].now += 0.5\n"
        "    spent = time.process_time() - before\n"
        "print('spent', round(100 * spent / 6, 2))"
    )
    with Screen([sys.executable, "-c", code], ROOT, 100, 30) as screen:
        screen.wait_for("spent ")
        screen.wait_for_end()
    percent = float(screen.text.split("spent ")[1].split()[0])
    assert percent < 1.0
