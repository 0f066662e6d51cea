"""Batches on a real Ray cluster of two nodes, whose parts are killed and frozen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from tests.cluster.conftest import (
    TOKEN,
    Cluster,
    descendants,
    processes,
    start_batch,
)

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.usefixtures("real_llama_dir")]
ENGINES = ("llama-server", "native.worker", "ray::CaptionActor")


@pytest.fixture(autouse=True)
def _real_home(monkeypatch: pytest.MonkeyPatch, real_llama_dir: Path) -> None:
    monkeypatch.setenv("MUSICFLAMINGO_LLAMA_DIR", str(real_llama_dir))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", str(Path(__file__).parents[2])))


def outcomes(folder: Path) -> list[dict[str, Any]]:
    """The tracks' lines of stdout; anything there that is not JSON fails."""
    return [each for line in (folder / "out").read_text().splitlines() if "track" in (each := json.loads(line))]


def finish(batch: subprocess.Popen[str], folder: Path, seconds: float = 240) -> list[dict[str, Any]]:
    assert batch.wait(seconds) == 0, (folder / "err").read_text()[-3000:]
    return outcomes(folder)


def wait_for_tracks(folder: Path, count: int, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while (folder / "out").read_text().count("\n") < count:
        assert time.monotonic() < deadline, (folder / "err").read_text()[-3000:]
        time.sleep(0.1)


def require_all_once(music: Path, done: list[dict[str, Any]]) -> None:
    assert Counter(each["track"] for each in done) == Counter({str(path): 1 for path in music.glob("*.wav")})
    assert not [each["failures"] for each in done if each["failures"]]
    for path in music.glob("*.wav"):
        info = json.loads(path.with_suffix(".INFO").read_text())
        assert info["music_flamingo_full"]
        assert list(info["music_flamingo_provenance"]) == ["full"]
    assert sorted({path.suffix for path in music.iterdir()}) == [".INFO", ".wav"], "nothing is left beside the tracks"


def token_of(pid: int) -> str:
    """The token in a process's environment, which only its owner may read."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    except OSError:
        return ""
    return next((each.partition("=")[2] for each in variables if each.startswith("RAY_AUTH_TOKEN=")), "")


def listening(pids: list[int]) -> set[str]:
    """The local addresses (hexadecimal) at which these processes listen."""
    found = set()
    for pid in pids:
        try:
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]  # noqa: PTH115, PTH208
            tables = [Path(f"/proc/{pid}/net/{table}").read_text() for table in ("tcp", "tcp6")]
        except OSError:
            continue
        inodes = {link[8:-1] for link in links if link.startswith("socket:")}
        rows = [row.split() for table in tables for row in table.splitlines()[1:]]
        found |= {row[1].split(":")[0] for row in rows if row[9] in inodes and row[3] == "0A"}
    return found


def require_gone(pids: list[int], folder: Path, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while (left := set(pids) & set(processes(""))) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, {pid: args for pid, args in processes("").items() if pid in left}
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not folder.exists()


LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}


def test_a_private_cluster_on_this_machine(music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its driver is killed once, and started again."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    for path in list(music.glob("*.wav"))[12:]:
        path.unlink()
    options = ("--ray", "--actors", "2", "--cpus-per-actor", "1", "--slots", "1")
    batch = start_batch(music, *options, environment={**os.environ}, folder=tmp_path)
    wait_for_tracks(tmp_path, 3)
    (private,) = [path for path in Path("/tmp").glob("mf-ray-*") if str(path) in str(processes(str(path)))]
    assert private.stat().st_mode & 0o777 == 0o700
    everything = descendants(batch.pid)
    assert len(everything) > 5
    assert listening(everything) <= LOOPBACK
    assert not (Path(os.environ["HOME"]) / ".ray").exists(), "the token is not written to a file"
    tokens = {token for pid in everything if (token := token_of(pid))}
    assert len(tokens) == 1
    assert not processes(*tokens), "no command line holds the token"
    batch.kill()
    batch.wait()
    first = outcomes(tmp_path)
    require_gone(everything[1:], private)
    batch = start_batch(music, *options, environment={**os.environ}, folder=tmp_path)
    done = finish(batch, tmp_path)
    again = {each["track"] for each in done if each["skipped"] != "complete"}
    assert not {each["track"] for each in first} & again
    require_all_once(music, done)
    last = json.loads((tmp_path / "out").read_text().splitlines()[-1])
    assert [node["state"] for node in last["nodes"]] == ["ready", "ready"]
    assert sum(node["clips"] for node in last["nodes"]) == len(again)
    assert [node["slots"] for node in last["nodes"]] == [2, 2], "one track's clip is prepared meanwhile"
    assert not list(scratch.iterdir()), "actors remove their temporary files"
    assert not [path for path in Path("/tmp").glob("mf-ray-*") if str(path) in str(processes(str(path)))]


@pytest.mark.parametrize("writer", ["driver", "actors"])
def test_an_actor_that_is_killed_costs_nothing(writer: str, cluster: Cluster, music: Path, tmp_path: Path) -> None:
    options = ("--ray", cluster.address, "--cpus-per-actor", "1", "--write", writer)
    batch = start_batch(music, *options, environment=cluster.environment, folder=tmp_path)
    wait_for_tracks(tmp_path, 8)
    actors = cluster.running("ray::CaptionActor")
    assert len(actors) == 2
    os.kill(actors[0], signal.SIGKILL)
    require_all_once(music, finish(batch, tmp_path))
    assert "failed and is left out" in (tmp_path / "err").read_text()
    assert cluster.running(*ENGINES) == []


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_node_that_is_lost_costs_nothing(fault: int, cluster: Cluster, music: Path, tmp_path: Path) -> None:
    options = ("--ray", cluster.address, "--cpus-per-actor", "1")
    batch = start_batch(music, *options, environment=cluster.environment, folder=tmp_path)
    wait_for_tracks(tmp_path, 8)
    cluster.signal_node(fault, 1)
    require_all_once(music, finish(batch, tmp_path))
    assert "left out" in (tmp_path / "err").read_text()


def test_a_driver_that_is_killed_is_started_again(cluster: Cluster, music: Path, tmp_path: Path) -> None:
    options = ("--ray", cluster.address, "--cpus-per-actor", "1")
    batch = start_batch(music, *options, environment=cluster.environment, folder=tmp_path)
    wait_for_tracks(tmp_path, 8)
    batch.kill()
    batch.wait()
    first = {each["track"] for each in outcomes(tmp_path)}
    deadline = time.monotonic() + 20
    while (left := cluster.running(*ENGINES)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == [], "actors and engines end with their driver"
    before = {path.name: path.read_text() for path in music.glob("*.INFO")}
    batch = start_batch(music, *options, environment=cluster.environment, folder=tmp_path)
    done = finish(batch, tmp_path)
    again = {each["track"] for each in done if each["skipped"] != "complete"}
    assert not first & again
    assert all((music / name).read_text() == text for name, text in before.items())
    require_all_once(music, done)


def test_ctrl_c_leaves_nothing_running(cluster: Cluster, music: Path, tmp_path: Path) -> None:
    options = ("--ray", cluster.address, "--cpus-per-actor", "1")
    batch = start_batch(music, *options, environment=cluster.environment, folder=tmp_path)
    wait_for_tracks(tmp_path, 5)
    batch.send_signal(signal.SIGINT)
    assert batch.wait(40) == 130
    deadline = time.monotonic() + 15
    while (left := cluster.running(*ENGINES)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []
    assert "Traceback" not in (tmp_path / "err").read_text()
    assert sorted({path.suffix for path in music.iterdir()}) == [".INFO", ".wav"]
    saved = [each["track"] for each in outcomes(tmp_path) if each["captions"]]
    assert all(Path(track).with_suffix(".INFO").exists() for track in saved)


def test_a_wrong_token_and_a_wrong_address_are_one_message(cluster: Cluster, music: Path, tmp_path: Path) -> None:
    environment = {**cluster.environment, "RAY_AUTH_TOKEN": TOKEN[::-1]}
    batch = start_batch(music, "--ray", cluster.address, environment=environment, folder=tmp_path)
    assert batch.wait(100) == 2
    assert "cannot connect to Ray" in (tmp_path / "err").read_text()
    assert "Traceback" not in (tmp_path / "err").read_text()


def test_nodes_with_another_model_are_named(cluster: Cluster, music: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from musicflamingo_cli.cluster import plan, captioner; real = plan.facts_of\n"
        "captioner.facts_of = lambda files: plan.Facts('9.9', real(files).python, 'other')\n"
        "from musicflamingo_cli.__main__ import main; main()"
    )
    command = [sys.executable, "-c", code, "batch", str(music), "--model", "tiny", "--ray", cluster.address]
    done = subprocess.run(command, capture_output=True, text=True, env=cluster.environment, timeout=120)
    assert done.returncode == 4
    assert f"node {os.uname().nodename} has version" in done.stderr
    assert not list(music.glob("*.INFO"))
