"""Batches over a real S3 server on loopback (moto): conditions, leases, kills, two processes in one bucket."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

from dataclasses import replace

from musicflamingo_cli.captioning.batch import IN_PROGRESS_ELSEWHERE
from musicflamingo_cli.captioning.captioner import Captioner, Policy
from musicflamingo_cli.choices import Wanted
from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.errors import BatchStoppedError, ConfigError, EngineError, FailureKind, SidecarError
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.stores.batch import Space, StoreBatch, find_stored
from musicflamingo_cli.stores.leases import claim_key
from musicflamingo_cli.stores.store import ConflictError, S3Store, Store, is_store_url, open_store
from musicflamingo_cli.types import Answer, Failure, Outcome, Skipped, Track
from tests.fakes.engines import GOOD, REAL_PAIR, ScriptedEngine
from tests.fakes.pool import WaitingEngine
from tests.stores.conftest import put_music, sidecars, without_server

PRESETS = [Preset("full", "Describe it."), Preset("brief", "Be brief.")]


def batch_for(store: Store, engine: Any, lease: float = 60.0, selection: Selection | None = None) -> StoreBatch:
    captioner = Captioner(engine, REAL_PAIR, Policy(retries=0))
    return StoreBatch(store, captioner, PRESETS, selection or Selection(), space=1 << 30, lease=lease)


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
    with pytest.raises(SidecarError, match="a sidecar of more than"):
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


def test_a_store_that_is_away_is_one_message(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="cannot list s3://no-such-bucket/d: no such folder"):
        list(find_stored(S3Store(), "no-such-bucket/d", Selection()))
    without_server(monkeypatch)
    with pytest.raises(ConfigError, match=f"cannot list s3://{bucket}/d: EndpointConnectionError"):
        list(find_stored(S3Store(), f"{bucket}/d", Selection()))


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


@pytest.fixture
def forgetful(server: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The bucket behind a proxy that removes the conditions of writes: a store that does not know them."""

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kept = {name: value for name, value in self.headers.items() if not name.lower().startswith("if-")}
            connection = HTTPConnection(server.removeprefix("http://"), timeout=30)
            connection.request(self.command, self.path, body, kept)
            reply = connection.getresponse()
            data = reply.read()
            self.send_response_only(reply.status)
            for name, value in reply.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data if self.command != "HEAD" else b"")
            connection.close()

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = pass_on

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_port}")
    yield bucket
    proxy.shutdown()
    proxy.server_close()


def test_a_store_that_ignores_conditions_is_refused(forgetful: str) -> None:
    put_music(S3Store(is_conditional=False), forgetful, 3)
    store, folder = open_store(f"s3://{forgetful}/d", single_writer=False)
    engine = ScriptedEngine(lambda prompt, sampling: GOOD)
    with pytest.raises(ConfigError, match="ignores conditions") as error:
        batch_for(store, engine).run(folder, lambda outcome: None)
    assert "--single-writer" in error.value.hint
    assert not engine.asked
    store, folder = open_store(f"s3://{forgetful}/d", single_writer=True)
    done: list[Outcome] = []
    assert batch_for(store, engine).run(folder, done.append) == 0
    assert [outcome.saved for outcome in done] == [True] * 3
    assert not [name for name in S3Store()._files.find(forgetful) if "/.mf-" in name or "claim" in name]


def test_a_store_that_takes_conditions_is_not_changed(bucket: str) -> None:
    store = S3Store()
    put_music(store, bucket, 1)
    before = store._files.find(f"{bucket}/d", refresh=True)
    store.require_conditions(f"{bucket}/d")
    assert store._files.find(f"{bucket}/d", refresh=True) == before


def test_a_bucket_that_may_not_be_written_is_one_message(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise PermissionError(13, "Access Denied")

    store = S3Store()
    put_music(store, bucket, 1)
    monkeypatch.setattr(store, "write", refuse)
    with pytest.raises(ConfigError, match=f"cannot write to s3://{bucket}/d: Access Denied"):
        batch_for(store, ScriptedEngine(lambda p, s: GOOD)).run(f"{bucket}/d", lambda outcome: None)
    done: list[Outcome] = []
    captioner = Captioner(ScriptedEngine(lambda p, s: GOOD), REAL_PAIR, Policy(retries=0))
    asking = StoreBatch(store, captioner, PRESETS, Selection(wanted=Wanted.ALL, save=False), space=1 << 30)
    assert asking.run(f"{bucket}/d", done.append) == 0, "a question that is not saved needs no permission"
    assert done[0].captions


def test_what_another_process_captioned_meanwhile_stays(bucket: str) -> None:
    """As after a freeze between the last look at the claim and the write."""
    store = S3Store()
    put_music(store, bucket, 1)
    key = f"{bucket}/d/0/000.INFO"

    def reply(prompt: Any, sampling: Any) -> str:
        theirs = {"music_flamingo_full": "theirs", "music_flamingo_provenance": {"full": {"run": "theirs"}}}
        with contextlib.suppress(ConflictError):
            store.write(key, json.dumps(theirs).encode(), None)
        return GOOD

    done: list[Outcome] = []
    batch_for(store, ScriptedEngine(reply)).run(f"{bucket}/d", done.append)
    assert [caption.preset for outcome in done for caption in outcome.captions] == ["brief"]
    assert "kept: full" in done[0].notes[-1]
    info = sidecars(store, bucket)[key]
    assert (info["music_flamingo_full"], info["music_flamingo_brief"]) == ("theirs", GOOD)
    assert info["music_flamingo_provenance"]["full"] == {"run": "theirs"}
    assert info["music_flamingo_provenance"]["brief"]["engine"]


def test_what_fails_temporarily_is_tried_again(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("musicflamingo_cli.stores.batch.PAUSES", (0.01, 0.01))
    store = S3Store()
    put_music(store, bucket, 4)
    tries: Counter[str] = Counter()

    def fault(engine: WaitingEngine, clip: Any) -> None:
        tries["all"] += 1
        if tries["all"] in (2, 3):
            raise EngineError("it died")

    done: list[Outcome] = []
    batch_for(store, WaitingEngine(fault=fault)).run(f"{bucket}/d", done.append)
    assert len(done) == 4
    assert all(outcome.saved and not outcome.failures for outcome in done)
    assert all(len(info["music_flamingo_provenance"]) == 2 for info in sidecars(store, bucket).values())


def test_what_is_done_after_a_failure_elsewhere_is_not_left(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It failed for a moment, was claimed by another process that left it, and was then captioned."""
    monkeypatch.setattr("musicflamingo_cli.stores.batch.PAUSES", (0.01, 0.01))
    store = S3Store()
    put_music(store, bucket, 1)
    outcomes = iter([Outcome(Track(Path(), Path()), skipped=IN_PROGRESS_ELSEWHERE)])
    batch = batch_for(store, ScriptedEngine(lambda p, s: GOOD))
    really, failed = batch._caption, list[bool]()

    def caption(item: Any, leases: Any) -> Outcome:
        if not failed:
            failed.append(True)
            return Outcome(item.track, failures=(Failure("", FailureKind.ENGINE, "it died"),))
        other = next(outcomes, None)
        return replace(other, track=item.track) if other else really(item, leases)

    monkeypatch.setattr(batch, "_caption", caption)
    done: list[Outcome] = []
    assert batch.run(f"{bucket}/d", done.append) == 0
    assert [outcome.saved for outcome in done] == [True]


def test_two_that_overwrite_share_the_work(bucket: str) -> None:
    store = S3Store()
    put_music(store, bucket, 12)
    batch_for(store, ScriptedEngine(lambda p, s: "An old caption of it.")).run(f"{bucket}/d", lambda outcome: None)
    engines = [WaitingEngine(0.05), WaitingEngine(0.05)]
    everything = Selection(wanted=Wanted.ALL)
    with ThreadPoolExecutor(2) as threads:
        batches = [batch_for(S3Store(), each, 4.0, everything) for each in engines]
        list(threads.map(lambda batch: batch.run(f"{bucket}/d", lambda outcome: None), batches))
    assert sum(engine.answered.total() for engine in engines) == 12
    assert all("warm" in info["music_flamingo_full"] for info in sidecars(store, bucket).values())


def test_a_dead_engine_ends_the_run(bucket: str) -> None:
    class Dead(WaitingEngine):
        def describe(self, *_: Any) -> Iterator[Answer | Failure]:
            raise EngineError("it died")

    store = S3Store()
    put_music(store, bucket, 20)
    done: list[Outcome] = []
    with pytest.raises(BatchStoppedError, match="10 tracks in a row"):
        batch_for(store, Dead()).run(f"{bucket}/d", done.append)
    assert 10 <= len(done) <= 14
    assert not [name for name in store._files.find(f"{bucket}/d", refresh=True) if "claim" in name]


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
    edited, key = sidecars(store, bucket), f"{bucket}/d/0/000.INFO"
    edited[key]["music_flamingo_full"] = "by hand"
    edited[key]["music_flamingo_provenance"]["full"]["edited"] = True
    store._files.pipe_file(key, json.dumps(edited[key]).encode())
    for options, caption in (((), "by hand"), (("--edited",), edited[f"{bucket}/d/1/001.INFO"]["music_flamingo_full"])):
        again = [*command, "--overwrite", *options, "--include", "000.wav"]
        assert subprocess.run(again, capture_output=True, timeout=200).returncode == 0
        assert sidecars(store, bucket)[key]["music_flamingo_full"] == caption
    refused = subprocess.run([*command, "--ray"], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert "--ray is not available for stores" in refused.stderr
