"""A real S3 server on loopback (moto), and music in its buckets."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import soundfile

from musicflamingo_cli.stores.store import S3Store
from tests.conftest import tone


@pytest.fixture(scope="session")
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


def without_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, value)
