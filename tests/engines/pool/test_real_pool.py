"""A pool of two real servers with the tiny model, each on one thread."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from musicflamingo_cli.audio.clip import prepared
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.contract import Engine
from musicflamingo_cli.engines.pool import member as member_module
from musicflamingo_cli.engines.pool.engine import PoolEngine
from musicflamingo_cli.engines.pool.member import Member
from musicflamingo_cli.engines.server.server import ServerEngine, llama_server
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.types import Answer, Prompt, Sampling
from tests.conftest import MakeWav

PROMPTS = [Prompt(preset=name, text=f"{name}?", max_tokens=24) for name in ("full", "brief")]


@pytest.fixture
def engines(random_settings: Settings) -> list[ServerEngine]:
    model = resolve("F32", random_settings.models_folder)
    return [ServerEngine(llama_server(random_settings), random_settings, model) for _ in range(2)]


@pytest.fixture
def pool(engines: list[ServerEngine], monkeypatch: pytest.MonkeyPatch) -> Iterator[PoolEngine]:
    monkeypatch.setattr(member_module, "PAUSES", (0.1, 0.2))
    members: list[Member[Engine]] = [Member(f"s{n}", lambda: engines[0], each) for n, each in enumerate(engines)]
    pool = PoolEngine(members, 60)
    yield pool
    pool.close()


def ask(pool: PoolEngine, audio: Path) -> dict[str, str]:
    with prepared(audio) as clip:
        results = list(pool.describe(clip, PROMPTS, Sampling(temperature=0.0)))
    return {result.prompt.preset: result.text for result in results if isinstance(result, Answer)}


def process_of(engine: ServerEngine) -> int:
    process = engine._slots._process
    assert process is not None
    return process.child.process.pid


@pytest.mark.real
@pytest.mark.slow
def test_a_server_that_hangs_is_replaced(
    engines: list[ServerEngine], random_settings: Settings, make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member_module, "PAUSES", (0.1, 0.2))
    model = resolve("F32", random_settings.models_folder)
    opened: list[ServerEngine] = []

    def open_again() -> ServerEngine:
        opened.append(ServerEngine(llama_server(random_settings), random_settings, model))
        return opened[-1]

    pool = PoolEngine([Member(f"s{n}", open_again, each) for n, each in enumerate(engines)], idle_limit=20)
    try:
        tracks = [make_wav(f"{number}.wav", 3, 200 + 50 * number) for number in range(8)]
        with ThreadPoolExecutor(3) as threads:
            first = list(threads.map(lambda track: ask(pool, track), tracks))
            frozen = process_of(engines[0])
            os.kill(frozen, signal.SIGSTOP)
            again = list(threads.map(lambda track: ask(pool, track), tracks))
            assert again == first
            deadline = time.monotonic() + 30
            while not opened and time.monotonic() < deadline:
                time.sleep(0.1)
            last = list(threads.map(lambda track: ask(pool, track), tracks))
        assert last == first
        assert len(opened) == 1
        assert not Path(f"/proc/{frozen}/fd").exists(), "the frozen one is killed"
        assert sum(member.clips for member in pool.members) == 24
    finally:
        pool.close()


@pytest.mark.real
@pytest.mark.slow
def test_both_servers_answer_and_one_may_be_killed(
    pool: PoolEngine, engines: list[ServerEngine], make_wav: MakeWav
) -> None:
    tracks = [make_wav(f"{number}.wav", 3, 200 + 50 * number) for number in range(12)]
    with ThreadPoolExecutor(3) as threads:
        first = list(threads.map(lambda track: ask(pool, track), tracks))
        os.kill(process_of(engines[0]), signal.SIGKILL)
        again = list(threads.map(lambda track: ask(pool, track), tracks))
    assert all(sorted(answers) == ["brief", "full"] for answers in first)
    assert again == first
    counts = [member.clips for member in pool.members]
    assert sum(counts) == 24
    assert min(counts) > 3
