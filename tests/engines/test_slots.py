"""Which thread gets which slot, with fake servers; test_server.py uses real ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from musicflamingo_cli.engines.server.process import ServerProcess
from musicflamingo_cli.engines.slots import Slots
from musicflamingo_cli.errors import StoppedError
from musicflamingo_cli.types import Clip


class FakeServer:
    """A process that does nothing."""

    def __init__(self, context: int, slots: int) -> None:
        self.context = context
        self.slots = slots
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Starts:
    """A ``start`` for Slots that remembers its servers."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.servers: list[FakeServer] = []

    def __call__(self, context: int, register: Callable[[ServerProcess], None]) -> ServerProcess:
        server = FakeServer(context, self.slots)
        self.servers.append(server)
        register(server)  # type: ignore[arg-type]
        return server  # type: ignore[return-value]


def clip(name: str) -> Clip:
    return Clip(path=Path(name), samples=16_000, source_seconds=1.0, was_cut=False)


def test_every_thread_gets_its_own_slot() -> None:
    starts = Starts(3)
    slots = Slots(starts)
    in_use: set[int] = set()
    lock = threading.Lock()

    def use(index: int) -> None:
        with slots.acquire(100, clip(str(index))) as slot:
            with lock:
                assert slot.number not in in_use
                in_use.add(slot.number)
            time.sleep(0.002)
            with lock:
                in_use.remove(slot.number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(100)))
    assert len(starts.servers) == 1


def test_a_clip_gets_its_slot_again_and_a_new_one_the_oldest() -> None:
    slots = Slots(Starts(3))
    numbers = []
    for name in ("a", "b", "a", "c", "b", "d"):
        with slots.acquire(100, clip(name)) as slot:
            numbers.append(slot.number)
    assert numbers == [0, 1, 0, 2, 1, 0]


def test_a_larger_clip_waits_and_gets_a_larger_server() -> None:
    starts = Starts(2)
    slots = Slots(starts)
    with ThreadPoolExecutor(1) as pool:
        with slots.acquire(100, clip("short")):
            larger = pool.submit(lambda: use(slots, 500, "long"))
            time.sleep(0.05)
            assert not larger.done()
        assert larger.result(5).context == 500
    assert [server.closed for server in starts.servers] == [True, False]
    assert use(slots, 100, "short again").context == 500


def use(slots: Slots[ServerProcess], context: int, name: str) -> ServerProcess:
    with slots.acquire(context, clip(name)) as slot:
        return slot.process


def test_an_exclusive_slot_is_the_only_one_in_use() -> None:
    slots = Slots(Starts(4))
    inside = 0
    lock = threading.Lock()

    def use_one(index: int) -> None:
        nonlocal inside
        exclusive = index % 3 == 0
        with slots.acquire(100, clip(str(index)), exclusive):
            with lock:
                inside += 1
                assert not exclusive or inside == 1
            time.sleep(0.001)
            with lock:
                assert not exclusive or inside == 1
                inside -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use_one, range(60)))


def test_only_the_first_report_of_a_death_ends_the_server() -> None:
    starts = Starts(2)
    slots = Slots(starts)
    with slots.acquire(100, clip("a")) as slot:
        assert slots.end(slot.process)
        assert not slots.end(slot.process)
    with slots.acquire(100, clip("a")) as other:
        assert other.process is not slot.process
        assert not slots.end(slot.process)
    assert [server.closed for server in starts.servers] == [True, False]


def test_stop_wakes_waiting_threads_and_nothing_starts_later() -> None:
    starts = Starts(1)
    slots = Slots(starts)
    with ThreadPoolExecutor(1) as pool, slots.acquire(100, clip("a")):
        waiting = pool.submit(use, slots, 100, "b")
        time.sleep(0.05)
        slots.stop()
        with pytest.raises(StoppedError):
            waiting.result(5)
    with pytest.raises(StoppedError):
        use(slots, 100, "c")
    assert [server.closed for server in starts.servers] == [True]


def test_stop_does_not_wait_for_a_server_that_is_loading() -> None:
    loading, closed = threading.Event(), threading.Event()

    class Slow(FakeServer):
        def close(self) -> None:
            closed.set()

    def start(context: int, register: Callable[[ServerProcess], None]) -> ServerProcess:
        server = Slow(context, 1)
        register(server)  # type: ignore[arg-type]
        loading.set()
        assert closed.wait(10)
        raise StoppedError("stopped")

    slots = Slots(start)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(use, slots, 100, "a")
        assert loading.wait(5)
        slots.stop()
        with pytest.raises(StoppedError):
            waiting.result(5)
