"""Batches over a real S3 server on loopback (moto): conditions, leases, kills, two processes in one bucket."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import soundfile

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

from musicflamingo_cli.captioning.captioner import Captioner, Policy
from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.stores.batch import Space, StoreBatch, find_stored
from musicflamingo_cli.stores.leases import Leases, claim_key
from musicflamingo_cli.stores.store import ConflictError, S3Store, is_store_url, open_store
from musicflamingo_cli.types import Outcome, Skipped
from tests.conftest import tone
from tests.fakes.engines import GOOD, REAL_PAIR, ScriptedEngine
from tests.fakes.pool import WaitingEngine

PRESETS = [Preset("full", "Describe it."), Preset("brief", "Be brief.")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("wb") as file:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"music-{abs(hash(request.node.name)) % 10**9}"
    S3Store()._files.mkdir(name)
    return name


def wav(hertz: float = 440.0, seconds: float = 1.0) -> bytes:
    with io.BytesIO() as file:
        soundfile.write(file, tone(seconds, hertz), 16_000, format="WAV")
        return file.getvalue()


def put_music(store: S3Store, bucket: str, count: int) -> None:
    audio = wav()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: store.write(f"{bucket}/d/{n % 7}/{n:03}.wav", audio, None), range(count)))


def sidecars(store: S3Store, bucket: str) -> dict[str, dict[str, Any]]:
    names = [name for name in store._files.find(f"{bucket}/d", refresh=True) if name.endswith(".INFO")]
    return {name: json.loads(store._files.cat_file(name)) for name in names}


def batch_for(store: S3Store, engine: Any, lease: float = 60.0) -> StoreBatch:
    captioner = Captioner(engine, REAL_PAIR, Policy(retries=0))
    return StoreBatch(store, captioner, PRESETS, Selection(), space=1 << 30, lease=lease)


def test_a_write_needs_its_condition(bucket: str) -> None:
    store, key = S3Store(), f"{bucket}/a.INFO"
    assert store.read(key) is None
    first = store.write(key, b"1", None)
    with pytest.raises(ConflictError):
        store.write(key, b"2", None)
    second = store.write(key, b"2", first)
    with pytest.raises(ConflictError):
        store.write(key, b"3", first)
    stored = store.read(key)
    assert stored is not None
    assert (stored.data, stored.tag) == (b"2", second)
    store.delete(key)
    store.delete(key)
    with pytest.raises(ConflictError):
        store.write(key, b"3", second)


def test_an_absurdly_large_sidecar_is_not_read(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, key = S3Store(), f"{bucket}/a.INFO"
    store.write(key, b"12345678", None)
    monkeypatch.setattr("musicflamingo_cli.stores.store._LARGEST_TEXT", 7)
    monkeypatch.setattr("aiobotocore.response.StreamingBody.read", lambda body: pytest.fail("it was read"))
    with pytest.raises(OSError, match="a sidecar of more than"):
        store.read(key)


def test_tracks_are_found_as_in_a_folder(bucket: str) -> None:
    store = S3Store()
    names = ["b.mp3", "a.wav", "a.mp3", "x/full_mix.flac", "x/drums.flac", ".hidden/c.wav", "notes.txt", "a.INFO"]
    for name in names:
        store.write(f"{bucket}/d/{name}", b"{}", None)
    items = list(find_stored(store, f"{bucket}/d", Selection()))
    found = {item.track.audio.name: item for item in items if not isinstance(item, Skipped)}
    assert sorted(found) == ["a.wav", "b.mp3", "full_mix.flac"]
    assert found["full_mix.flac"].sidecar == f"{bucket}/d/x/x.INFO"
    assert (found["a.wav"].has_sidecar, found["b.mp3"].has_sidecar) == (True, False)
    assert [item.path.name for item in items if isinstance(item, Skipped)] == ["a.mp3"]


def test_a_batch_captions_each_track_once(bucket: str) -> None:
    store = S3Store()
    put_music(store, bucket, 20)
    store.write(f"{bucket}/d/0/000.INFO", b'{"bpm": 1e400, "x": 0.10}', None)
    done: list[Outcome] = []
    assert batch_for(store, ScriptedEngine(lambda p, s: GOOD)).run(f"{bucket}/d", done.append) == 0
    assert len(done) == len({outcome.track.audio for outcome in done}) == 20
    assert all(outcome.saved for outcome in done)
    found = sidecars(store, bucket)
    assert len(found) == 20
    assert all(info["music_flamingo_full"] == GOOD for info in found.values())
    assert store._files.cat_file(f"{bucket}/d/0/000.INFO").startswith(b'{"bpm": 1e400, "x": 0.10,')
    assert not [name for name in store._files.find(f"{bucket}/d", refresh=True) if "claim" in name]
    done.clear()
    batch_for(store, ScriptedEngine(lambda p, s: GOOD)).run(f"{bucket}/d", done.append)
    assert {outcome.skipped for outcome in done} == {"complete"}


def test_a_sidecar_that_others_change_loses_nothing(bucket: str) -> None:
    store = S3Store()
    put_music(store, bucket, 1)
    key = f"{bucket}/d/0/000.INFO"

    def reply(prompt: Any, sampling: Any) -> str:
        stored = store.read(key)
        before = json.loads(stored.data) if stored else {}
        text = json.dumps(before | {f"theirs_{len(before)}": True})
        store.write(key, text.encode(), stored.tag if stored else None)
        return GOOD

    done: list[Outcome] = []
    batch_for(store, ScriptedEngine(reply)).run(f"{bucket}/d", done.append)
    assert done[0].saved
    info = sidecars(store, bucket)[key]
    assert {"theirs_0", "theirs_1", "music_flamingo_full", "music_flamingo_brief"} <= set(info)


def test_two_in_one_process_share_a_bucket(bucket: str) -> None:
    store = S3Store()
    put_music(store, bucket, 40)
    engines = [WaitingEngine(0.02), WaitingEngine(0.02)]
    done: list[Outcome] = []
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda each: batch_for(S3Store(), each, 4.0).run(f"{bucket}/d", done.append), engines))
    assert sum(engine.answered.total() for engine in engines) == 40
    assert sum(outcome.saved for outcome in done) == 40
    assert len(sidecars(store, bucket)) == 40


def test_a_claim_that_rests_is_taken_over(bucket: str) -> None:
    store, sidecar = S3Store(), f"{bucket}/d/a.INFO"
    store.write(claim_key(sidecar), b"of a process that was killed", None)
    with Leases(store, 0.6) as leases:
        started = time.monotonic()
        while True:
            with leases.claimed(sidecar) as is_ours:
                if is_ours:
                    break
            time.sleep(0.05)
        assert 0.5 < time.monotonic() - started < 5
    assert store.read(claim_key(sidecar)) is None


def test_a_claim_that_is_renewed_is_not_taken_over(bucket: str) -> None:
    store, sidecar = S3Store(), f"{bucket}/d/a.INFO"
    with Leases(store, 1.0) as ours, Leases(S3Store(), 1.0) as theirs, ours.claimed(sidecar) as is_ours:
        assert is_ours
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            with theirs.claimed(sidecar) as is_theirs:
                assert not is_theirs
            time.sleep(0.1)
        assert ours.is_held(sidecar)


def test_who_lost_a_claim_notices(bucket: str) -> None:
    store, sidecar = S3Store(), f"{bucket}/d/a.INFO"
    with Leases(store, 0.4) as leases, leases.claimed(sidecar):
        stored = store.read(claim_key(sidecar))
        while stored is not None:
            with contextlib.suppress(ConflictError):
                store.write(claim_key(sidecar), b"theirs", stored.tag)
                break
            stored = store.read(claim_key(sidecar))
        deadline = time.monotonic() + 5
        while leases.is_held(sidecar) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not leases.is_held(sidecar)
    kept = store.read(claim_key(sidecar))
    assert kept is not None
    assert kept.data == b"theirs"


def test_a_claim_on_a_finished_track_is_removed(bucket: str) -> None:
    """As left by a kill between saving and releasing."""
    store = S3Store()
    put_music(store, bucket, 1)
    batch_for(store, ScriptedEngine(lambda p, s: GOOD)).run(f"{bucket}/d", lambda outcome: None)
    store.write(claim_key(f"{bucket}/d/0/000.INFO"), b"of a process that was killed", None)
    done: list[Outcome] = []
    engine = ScriptedEngine(lambda p, s: GOOD)
    assert batch_for(store, engine, 0.5).run(f"{bucket}/d", done.append) == 0
    assert [outcome.skipped for outcome in done] == ["complete"]
    assert not engine.asked
    assert store.read(claim_key(f"{bucket}/d/0/000.INFO")) is None


def without_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, value)


def test_a_store_that_is_away_is_one_message(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="cannot list s3://no-such-bucket/d: no such folder"):
        list(find_stored(S3Store(), "no-such-bucket/d", Selection()))
    without_server(monkeypatch)
    with pytest.raises(ConfigError, match=f"cannot list s3://{bucket}/d: EndpointConnectionError"):
        list(find_stored(S3Store(), f"{bucket}/d", Selection()))


def test_a_store_that_goes_away_loses_no_claim(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = S3Store()
    there = store.write
    with Leases(store, 0.4) as leases, leases.claimed(f"{bucket}/d/a.INFO") as is_ours:
        assert is_ours
        without_server(monkeypatch)
        monkeypatch.setattr(store, "write", S3Store().write)
        time.sleep(0.3)
        monkeypatch.setattr(store, "write", there)
        version = store.read(claim_key(f"{bucket}/d/a.INFO"))
        deadline = time.monotonic() + 10
        while store.read(claim_key(f"{bucket}/d/a.INFO")) == version and time.monotonic() < deadline:
            time.sleep(0.05)
        assert store.read(claim_key(f"{bucket}/d/a.INFO")) != version, "it is renewed again"


def test_an_unreadable_sidecar_costs_its_track_only(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = S3Store()
    put_music(store, bucket, 3)
    store.write(f"{bucket}/d/1/001.INFO", b"{}", None)
    there = store.read

    def read(key: str) -> Any:
        if key.endswith("001.INFO"):
            raise PermissionError(13, "Forbidden")
        return there(key)

    monkeypatch.setattr(store, "read", read)
    done: list[Outcome] = []
    batch_for(store, ScriptedEngine(lambda prompt, sampling: GOOD)).run(f"{bucket}/d", done.append)
    assert {each.track.audio.name: [failure.kind for failure in each.failures] for each in done} == {
        "000.wav": [],
        "001.wav": ["no permission"],
        "002.wav": [],
    }


def test_space_is_bounded() -> None:
    space, most, now = Space(100), 0, 0
    lock = threading.Lock()

    def use(size: int) -> None:
        nonlocal most, now
        with space.taken(size):
            with lock:
                now += size
                most = max(most, now)
            time.sleep(0.01)
            with lock:
                now -= size

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, [40] * 20 + [500]))
    assert most == 500 or most <= 100
    with space.taken(500):
        pass


def test_urls_of_stores() -> None:
    assert is_store_url(str(Path("s3://bucket/music")))
    assert not is_store_url("/data/s3")
    assert not is_store_url("music")
    with pytest.raises(ConfigError, match="without conditions") as error:
        open_store("hf:/datasets/me/music", single_writer=False)
    assert "--single-writer" in error.value.hint


@pytest.mark.slow
def test_two_processes_that_are_killed_lose_nothing(bucket: str) -> None:
    """200 tracks, two processes at a time, four kills: each track once."""
    store = S3Store()
    put_music(store, bucket, 200)
    command = [sys.executable, "-m", "tests.stores.store_batch", f"{bucket}/d", "5"]
    saved: list[str] = []
    for enough in (20, 60, None):
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        if enough is not None:
            deadline = time.monotonic() + 120
            while len(sidecars(store, bucket)) < enough and time.monotonic() < deadline:
                time.sleep(0.2)
            for process in running:
                process.kill()
        for process in running:
            saved += process.communicate(timeout=300)[0].split()
            assert process.returncode == (0 if enough is None else -9)
    found = sidecars(store, bucket)
    assert len(found) == 200
    assert all(list(info["music_flamingo_provenance"]) == ["full"] for info in found.values())
    assert not [name for name in store._files.find(f"{bucket}/d", refresh=True) if "claim" in name]
    assert len(saved) == len(set(saved)), "no track was captioned twice"
    assert 190 <= len(saved) <= 200, "what a killed process saved, but could not report any more"


@pytest.mark.real
@pytest.mark.slow
def test_the_command_captions_a_bucket(bucket: str, real_llama_dir: Path) -> None:
    store = S3Store()
    put_music(store, bucket, 6)
    command = [sys.executable, "-m", "musicflamingo_cli", "batch", f"s3://{bucket}/d", "--model", "tiny", "--json"]
    command += ["-p", "full", "--temperature", "0", "--repeat-penalty", "1", "--threads", "1", "--retries", "0"]
    command += ["--llama-dir", str(real_llama_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert sorted(each["track"] for each in outcomes) == [f"s3://{bucket}/d/{n}/00{n}.wav" for n in range(6)]
    assert all(each["sidecar"] == each["track"].replace(".wav", ".INFO") for each in outcomes)
    assert len(sidecars(store, bucket)) == 6
    refused = subprocess.run([*command, "--ray"], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert "--ray is not available for stores" in refused.stderr
