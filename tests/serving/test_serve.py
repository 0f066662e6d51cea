"""`musicflamingo serve`: what it answers, what it refuses, and what it never says."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
uvicorn = pytest.importorskip("uvicorn")

from musicflamingo_cli.captioning.captioner import Captioner, Policy, open_captioner  # noqa: E402
from musicflamingo_cli.captioning.conversation import Chat  # noqa: E402
from musicflamingo_cli.cli.outcomes import outcome_json  # noqa: E402
from musicflamingo_cli.config import Settings  # noqa: E402
from musicflamingo_cli.demo.songs import songs  # noqa: E402
from musicflamingo_cli.engines.contract import Engine  # noqa: E402
from musicflamingo_cli.engines.conversation import messages, response_format  # noqa: E402
from musicflamingo_cli.engines.observer import UNOBSERVED, Observer  # noqa: E402
from musicflamingo_cli.errors import AnswerCancelledError, ConfigError, EngineError  # noqa: E402
from musicflamingo_cli.serving.app import Endpoint  # noqa: E402
from musicflamingo_cli.serving.clips import ClipStore  # noqa: E402
from musicflamingo_cli.serving.guard import Queue, require_token  # noqa: E402
from musicflamingo_cli.types import NO_AUDIO, Answer, Clip, Excerpt, Failure, Prompt, Sampling, Workload  # noqa: E402
from tests.conftest import MakeWav, hear_interrupts  # noqa: E402
from tests.fakes.engines import REAL_PAIR  # noqa: E402
from tests.fakes.pool import WaitingEngine  # noqa: E402

TOKEN = "correct-horse-battery"


@contextlib.contextmanager
def serving(engine: Engine, waiting: int = 4, upload_bytes: int = 1 << 20) -> Iterator[int]:
    """Serve with this engine; give the port."""
    with ClipStore(Excerpt(), 2) as clips, socket.create_server(("127.0.0.1", 0)) as listener:
        captioner = Captioner(engine, REAL_PAIR, Policy(retries=0))
        app = Endpoint(captioner, Settings(), clips, outcome_json).app(TOKEN, waiting, upload_bytes)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(10)


class Reply:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.text = response.read().decode()

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def send(
    port: int, method: str, path: str, body: bytes | None = None, kind: str = "", token: str | None = TOKEN
) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": kind} if kind else {}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    try:
        connection.request(method, path, body, headers)
        return Reply(connection.getresponse())
    finally:
        connection.close()


def form(audio: bytes | None, name: str = "song.wav", **fields: str | list[str]) -> tuple[bytes, str]:
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, values in fields.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    if audio is not None:
        head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
        parts.append(head + audio + b"\r\n")
    return b"".join(parts) + b"--x--\r\n", "multipart/form-data; boundary=x"


def upload(port: int, audio: bytes | None, name: str = "song.wav", **fields: str | list[str]) -> Reply:
    return send(port, "POST", "/caption", *form(audio, name, **fields))


def chat_body(audio: bytes, **more: Any) -> dict[str, Any]:
    part = {"type": "input_audio", "input_audio": {"data": base64.b64encode(audio).decode(), "format": "wav"}}
    content = [part, {"type": "text", "text": "Describe it."}]
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 24, **more}


def chat(port: int, body: Any) -> Reply:
    return send(port, "POST", "/v1/chat/completions", json.dumps(body).encode(), "application/json")


@pytest.fixture
def wav(make_wav: MakeWav) -> bytes:
    return make_wav(seconds=2).read_bytes()


def test_a_file_is_captioned_as_by_caption_json(wav: bytes) -> None:
    with serving(WaitingEngine()) as port:
        reply = upload(port, wav, "my song.wav", preset=["full", "structure"])
    assert reply.status == 200
    assert sorted(reply.json["captions"]) == ["full", "structure"]
    assert reply.json["track"] == "my song.wav"
    assert reply.json["sidecar"] is None
    assert reply.json["audio_seconds"] == 2.0
    expected = {"track", "sidecar", "captions", "failures", "skipped", "engine", "model", "audio_seconds", "seconds"}
    assert set(reply.json) == expected


def test_one_free_question(wav: bytes) -> None:
    with serving(WaitingEngine()) as port:
        assert list(upload(port, wav, ask="Which key?").json["captions"]) == ["ask"]
        assert upload(port, wav, ask="Which key?", preset="full").status == 400
        assert upload(port, wav, preset="nonsense").status == 400


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], TOKEN + "x"])
def test_nothing_without_the_token(token: str | None, wav: bytes) -> None:
    engine = WaitingEngine()
    with serving(engine) as port:
        for method, path in (("GET", "/v1/models"), ("POST", "/caption"), ("GET", "/nothing"), ("POST", "/health/x")):
            assert send(port, method, path, *form(wav), token=token).status == 401
        assert send(port, "GET", "/health", token=token).json == {"status": "ok"}
    assert not engine.answered


def test_more_than_the_queue_holds_is_refused(wav: bytes) -> None:
    engine = WaitingEngine(1.0)
    with serving(engine, waiting=1) as port, ThreadPoolExecutor(6) as threads:
        replies = list(threads.map(lambda _: upload(port, wav, preset="full"), range(6)))
        codes = sorted(reply.status for reply in replies)
        assert codes == [200, 200, 429, 429, 429, 429]
        refused = next(reply for reply in replies if reply.status == 429)
        assert 1 <= int(refused.headers["Retry-After"]) <= 120
        assert upload(port, wav, preset="full").status == 200, "places are given back"


def test_places_are_given_back_after_errors(wav: bytes) -> None:
    with serving(WaitingEngine(), waiting=0) as port:
        for _ in range(5):
            assert upload(port, b"no music", preset="full").status == 422
            assert upload(port, None).status == 400
            assert chat(port, {"messages": []}).status == 400
        assert upload(port, wav, preset="full").status == 200


def test_large_files_are_refused(wav: bytes) -> None:
    with serving(WaitingEngine(), upload_bytes=1 << 20) as port:
        assert upload(port, b"x" * (2 << 20)).status == 413
        body, kind = form(b"x" * (3 << 20))
        with socket.create_connection(("127.0.0.1", port)) as line:  # in chunks, without saying how much comes
            line.sendall(
                f"POST /caption HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: {kind}\r\n"
                "Transfer-Encoding: chunked\r\n\r\n".encode()
            )
            with contextlib.suppress(OSError):
                line.sendall(f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n")
            assert b"413" in line.recv(4096)
        assert upload(port, wav, preset="full").status == 200


def test_answers_hold_no_path_of_this_machine(wav: bytes, tmp_path: Path) -> None:
    def fail(engine: WaitingEngine, clip: Any) -> None:
        raise EngineError(f"it died (log: {tmp_path}/secret/mtmd.log) at {clip.path}")

    with serving(WaitingEngine(fault=fail)) as port:
        replies = [upload(port, wav, preset="full"), chat(port, chat_body(wav)), upload(port, b"no music")]
        replies += [
            upload(port, wav, "../../etc/passwd", preset="full"),
            upload(port, wav, "C:\\Users\\a.wav", ask="x"),
        ]
        replies += [send(port, "GET", "/v1/models"), send(port, "GET", "/caption"), send(port, "GET", "/nothing")]
    assert [reply.status for reply in replies] == [503, 503, 422, 503, 503, 200, 405, 404]
    for reply in replies:
        assert not any(part in reply.text for part in ("/tmp", "secret/", str(Path.home()), str(tmp_path), "etc/"))
    assert replies[3].json["track"] == "passwd"
    assert replies[4].json["track"] == "a.wav"


def test_a_home_with_spaces_is_not_shown(monkeypatch: pytest.MonkeyPatch, wav: bytes) -> None:
    monkeypatch.setenv("HOME", "/home/Ann Secret Lee")

    def fail(engine: WaitingEngine, clip: Any) -> None:
        raise EngineError(f"it died (model: {Path.home()}/models/a.gguf)")

    with serving(WaitingEngine(fault=fail)) as port:
        reply = chat(port, chat_body(wav))
    assert reply.json["error"]["message"] == "it died (model: a.gguf)"


def test_the_chat_form(wav: bytes) -> None:
    engine = WaitingEngine()
    with serving(engine) as port:
        first, second = chat(port, chat_body(wav)), chat(port, chat_body(wav))
    assert first.json["choices"][0]["message"]["content"].startswith("A warm track")
    assert first.json["usage"]["prompt_tokens_details"] == {"audio_tokens": 750}
    assert second.status == 200
    assert list(engine.answered.values()) == [2], "the same audio is the same clip"


class AskedEngine(WaitingEngine):
    """Keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Clip, Prompt]] = []

    def describe(
        self, clip: Clip, prompts: Sequence[Prompt], sampling: Sampling, observer: Observer = UNOBSERVED
    ) -> Iterator[Answer | Failure]:
        self.asked += [(clip, prompt) for prompt in prompts]
        return super().describe(clip, prompts, sampling, observer)


def test_a_schema_and_a_question_in_words_only() -> None:
    schema = {"type": "object", "properties": {"mood": {"type": "string", "maxLength": 9}}}
    prompt = Prompt(preset="p", text="A slow waltz.", max_tokens=24, schema=json.dumps(schema))
    engine = AskedEngine()
    with serving(engine) as port:
        body = {"messages": messages(prompt, []), **response_format(prompt), "stream": None, "max_tokens": None}
        reply = chat(port, body)
    assert reply.status == 200, reply.text
    ((clip, asked),) = engine.asked
    assert (clip, json.loads(asked.schema)) == (NO_AUDIO, schema)


class SpeakingEngine(WaitingEngine):
    """Passes its answer on word by word; ``fault`` may raise after the second one."""

    def describe(
        self,
        clip: Clip,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        observer: Observer = UNOBSERVED,
    ) -> Iterator[Answer | Failure]:
        fault, self.fault = self.fault, None
        for answer in super().describe(clip, prompts, sampling):
            assert isinstance(answer, Answer)
            for number, word in enumerate(answer.text.split(" ")):
                if number == 2 and fault:
                    fault(self, clip)
                observer.text(answer.prompt.preset, f"{' ' if number else ''}{word}")
            yield answer


def events(port: int, wav: bytes, **more: Any) -> list[dict[str, Any]]:
    """The events of a streamed answer, which must come to their end."""
    reply = chat(port, chat_body(wav, stream=True, **more))
    assert reply.status == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    *found, last = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
    assert last == "[DONE]"
    return [json.loads(data) for data in found]


@pytest.mark.parametrize("engine", [SpeakingEngine, WaitingEngine])
def test_an_answer_is_streamed(engine: type[WaitingEngine], wav: bytes) -> None:
    with serving(engine()) as port:
        whole = chat(port, chat_body(wav)).json
        *pieces, end, usage = events(port, wav, stream_options={"include_usage": True})
        assert len(events(port, wav)) == len(pieces) + 1
    texts = [piece["choices"][0]["delta"]["content"] for piece in pieces]
    assert "".join(texts) == whole["choices"][0]["message"]["content"]
    assert len(texts) == (9 if engine is SpeakingEngine else 1)
    assert end["choices"][0]["finish_reason"] == "stop"
    assert usage["usage"] == whole["usage"]
    assert {piece["id"] for piece in pieces} == {end["id"]}


def test_a_stream_that_fails_says_so(wav: bytes, tmp_path: Path) -> None:
    def fail(engine: WaitingEngine, clip: Any) -> None:
        raise EngineError(f"it died (log: {tmp_path}/secret/mtmd.log)")

    with serving(SpeakingEngine(fault=fail)) as port:
        *pieces, end = events(port, wav)
    assert len(pieces) == 2
    assert end["error"]["message"] == "it died (log: mtmd.log)"
    with serving(WaitingEngine(fault=fail)) as port:
        reply = chat(port, chat_body(wav, stream=True))
    assert reply.status == 503, "what is known before the first piece is a status"


def test_a_client_that_leaves_ends_its_answer(wav: bytes) -> None:
    ended = threading.Event()

    class Endless(WaitingEngine):
        def describe(self, clip: Clip, prompts: Sequence[Prompt], sampling: Sampling, observer: Any = None) -> Any:
            try:
                for _ in range(2000):  # 20 s, where nobody ends it
                    time.sleep(0.01)
                    observer.text("chat", "la ")
            finally:
                ended.set()
            yield

    with serving(Endless()) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        body = json.dumps(chat_body(wav, stream=True))
        connection.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {TOKEN}"})
        response = connection.getresponse()
        assert response.status == 200
        response.close()
        connection.close()
        assert ended.wait(10)


def test_temporary_files_that_were_swept_are_made_again(wav: bytes) -> None:
    with ClipStore(Excerpt(), 2) as clips:
        with clips.clip_of(wav, ".wav") as clip:
            assert clip.path.exists()
        shutil.rmtree(clip.path.parents[1])
        with clips.clip_of(wav, ".wav") as clip:
            assert clip.path.exists()


def part(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, more]}]}


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"messages": "x"},
        part(type="input_audio", input_audio={"url": "file:///etc/passwd"}),
        part(type="input_audio", input_audio={"url": "http://169.254.169.254/", "data": 3, "format": "wav"}),
        part(type="input_audio", input_audio={"data": "%%%", "format": "wav"}),
        part(type="input_audio", input_audio={"data": "", "format": "wav"}),
        part(type="image_url", image_url={"url": "http://example.org/"}),
        {"messages": [{"role": "user", "content": " "}]},
        {"messages": [{"role": "user", "content": "half a character: \ud800"}]},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "string", "pattern": "a"}}}},
        {"messages": [{"role": "assistant", "content": "x"}]},
        {"stream": "yes"},
        {"max_tokens": 10**9},
        {"temperature": "hot"},
        {"temperature": 1e9},
        {"seed": 1.5},
        {"n": 5},
        {"tools": [{}]},
    ],
    ids=str,
)
def test_requests_that_are_not_understood(body: Any, wav: bytes) -> None:
    if isinstance(body, dict) and "messages" not in body:
        body = chat_body(wav) | body
    with serving(WaitingEngine()) as port:
        reply = chat(port, body)
    assert reply.status == 400
    assert reply.json["error"]["message"]


def test_deep_json_is_refused() -> None:
    with serving(WaitingEngine()) as port:
        reply = send(port, "POST", "/v1/chat/completions", b"[" * 200_000, "application/json")
    assert reply.status == 400


@pytest.mark.parametrize("token", ["", "short", "with a space in it", "ümläutümläutümläut", "x" * 15])
def test_tokens_that_are_refused(token: str) -> None:
    with pytest.raises(ConfigError):
        require_token(token)


def test_the_wait_grows_with_the_queue() -> None:
    queue = Queue(slots=1, waiting=3)
    assert [queue.enter() for _ in range(4)] == [0] * 4
    assert queue.enter() == 20
    for _ in range(4):
        queue.leave(60.0)
    assert queue.enter() == 0


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "MUSICFLAMINGO_API_KEY": TOKEN, "MUSICFLAMINGO_SERVE_TOKEN": TOKEN, **more}


@pytest.fixture
def real_server(real_llama_dir: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "musicflamingo_cli", "serve", "--model", "tiny", "--port", "0", "--json"]
    command += ["--llama-dir", str(real_llama_dir), "--threads", "1", "--engine", "server", "--slots", "2"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(), preexec_fn=hear_interrupts)
    yield server
    server.kill()
    server.wait()


@pytest.mark.real
@pytest.mark.slow
def test_a_batch_by_our_own_serve(real_server: subprocess.Popen[str], make_wav: MakeWav, tmp_path: Path) -> None:
    assert real_server.stdout
    address = json.loads(real_server.stdout.readline())
    for number in range(5):
        make_wav(f"music/{number}.wav", 6, 200 + 60 * number)
    command = [sys.executable, "-m", "musicflamingo_cli", "batch", str(tmp_path / "music"), "--json", "-p", "full"]
    command += ["-p", "structure", "--endpoint", address["url"], "--temperature", "0", "--retries", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment())
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) == 5, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    kinds = {failure["reason"].split(" (")[0] for outcome in outcomes for failure in outcome["failures"]}
    assert not any("rejected" in kind or "answered" in kind or "not heard" in kind for kind in kinds), kinds
    saved = [json.loads(path.read_text()) for path in (tmp_path / "music").glob("*.INFO")]
    assert saved
    for info in saved:
        for made in info["music_flamingo_provenance"].values():
            assert made["toy"] is True
            assert "heard" not in made
    _hold_conversation(address["url"])
    real_server.send_signal(signal.SIGINT)
    assert real_server.wait(20) == 0


def _hold_conversation(url: str) -> None:
    """Three questions from Python, whose answers arrive in pieces; one is stopped."""
    song, pieces = songs()[0], list[str]()

    def stop(piece: str) -> None:
        raise AnswerCancelledError("enough")

    os.environ["MUSICFLAMINGO_API_KEY"] = TOKEN
    try:
        settings = Settings(endpoint=url, temperature=0.0)
        with open_captioner(settings, Workload(1, 1)) as captioner, Chat(captioner, [song.path]) as conversation:
            text = conversation.ask("What are the tempo and the key of this track?", pieces.append)
            assert song.truth["tempo"].split()[0] in text
            assert len(pieces) > 5
            with pytest.raises(AnswerCancelledError):
                conversation.ask("Which instruments are played?", stop)
            assert conversation.ask("Which instruments are played?")
            assert [answer.audio_tokens for answer in conversation.answers] == [500, 500]
    finally:
        del os.environ["MUSICFLAMINGO_API_KEY"]


@pytest.mark.real
def test_only_this_machine_without_a_token(real_llama_dir: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "musicflamingo_cli",
        "serve",
        "--model",
        "tiny",
        "--host",
        "0.0.0.0",
        "--port",
        "0",
    ]
    env = environment()
    del env["MUSICFLAMINGO_SERVE_TOKEN"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 2
    assert "needs a token" in done.stderr


@pytest.mark.real
def test_the_token_file_is_private(real_llama_dir: Path) -> None:
    command = [sys.executable, "-m", "musicflamingo_cli", "serve", "--model", "tiny", "--port", "0", "--json"]
    env = environment()
    del env["MUSICFLAMINGO_SERVE_TOKEN"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, preexec_fn=hear_interrupts)
    try:
        assert server.stdout
        address = json.loads(server.stdout.readline())
        file = Path(address["token"])
        assert file.stat().st_mode & 0o777 == 0o600
        port = int(address["url"].rpartition(":")[2])
        assert address["url"].startswith("http://127.0.0.1:")
        assert send(port, "GET", "/v1/models", token=file.read_text().strip()).status == 200
        assert send(port, "GET", "/v1/models").status == 401
        started = time.monotonic()
        server.terminate()
        assert server.wait(20) == 0
        assert time.monotonic() - started < 10
    finally:
        server.kill()
        server.wait()
