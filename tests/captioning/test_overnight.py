"""What goes wrong in a night: kills, other writers, other processes, engines that misbehave, disks that fill up."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from musicflamingo_cli.config import Settings
from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar, splice
from tests.conftest import MakeWav, hear_interrupts, start_batch
from tests.fakes.mtmd_cli import write_fake

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("MUSICFLAMINGO_KILLS", "5"))  # benchmarks/endurance.py asks for 200
FOREIGN = {"bpm": 120.5, "odd": float("nan"), "genres": ["House"], "nested": {"a": [1, 2, {"b": None}]}}


def command(data: Path, settings: Settings, *options: str) -> list[str]:
    words = [sys.executable, "-m", "musicflamingo_cli", "batch", str(data), "--model", "F32", "--preset", "brief"]
    words += ["--models-dir", str(settings.models_folder), "--llama-dir", str(settings.llama_dir), "--threads", "1"]
    return [*words, *options]


def make_tracks(make_wav: MakeWav, count: int, foreign: bool = True, seconds: float = 1.0) -> Path:
    for index in range(count):
        audio = make_wav(f"data/{index % 3}/{index:03}.wav", seconds, 200 + 10 * index)
        if foreign:
            audio.with_suffix(".INFO").write_text(json.dumps({**FOREIGN, "number": index}, indent=2))
    return make_wav("data/0/000.wav", seconds, 200).parent.parent


def left_over(data: Path) -> list[str]:
    return [p.name for p in data.rglob("*") if p.is_file() and p.suffix not in (".wav", ".INFO")]


def captioned(data: Path) -> int:
    return sum(bool(read_sidecar(path).get("music_flamingo_brief")) for path in data.rglob("*.INFO"))


def foreign_is_whole(data: Path) -> bool:
    for path in data.rglob("*.INFO"):
        index = int(path.stem)
        if not path.read_text().startswith(json.dumps({**FOREIGN, "number": index}, indent=2).removesuffix("\n}")):
            return False
    return True


class Reader(threading.Thread):
    """Reads all sidecars all the while; ``broken`` names those that were not whole at some moment."""

    def __init__(self, data: Path) -> None:
        super().__init__(daemon=True)
        self.data = data
        self.broken: list[str] = []
        self.reads = 0
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            for path in self.data.rglob("*.INFO"):
                try:
                    json.loads(path.read_text())
                    self.reads += 1
                except ValueError:
                    self.broken.append(path.name)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return {**os.environ, "TMPDIR": str(scratch)}


def is_pythons_own(file: Path) -> bool:
    """Whether it is the file of four bytes with which the module tempfile tries a folder, before any code of ours."""
    return file.is_file() and file.read_bytes() in (b"", b"blat")


@pytest.mark.real
def test_kills_at_any_moment_lose_nothing(
    make_wav: MakeWav, random_settings: Settings, tmp_path: Path, environment: dict[str, str]
) -> None:
    data = make_tracks(make_wav, 60, seconds=20)
    moments = random.Random(KILLS)
    reader = Reader(data)
    reader.start()
    kills = 0
    words = command(data, random_settings, "--engine", "server")
    while kills < KILLS:
        child = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
        try:
            child.wait(moments.uniform(0.2, 2.5))
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
            kills += 1
        else:  # it had finished: begin anew, with the foreign keys alone
            assert child.returncode == 0
            for path in data.rglob("*.INFO"):
                fresh = tmp_path / "fresh"  # whole at any moment, as the reader expects
                fresh.write_text(json.dumps({**FOREIGN, "number": int(path.stem)}, indent=2))
                fresh.replace(path)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    reader.stopping.set()
    reader.join()
    assert done.returncode == 0, done.stderr
    assert captioned(data) == 60
    assert reader.reads > 60
    assert reader.broken == []
    assert foreign_is_whole(data)
    assert left_over(data) == []
    assert [file.name for file in (tmp_path / "scratch").iterdir() if not is_pythons_own(file)] == []
    listed = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(random_settings.models_folder) not in listed, "an engine outlived a killed run"


@pytest.mark.real
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_a_tree_and_do_no_track_twice(
    processes: int, make_wav: MakeWav, random_settings: Settings, environment: dict[str, str]
) -> None:
    data = make_tracks(make_wav, 200, foreign=False, seconds=0.6)
    words = command(data, random_settings, "--engine", "server", "--json")
    children = [
        subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    said = [child.communicate(timeout=300) for child in children]
    assert [child.returncode for child in children] == [0] * processes, [words for _, words in said]
    rows = [[json.loads(line) for line in out.splitlines()] for out, _ in said]
    did = [[row["track"] for row in part if row["captions"]] for part in rows]
    assert sorted(track for part in did for track in part) == sorted(map(str, data.rglob("*.wav")))
    assert all(len(part) > 5 for part in did), "one did all the work"
    assert captioned(data) == 200
    assert left_over(data) == []


@pytest.mark.real
def test_another_writer_loses_nothing_and_neither_do_we(
    make_wav: MakeWav, random_settings: Settings, environment: dict[str, str]
) -> None:
    from filelock import FileLock

    data = make_tracks(make_wav, 30, foreign=False, seconds=0.6)
    stop = threading.Event()
    written: dict[Path, int] = {}

    def write() -> None:
        while not stop.is_set():
            for audio in sorted(data.rglob("*.wav")):
                path = audio.with_suffix(".INFO")
                with FileLock(f"{path}.lock"):  # as other tools do: read all, add, write all
                    text = path.read_text() if path.exists() else None
                    number = written.get(path, 0) + 1
                    path.write_text(splice(text, {f"theirs_{number}": number}, path))
                written[path] = number

    writer = threading.Thread(target=write)
    writer.start()
    words = command(data, random_settings, "--engine", "server")
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    stop.set()
    writer.join()
    assert done.returncode == 0, done.stderr
    assert captioned(data) == 30
    for path, number in written.items():
        info = read_sidecar(path)
        assert all(info[f"theirs_{n}"] == n for n in range(1, number + 1)), path


# -- engines that misbehave ----------------------------------------------------------------------------


def fake(tmp_path: Path, random_models: Path, behaviour: str) -> Settings:
    return Settings(
        models_dir=random_models, llama_dir=write_fake(tmp_path / f"llama-{behaviour}", behaviour), threads=1
    )


def run(data: Path, settings: Settings, *options: str) -> tuple[int, str, list[dict[str, object]]]:
    """Exit code, words, and the run log's records."""
    log = data.parent / "run.jsonl"
    done = subprocess.run(
        command(data, settings, "--engine", "mtmd-cli", "--run-log", str(log), *options),
        capture_output=True,
        text=True,
        timeout=200,
    )
    records = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr, records


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        ("crash", "engine"),
        ("illegal", "engine"),
        ("hang", "timeout"),
        ("nothing", "refused answer"),
        ("no_audio", "not heard"),
        ("loses", "engine"),
    ],
)
def test_each_fault_is_counted_by_its_kind_and_the_batch_goes_on(
    behaviour: str, kind: str, make_wav: MakeWav, tmp_path: Path, random_models: Path
) -> None:
    data = make_tracks(make_wav, 2)
    code, said, records = run(data, fake(tmp_path, random_models, behaviour), "--retries", "0", "--timeout", "1")
    assert code == 1
    assert f"failed: {kind} 2" in said
    kinds = {failure["kind"] for record in records for failure in record.get("failures", [])}  # type: ignore[attr-defined]
    assert kinds == {kind}
    assert records[-1]["event"] == "end"
    assert records[-1]["failed"] == 2
    assert captioned(data) == 0
    assert foreign_is_whole(data)


def test_an_engine_that_comes_back_needs_no_second_run(make_wav: MakeWav, tmp_path: Path, random_models: Path) -> None:
    """What failed temporarily is tried again when the rest is done."""
    data = make_tracks(make_wav, 3)
    code, said, records = run(data, fake(tmp_path, random_models, "crashes_twice"))
    assert code == 0, said
    assert "2 tracks failed temporarily" in said
    assert "3 captioned" in said
    assert [record["event"] for record in records].count("track") == 3


def test_a_broken_engine_stops_the_run_with_one_message(make_wav: MakeWav, tmp_path: Path, random_models: Path) -> None:
    data = make_tracks(make_wav, 30)
    broken = fake(tmp_path, random_models, "crash")
    code, said, records = run(data, broken)
    assert code == 1
    assert "10 tracks in a row got no caption" in said
    assert "musicflamingo doctor" in said
    assert 10 <= [record["event"] for record in records].count("track") <= 25
    code, said, _ = run(data, broken, "--keep-going", "--limit", "15")
    assert "15 failed" in said


def test_what_failed_is_taken_up_again_and_nothing_else(make_wav: MakeWav, tmp_path: Path, random_models: Path) -> None:
    data = make_tracks(make_wav, 3)
    good = fake(tmp_path, random_models, "answer")
    audio = sorted(data.rglob("*.wav"))
    audio[1].write_bytes(b"")
    code, _, _ = run(data, good, "--exclude", audio[2].name)
    assert code == 1
    make_wav(str(audio[1].relative_to(tmp_path)))
    code, said, _ = run(data, good, "--retry-failed")
    assert code == 0
    assert "1 captioned" in said
    assert not read_sidecar(audio[2].with_suffix(".INFO")).get("music_flamingo_brief")


def test_ten_thousand_broken_files_are_ten_thousand_failures(
    make_wav: MakeWav, tmp_path: Path, random_models: Path
) -> None:
    data = make_tracks(make_wav, 3, foreign=False)
    for index in range(10_000):
        (data / "0" / f"b{index:05}.wav").write_bytes(b"RIFF")
    code, _, records = run(data, fake(tmp_path, random_models, "answer"), "--quiet")
    assert code == 1
    assert captioned(data) == 3
    assert records[-1]["failed"] == 10_000


def test_stale_captions_are_made_again_and_only_those(make_wav: MakeWav, tmp_path: Path, random_models: Path) -> None:
    data = make_tracks(make_wav, 3)
    good = fake(tmp_path, random_models, "answer")
    run(data, good)
    one = sorted(data.rglob("*.INFO"))[0]
    made = read_sidecar(one)["music_flamingo_provenance"]["brief"]
    merge_sidecar(one, {"music_flamingo_provenance": {"brief": {**made, "template": "of another prompt"}}})
    assert "1 tracks to caption" in run(data, good, "--stale", "--dry-run")[1]
    assert "1 captioned" in run(data, good, "--stale")[1]
    assert "0 tracks to caption, 3 complete" in run(data, good, "--stale")[1]
    assert "3 tracks to caption" in run(data, good, "--stale", "--seed", "7", "--dry-run")[1]
    assert "3 captioned" in run(data, good, "--overwrite")[1]


# -- file systems that refuse --------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB, where the tests may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_its_kind_and_harms_no_sidecar(
    small_disk: Path, make_wav: MakeWav, tmp_path: Path, random_models: Path
) -> None:
    for index in range(3):
        shutil.copy(make_wav(f"{index}.wav", 0.6), small_disk / f"{index}.wav")
        (small_disk / f"{index}.INFO").write_text(json.dumps({**FOREIGN, "filler": "x" * 9000}))
    before = {path: path.read_bytes() for path in small_disk.glob("*.INFO")}
    with (small_disk / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass
    settings = fake(tmp_path, random_models, "answer")
    log = tmp_path / "log.jsonl"
    done = subprocess.run(
        command(small_disk, settings, "--engine", "mtmd-cli", "--run-log", str(log)), capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "no space" in done.stderr
    assert {path: path.read_bytes() for path in small_disk.glob("*.INFO")} == before
    (small_disk / "filler").unlink()
    done = subprocess.run(command(small_disk, settings, "--engine", "mtmd-cli"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert captioned(small_disk) == 3
    assert left_over(small_disk) == []


def test_a_folder_that_vanishes_fails_its_tracks_and_no_others(
    make_wav: MakeWav, tmp_path: Path, random_models: Path
) -> None:
    data = make_tracks(make_wav, 12, foreign=False)
    settings = fake(tmp_path, random_models, "answer")
    child = start_batch(data, settings, "--engine", "mtmd-cli", "--preset", "brief", "--model", "F32", scratch=tmp_path)
    assert child.stderr
    said = ""
    for line in child.stderr:
        said += line
        if line.startswith("[1/12]"):
            shutil.rmtree(data / "2")
    code = child.wait(60)
    assert "Traceback" not in said
    assert code == 1, said
    assert captioned(data) == 8


@pytest.mark.real
def test_ctrl_c_twice_means_now(make_wav: MakeWav, random_settings: Settings, tmp_path: Path) -> None:
    data = make_tracks(make_wav, 20, seconds=100)
    words = command(data, random_settings, "--engine", "server")
    child = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts)
    assert child.stderr
    for line in child.stderr:
        if line.startswith("[1/20]"):
            break
    child.send_signal(signal.SIGINT)
    time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    started = time.monotonic()
    assert child.wait(10) == 130
    assert time.monotonic() - started < 3
    assert "what was finished is saved" not in child.stderr.read(), "one Ctrl-C did it"
    assert foreign_is_whole(data)
