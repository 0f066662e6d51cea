"""A real review: the program in a process of its own, and requests made by hand."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.conftest import hear_interrupts
from tests.report.conftest import chromium  # noqa: F401  (a fixture)

PRESETS = ("full", "structure")
NASTY = "<script>window.hacked = true</script><img src=x onerror='window.hacked = true'> & \u2028 {{data}}"


class Answer:
    """An answer to a request."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """`musicflamingo review` on a dataset."""

    def __init__(self, dataset: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "musicflamingo_cli", "review", str(dataset), "-p", "full", "-p", "structure"]
        self.process = subprocess.Popen(
            [*command, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
            preexec_fn=hear_interrupts,
        )
        assert self.process.stdout
        self.url = self.process.stdout.readline().strip()
        if not self.url:
            assert self.process.stderr
            raise AssertionError(self.process.stderr.read())
        self.port = int(re.findall(r":(\d+)/", self.url)[0])
        self.cookie = self.csrf = ""

    def enter(self) -> Server:
        """Exchange the token for a cookie, and wait until the dataset is read."""
        answer = self.get(self.url.partition(f":{self.port}")[2])
        assert answer.status == 200
        self.cookie = answer.headers["set-cookie"].partition(";")[0]
        self.csrf = self.get("/api/session").json()["csrf"]
        while self.get("/api/order").json()["scanning"]:
            time.sleep(0.05)
        return self

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, headers=headers)

    def post(self, path: str, value: Any = None, **headers: str) -> Answer:
        given = {"Origin": f"http://127.0.0.1:{self.port}", "X-Review-CSRF": self.csrf, **headers}
        return self.request("POST", path, json.dumps(value or {}), {"Content-Type": "application/json", **given})

    def request(self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None) -> Answer:
        """Make a request; a header whose value is empty is left out."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        given = {"Host": f"127.0.0.1:{self.port}", "Cookie": self.cookie, **(headers or {})}
        given = {name.replace("_", "-"): value for name, value in given.items() if value}
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host=True)
            for name, value in given.items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body.encode())))
            connection.endheaders(body.encode() if body is not None else None)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def track(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/api/tracks/{number}").json()
        return found

    def caption(self, number: int, preset: str = "full") -> dict[str, Any]:
        return next(each for each in self.track(number)["captions"] if each["preset"] == preset)

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=20)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()


StartReview = Callable[..., Server]


@pytest.fixture
def start_review() -> Iterator[StartReview]:
    """``start_review(dataset, *options)`` starts a review, which ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(dataset: Path, *options: str, **more: Any) -> Server:
            server = Server(dataset, *options, **more)
            stack.callback(server.close)
            return server

        yield start


def write_tone(path: Path, seconds: float = 1.0, hertz: float = 440.0, rate: int = 22050) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate), rate)
    return path


def info_of(number: int) -> dict[str, Any]:
    """A sidecar's data: keys of other tools, and two captions."""
    return {
        "bpm": 120.5,
        "loudness": -0.10,
        "music_flamingo_full": f"A calm jazz piece no. {number:02d} at {80 + number} BPM in F# minor with piano.",
        "music_flamingo_structure": f"Intro and verse no. {number} here.",
        "music_flamingo_provenance": {"full": {"model": "m.gguf", "seed": number}},
        "zuletzt": "é",
    }


def make_dataset(root: Path, tracks: int) -> Path:
    """Write tracks with sidecars that other tools wrote to as well."""
    for number in range(tracks):
        audio = write_tone(root / f"disc {number % 2}" / f"track {number:02d} #é?.wav", 1.0, 110.0 * (number + 1))
        text = json.dumps(info_of(number), indent=2, ensure_ascii=False).replace("120.5", "1e400")
        audio.with_suffix(".INFO").write_text(text, encoding="utf-8")
    return root
