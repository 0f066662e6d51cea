from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from musicflamingo_cli.audio.clip import prepared
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.mtmd_cli import MtmdCliEngine
from musicflamingo_cli.engines.resident_process import Died
from musicflamingo_cli.engines.server.embedded import embedded_server
from musicflamingo_cli.engines.server.process import Program, ServerProcess, chat_request
from musicflamingo_cli.engines.server.server import ServerEngine, llama_server
from musicflamingo_cli.errors import EngineError, MusicFlamingoError
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling
from tests.conftest import MakeWav, start_batch

GREEDY = Sampling(temperature=0.0, seed=7)
PROMPTS = [
    Prompt(preset=f"p{i}", text=text, max_tokens=40)
    for i, text in enumerate(["Describe it.", "Which key?", "How fast, and why?"])
]


@pytest.fixture(params=["server", "embedded"])
def engine(request: pytest.FixtureRequest, random_settings: Settings) -> Iterator[ServerEngine]:
    program = llama_server(random_settings) if request.param == "server" else embedded_server()
    engine = server_engine(random_settings, program=program)
    yield engine
    engine.close()


def server_engine(settings: Settings, at_once: int = 1, program: Program | None = None) -> ServerEngine:
    model = resolve("F32", settings.models_folder)
    return ServerEngine(program or llama_server(settings), settings, model, at_once)


def running(engine: ServerEngine) -> ServerProcess:
    assert engine._slots._process
    return engine._slots._process


def server_of(batch: subprocess.Popen[str]) -> int:
    listed = subprocess.run(["ps", "-ewwo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()]
    ours = [row for row in rows if row[1] == str(batch.pid)]
    names = ("llama-server", "engines.server.embedded", "engines.native.worker")
    (pid,) = [int(row[0]) for row in ours if any(name in row[2] for name in names)]
    return pid


def folders_of(batch: subprocess.Popen[str], tmp_path: Path) -> list[Path]:
    return [path for parent in (tmp_path, Path("/tmp")) for path in parent.glob(f"musicflamingo-*-{batch.pid}-*")]


def prompt_tokens(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return a list that fills with the evaluated tokens and all tokens of each prompt, by the server's timings."""
    counted: list[tuple[int, int]] = []
    ask = ServerProcess.ask

    def counting(self: ServerProcess, *arguments: Any) -> Any:
        reply, seconds = ask(self, *arguments)
        timings = reply["timings"]
        counted.append((timings["prompt_n"], timings["prompt_n"] + timings["cache_n"]))
        return reply, seconds

    monkeypatch.setattr(ServerProcess, "ask", counting)
    return counted


def ports_of(pid: int) -> list[str]:
    """Return the local addresses (hexadecimal, as the kernel lists them) of a process's TCP and UDP sockets."""
    links = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {link[8:-1] for link in links if link.startswith("socket:")}
    tables = [Path(f"/proc/{pid}/net/{table}").read_text() for table in ("tcp", "tcp6", "udp", "udp6")]
    rows = [row.split() for table in tables for row in table.splitlines()[1:]]
    return [row[1] for row in rows if row[9] in inodes and row[3] != "06"]


def is_gone(pid: int, seconds: float = 10) -> bool:
    """Return whether the process ends (or is a zombie that nobody reaps) within the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.real
@pytest.mark.slow
def test_answers_equal_those_of_mtmd_cli(make_wav: MakeWav, random_settings: Settings) -> None:
    """Greedy answers of both engines are equal, whichever prompt came first.

    Without a repeat penalty, for which the server counts the prompt's tokens, too.
    """
    greedy = replace(GREEDY, repeat_penalty=1.0)
    cli = MtmdCliEngine(random_settings, resolve("F32", random_settings.models_folder))
    with contextlib.closing(server_engine(random_settings)) as engine:
        for hertz in (300, 2000):
            with prepared(make_wav(f"{hertz}.wav", 3, hertz)) as clip:
                ours = {a.prompt.preset: a for a in engine.describe(clip, PROMPTS, greedy) if isinstance(a, Answer)}
                theirs = {a.prompt.preset: a for a in cli.describe(clip, PROMPTS, greedy) if isinstance(a, Answer)}
            assert {k: a.text.strip() for k, a in ours.items()} == {k: a.text.strip() for k, a in theirs.items()}
            assert {k: a.hit_limit for k, a in ours.items()} == {k: a.hit_limit for k, a in theirs.items()}
            assert {a.audio_tokens for a in ours.values()} == {engine.expected_audio_tokens(clip)}
            assert len({a.text for a in ours.values()}) == len(PROMPTS)


@pytest.mark.real
def test_the_audio_is_processed_once_for_all_prompts(
    make_wav: MakeWav, engine: ServerEngine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = prompt_tokens(monkeypatch)
    with prepared(make_wav(seconds=59)) as clip:
        list(engine.describe(clip, PROMPTS, GREEDY))
    audio_tokens = engine.expected_audio_tokens(clip)
    assert audio_tokens >= 59 * 25
    evaluated = [count for count, _ in counted]
    assert sorted(count > audio_tokens for count in evaluated) == [False, False, True]
    assert sum(evaluated) < audio_tokens + 200
    assert caplog.messages == []


@pytest.mark.real
def test_thirty_seconds_take_no_extra_window(
    make_wav: MakeWav, engine: ServerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upstream adds a silent window at each multiple of 30 s (issue 27697); our clips avoid it.

    Where windows are trimmed, the clip of 30 s has two tokens more than that of 29.9 s.
    """
    counted = prompt_tokens(monkeypatch)
    for seconds in (29.9, 30.0):
        with prepared(make_wav(f"{seconds}.wav", seconds)) as clip:
            list(engine.describe(clip, PROMPTS[:1], GREEDY))
    (_, less), (_, thirty) = counted
    assert 747 < less <= thirty <= less + 2 < 1000


@pytest.mark.real
@pytest.mark.parametrize("kind", ["server", "embedded"])
def test_a_key_and_settings_of_the_user_do_not_reach_it(
    make_wav: MakeWav, random_settings: Settings, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_API_KEY", "of-another-server")
    monkeypatch.setenv("LLAMA_ARG_N_PREDICT", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    program = llama_server(random_settings) if kind == "server" else embedded_server()
    engine = server_engine(random_settings, program=program)
    try:
        with prepared(make_wav()) as clip:
            (answer,) = engine.describe(clip, PROMPTS[:1], GREEDY)
        environment = Path(f"/proc/{running(engine).child.process.pid}/environ").read_bytes()
    finally:
        engine.close()
    assert isinstance(answer, Answer), answer
    assert b"hf_secret" not in environment
    assert b"of-another-server" not in environment
    assert b"LLAMA_ARG_" not in environment


@pytest.mark.real
def test_another_clip_gets_another_answer(make_wav: MakeWav, engine: ServerEngine) -> None:
    texts = []
    for hertz in (300, 2000, 300):
        with prepared(make_wav(f"{hertz}.wav", 3, hertz)) as clip:
            (answer,) = engine.describe(clip, PROMPTS[:1], GREEDY)
        assert isinstance(answer, Answer)
        texts.append(answer.text)
    assert texts[0] == texts[2] != texts[1]


@pytest.mark.real
@pytest.mark.slow
def test_a_longer_clip_gets_a_larger_context(
    make_wav: MakeWav, engine: ServerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine._budget, "_fits_easily", lambda size: False)
    sizes = []
    for seconds in (2, 200, 2):
        with prepared(make_wav(f"{seconds}.wav", seconds)) as clip:
            assert all(isinstance(result, Answer) for result in engine.describe(clip, PROMPTS[:2], GREEDY))
        sizes.append(running(engine).context)
    assert sizes == [4096, 8192, 8192]


@pytest.mark.real
def test_a_killed_server_is_restarted_and_no_answer_is_lost(
    make_wav: MakeWav, engine: ServerEngine, caplog: pytest.LogCaptureFixture
) -> None:
    with prepared(make_wav(seconds=3)) as clip:
        results = engine.describe(clip, PROMPTS, GREEDY)
        first = next(results)
        running(engine).child.process.kill()
        rest = list(results)
        repeated = list(engine.describe(clip, PROMPTS, GREEDY))
    answers = [first, *rest]
    assert all(isinstance(answer, Answer) for answer in answers)
    assert sorted(a.prompt.preset for a in answers if isinstance(a, Answer)) == ["p0", "p1", "p2"]
    assert len(repeated) == 3
    assert len([message for message in caplog.messages if "restarted" in message]) <= 1


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "number"),
    [("server", signal.SIGKILL), ("embedded", signal.SIGKILL), ("native", signal.SIGKILL), ("native", signal.SIGSEGV)],
)
def test_a_batch_continues_after_its_server_dies(
    name: str, number: int, make_wav: MakeWav, random_settings: Settings, tmp_path: Path
) -> None:
    for index in range(20):
        make_wav(f"data/{index:02}.wav", 2, 300 + 50 * index)
    options = ("--engine", name, "--timeout", "60", "--preset", "brief", "--preset", "technical")
    batch = start_batch(tmp_path / "data", random_settings, *options, scratch=tmp_path)
    assert batch.stderr
    lines = []
    for line in batch.stderr:
        lines.append(line)
        if line.startswith("[5/20]"):
            os.kill(server_of(batch), number)
    assert batch.wait(60) == 0, lines
    assert "restarted" in "".join(lines)
    assert len(list((tmp_path / "data").glob("*.INFO"))) == 20
    assert not folders_of(batch, tmp_path)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("name", ["server", "embedded", "native"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_server_outlives_the_run(
    name: str, number: int, make_wav: MakeWav, random_settings: Settings, tmp_path: Path
) -> None:
    for index in range(10):
        make_wav(f"data/{index}.wav", 20)
    batch = start_batch(tmp_path / "data", random_settings, "--engine", name, scratch=tmp_path)
    assert batch.stderr
    for line in batch.stderr:
        if line.startswith("[1/10]"):
            break
    server = server_of(batch)
    batch.send_signal(number)
    batch.stderr.read()
    assert batch.wait(20) == (-9 if number == signal.SIGKILL else 130)
    assert is_gone(server)
    if number != signal.SIGKILL:
        assert not folders_of(batch, tmp_path)


@pytest.mark.real
def test_only_the_owner_can_connect(make_wav: MakeWav, engine: ServerEngine) -> None:
    with prepared(make_wav()) as clip:
        list(engine.describe(clip, PROMPTS[:1], GREEDY))
    pid, path = running(engine).child.process.pid, running(engine).socket
    assert path
    assert path.parent.stat().st_mode & 0o077 == 0
    assert not ports_of(pid), "it listens on a port"
    if os.geteuid() == 0:
        become_nobody = "import os, socket; os.setgid(65534); os.setuid(65534)"
        code = f"{become_nobody}; socket.socket(socket.AF_UNIX).connect({str(path)!r})"
        done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
        assert "PermissionError" in done.stderr
    socket.socket(socket.AF_UNIX).connect(str(path))  # we can


@pytest.mark.real
def test_without_unix_sockets_it_uses_loopback_and_a_key(
    make_wav: MakeWav, engine: ServerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    with prepared(make_wav()) as clip:
        results = list(engine.describe(clip, PROMPTS, GREEDY))
    assert all(isinstance(result, Answer) for result in results)
    server = running(engine)
    pid = server.child.process.pid
    assert {address.split(":")[0] for address in ports_of(pid)} == {"0100007F"}, "other than 127.0.0.1"
    assert server._key not in Path(f"/proc/{pid}/cmdline").read_text()
    body = json.dumps(chat_request(PROMPTS[0], GREEDY, 0))
    for headers in ({}, {"Authorization": "Bearer guess"}):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json", **headers})
        assert connection.getresponse().status == 401


@pytest.mark.real
@pytest.mark.slow
def test_four_slots_answer_about_their_own_clip(make_wav: MakeWav, random_settings: Settings) -> None:
    """Clips and slots are never mixed up: each clip gets the answers that it gets alone."""
    engine = server_engine(replace(random_settings, slots=4), at_once=8)
    assert engine.slots == 4

    def texts_of(hertz: int) -> set[str]:
        with prepared(make_wav(f"{hertz}.wav", 3, hertz)) as clip:
            return {a.text for a in engine.describe(clip, PROMPTS, GREEDY) if isinstance(a, Answer)}

    try:
        pitches = [200 * 2**octave for octave in range(5)] * 2
        alone = {hertz: texts_of(hertz) for hertz in pitches}
        with ThreadPoolExecutor(5) as pool:
            together = list(zip(pitches, pool.map(texts_of, pitches), strict=True))
    finally:
        engine.close()
    assert all(len(texts) == 3 for texts in alone.values())
    # Batching changes the order of floating-point sums and so the result of near-ties: most answers are equal, not all.
    same = sum(len(alone[hertz] & texts) for hertz, texts in together)
    assert same >= 0.8 * 3 * len(together)
    foreign = sum(len(texts & alone[other]) for hertz, texts in together for other in alone if other != hertz)
    assert foreign == 0


# -- fakes for what the real one does not do on command --------------------------------------------

_DIES = "#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'version: 1'; exit; fi\n"


def fake_server(folder: Path, script: str) -> Settings:
    folder.mkdir(exist_ok=True)
    binary = folder / "llama-server"
    binary.write_text(_DIES + script)
    binary.chmod(0o755)
    return Settings(llama_dir=folder, timeout=2)


CLIP = Clip(path=Path("/dev/null"), samples=16_000, source_seconds=1.0, was_cut=False)


@pytest.mark.parametrize(
    ("script", "reason", "hint"),
    [
        ("echo 'failed to load model' >&2; exit 1", "cannot load the model", "models list"),
        ("echo 'cudaMalloc failed: out of memory'; exit 1", "not enough memory", "smaller quant"),
        ("echo strange output; kill -SEGV $$", "strange output", "--engine mtmd-cli"),
    ],
)
def test_a_server_that_cannot_start_gives_a_reason_and_a_hint(
    tmp_path: Path, random_models: Path, script: str, reason: str, hint: str
) -> None:
    settings = replace(fake_server(tmp_path / "llama", script), models_dir=random_models)
    engine = server_engine(settings)
    with pytest.raises(MusicFlamingoError) as caught:
        list(engine.describe(CLIP, PROMPTS, GREEDY))
    assert reason in str(caught.value)
    assert hint in caught.value.hint


_ANSWERS = f"""exec {sys.executable} -c '
import http.server, json, os, socketserver, sys, threading, time
behaviour, turn = sys.argv[1], threading.Lock()
path = sys.argv[sys.argv.index("--host") + 1]
class Handler(http.server.BaseHTTPRequestHandler):
    def address_string(self): return "x"
    def reply(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status); self.send_header("Content-Length", str(len(data))); self.end_headers()
        self.wfile.write(data)
    def do_GET(self): self.reply(200, {{}})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if behaviour == "poisoned":
            media = sys.argv[sys.argv.index("--media-path") + 1]
            time.sleep(0.05)
            with open("%s/slot%d-0.wav" % (media, asked["id_slot"])) as clip:
                if clip.read() == "poison": os._exit(3)
        if behaviour == "dies": os._exit(3)
        if behaviour == "hangs": time.sleep(30)
        if behaviour.startswith("slow"):  # one after another, as a slot answers
            with turn: time.sleep(float(behaviour[4:]))
        if behaviour == "refuses": return self.reply(400, {{"error": {{"message": "no such file"}}}})
        n = 20 if behaviour == "no_audio" else 790
        self.reply(200, {{"choices": [{{"finish_reason": "stop", "message": {{"content": "A warm track."}}}}],
                         "timings": {{"cache_n": 0, "prompt_n": n, "predicted_n": 3}}}})
class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer): daemon_threads = True
Server(path, Handler).serve_forever()
' BEHAVIOUR "$@"
"""


def results_of(behaviour: str, tmp_path: Path, random_models: Path) -> list[Answer | Failure]:
    settings = fake_server(tmp_path / "llama", _ANSWERS.replace("BEHAVIOUR", behaviour))
    engine = server_engine(replace(settings, models_dir=random_models))
    try:
        return list(engine.describe(CLIP, PROMPTS, GREEDY))
    finally:
        engine.close()


def test_a_server_that_dies_twice_is_an_engine_error(
    tmp_path: Path, random_models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(EngineError, match="died"):
        results_of("dies", tmp_path, random_models)
    assert len(caplog.messages) == 1


def test_slots_are_halved_when_memory_runs_out(
    tmp_path: Path, random_models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    crowded = 'case "$*" in *"-np 1 "*) ;; *) echo "cudaMalloc failed: out of memory"; exit 1 ;; esac\n'
    settings = fake_server(tmp_path / "llama", crowded + _ANSWERS.replace("BEHAVIOUR", "answers"))
    engine = server_engine(replace(settings, models_dir=random_models, slots=4), at_once=9)
    try:
        results = list(engine.describe(CLIP, PROMPTS, GREEDY))
    finally:
        engine.close()
    assert all(isinstance(result, Answer) for result in results)
    assert [message for message in caplog.messages if "memory" in message] == [
        "not enough memory for 4 tracks at once; trying 2",
        "not enough memory for 2 tracks at once; trying 1",
    ]


@pytest.mark.real
def test_a_server_that_ended_between_clips_is_restarted(make_wav: MakeWav, engine: ServerEngine) -> None:
    with prepared(make_wav()) as clip:
        list(engine.describe(clip, PROMPTS[:1], GREEDY))
        server = running(engine)
        server.close()  # as another slot does that notices the death first
        with pytest.raises(Died):
            server.put(clip, 0)
        assert all(isinstance(result, Answer) for result in engine.describe(clip, PROMPTS, GREEDY))


def test_only_the_clip_that_kills_the_server_fails(
    tmp_path: Path, random_models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = replace(fake_server(tmp_path / "llama", _ANSWERS.replace("BEHAVIOUR", "poisoned")), slots=4)
    engine = server_engine(replace(settings, models_dir=random_models), at_once=12)

    def results(index: int) -> list[Answer | Failure] | EngineError:
        path = tmp_path / f"{index}.wav"
        path.write_text("poison" if index % 5 == 2 else "music")
        try:
            return list(
                engine.describe(Clip(path=path, samples=16_000, source_seconds=1.0, was_cut=False), PROMPTS, GREEDY)
            )
        except EngineError as error:
            return error

    with ThreadPoolExecutor(5) as pool:
        outcomes = list(pool.map(results, range(12)))
    engine.close()
    assert [index for index, result in enumerate(outcomes) if isinstance(result, EngineError)] == [2, 7]
    assert all(len(result) == 3 for result in outcomes if isinstance(result, list))
    assert all("restarted" in message for message in caplog.messages if "slow" not in message)


@pytest.mark.parametrize(("behaviour", "kind"), [("refuses", "engine"), ("hangs", "timeout")])
def test_each_prompt_fails_separately(
    behaviour: str, kind: str, tmp_path: Path, random_models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    results = results_of(behaviour, tmp_path, random_models)
    assert [result.kind for result in results if isinstance(result, Failure)] == [kind] * 3


@pytest.mark.slow
def test_waiting_for_other_prompts_is_no_timeout(
    tmp_path: Path, random_models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The limit of two seconds is between answers: the third of these comes after three seconds."""
    results = results_of("slow1.0", tmp_path, random_models)
    assert [type(result) for result in results] == [Answer] * 3


def test_failed_prompts_are_not_counted_as_unshared_audio(
    tmp_path: Path, random_models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    results = results_of("hangs", tmp_path, random_models)
    assert len(results) == 3
    assert not [message for message in caplog.messages if "slow" in message]


@pytest.mark.real
def test_more_prompts_than_the_queue_of_the_socket(
    make_wav: MakeWav, engine: ServerEngine, caplog: pytest.LogCaptureFixture
) -> None:
    prompts = [Prompt(preset=f"p{i}", text=f"Question {i}", max_tokens=5) for i in range(24)]
    with prepared(make_wav()) as clip:
        results = list(engine.describe(clip, prompts, GREEDY))
    assert all(isinstance(result, Answer) for result in results)
    assert len(results) == 24
    assert caplog.messages == []


def test_missing_and_unshared_audio_are_noticed(
    tmp_path: Path, random_models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    results = results_of("no_audio", tmp_path, random_models)
    assert {result.audio_tokens for result in results if isinstance(result, Answer)} == {20}
    assert len(caplog.messages) == 1
    assert "processed the same audio again for 3 of 3 prompts" in caplog.messages[0]


def test_the_request_puts_the_audio_first(tmp_path: Path) -> None:
    body = json.loads(
        json.dumps(chat_request(Prompt(preset="x", text="Hi", max_tokens=9, system="Be brief."), GREEDY, 0))
    )
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert [part["type"] for part in body["messages"][1]["content"]] == ["input_audio", "text"]
    assert body["cache_prompt"] is True
