"""A pool of doubles that wait: every clip once, whatever its members do."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from musicflamingo_cli.engines import Engine
from musicflamingo_cli.engines.pool import member as member_module
from musicflamingo_cli.engines.pool.engine import PoolEngine
from musicflamingo_cli.engines.pool.member import Member, MemberState
from musicflamingo_cli.errors import EngineError, FailureKind, ModelError, StoppedError, TooLongError
from musicflamingo_cli.types import Answer, Clip, Failure, Sampling
from tests.fakes.pool import PROMPTS, PingedEngine, WaitingEngine, clip


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_module, "PAUSES", (0.05, 0.1, 0.2))


def pool_of(engines: Sequence[Engine], idle_limit: float = 5.0) -> PoolEngine:
    return PoolEngine([Member(f"m{n}", lambda: WaitingEngine(), each) for n, each in enumerate(engines)], idle_limit)


def ask(pool: PoolEngine, number: int) -> list[str]:
    results = list(pool.describe(clip(number), PROMPTS, Sampling()))
    assert all(isinstance(result, Answer) for result in results)
    return [result.prompt.preset for result in results if isinstance(result, Answer)]


def ask_many(pool: PoolEngine, count: int, at_once: int = 8) -> float:
    """Ask about ``count`` clips; return the seconds. Each must get each answer once."""
    started = time.monotonic()
    with ThreadPoolExecutor(at_once) as threads:
        for presets in threads.map(lambda number: ask(pool, number), range(count)):
            assert sorted(presets) == ["brief", "full"]
    return time.monotonic() - started


def state_of(pool: PoolEngine, number: int) -> MemberState:
    return pool.members[number].state


def done(engines: Sequence[WaitingEngine]) -> Counter[str]:
    return sum((each.answered for each in engines), Counter[str]())


def test_four_members_are_almost_four_times_as_fast() -> None:
    ratios: list[float] = []
    while not ratios or (max(ratios) < 3.9 and len(ratios) < 4):  # again: a busy machine wakes threads late
        alone = ask_many(pool_of([WaitingEngine(0.25)]), 12)
        engines = [WaitingEngine(0.25) for _ in range(4)]
        pool = pool_of(engines)
        assert pool.slots == 4
        ratios.append(alone / ask_many(pool, 12))
        assert done(engines) == Counter({f"{n}.wav": 1 for n in range(12)})
        assert [each.most for each in engines] == [1] * 4
    assert max(ratios) >= 3.9


def test_a_slow_member_does_not_hold_the_others() -> None:
    engines = [WaitingEngine(0.02), WaitingEngine(0.02), WaitingEngine(0.02), WaitingEngine(0.4)]
    assert ask_many(pool_of(engines), 61) < 1.2
    assert engines[3].answered.total() <= 3
    assert done(engines).total() == 61


def test_more_slots_take_more_clips() -> None:
    engines = [WaitingEngine(0.05, slots=3), WaitingEngine(0.05)]
    ask_many(pool_of(engines), 24)
    assert engines[0].most == 3
    assert engines[0].answered.total() > 2 * engines[1].answered.total()


def test_one_that_dies_is_left_out_and_its_clip_goes_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    def die(engine: WaitingEngine, which: Clip) -> None:
        if not engine.answered.total() and not died:
            died.append(which.path.name)
            raise EngineError("it died")

    died: list[str] = []
    engines = [WaitingEngine(0.02, fault=die), WaitingEngine(0.02), WaitingEngine(0.02)]
    pool = pool_of(engines)
    with caplog.at_level(logging.INFO, "musicflamingo_cli"):
        ask_many(pool, 40)
    assert done(engines) == Counter({f"{n}.wav": 1 for n in range(40)})
    assert engines[0].answered.total() > 0, "it is taken back"
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["m0 failed and is left out for 0 s: it died", "m0 works again"]


def test_answers_before_a_death_are_not_asked_again() -> None:
    def die(engine: WaitingEngine, which: Clip) -> None:
        raise EngineError("it died")

    pool = pool_of([WaitingEngine(fault=die), WaitingEngine()])
    results = [result for result in pool.describe(clip(0), PROMPTS, Sampling()) if isinstance(result, Answer)]
    assert [result.prompt.preset for result in results] == ["full", "brief"]


def test_one_that_hangs_is_replaced() -> None:
    def hang(engine: WaitingEngine, which: Clip) -> None:
        engine.closed.wait(30)

    opened: list[WaitingEngine] = []

    def open_again() -> WaitingEngine:
        opened.append(WaitingEngine(0.01))
        return opened[-1]

    bad, good = WaitingEngine(fault=hang), WaitingEngine(0.01)
    pool = PoolEngine([Member("bad", open_again, bad), Member("good", open_again, good)], idle_limit=0.3)
    ask_many(pool, 30, at_once=2)
    deadline = time.monotonic() + 5
    while not opened and time.monotonic() < deadline:
        time.sleep(0.01)
    ask_many(pool, 30, at_once=2)
    assert bad.closed.is_set()
    assert len(opened) == 1
    assert opened[0].answered.total() > 0
    assert done([bad, good, opened[0]]).total() == 60


def test_clips_beside_one_that_hangs_go_on_elsewhere() -> None:
    """Their member is replaced, which ends them, too: the run was not stopped, and the member failed once."""

    def hang(engine: WaitingEngine, which: Clip) -> None:
        engine.closed.wait(30)  # as do its other clips, until it is replaced

    bad, good = WaitingEngine(slots=5, fault=hang), WaitingEngine(0.01)
    first: Member[Engine] = Member("bad", lambda: WaitingEngine(0.01), bad)
    pool = PoolEngine([first, Member("good", lambda: good, good)], idle_limit=1.0)
    pool._roster.all[1].busy = 1  # so that all clips begin at the bad one
    with ThreadPoolExecutor(5) as threads:
        clips = [threads.submit(ask, pool, number) for number in range(5)]
        time.sleep(0.3)
        pool._roster.give_back(pool._roster.all[1], good)
        assert [each.result(20) for each in clips] == [["full", "brief"]] * 5
    assert first.failures <= 1


def test_a_clip_whose_member_is_replaced_twice_is_one_error() -> None:
    def end(engine: WaitingEngine, which: Clip) -> None:
        raise StoppedError("stopped")

    pool = pool_of([WaitingEngine(fault=end)])
    with pytest.raises(EngineError, match="restarted") as caught:
        ask(pool, 0)
    assert caught.value.kind is FailureKind.ENGINE
    assert state_of(pool, 0) == MemberState.READY


def test_pings_come_with_growing_pauses() -> None:
    down, good = PingedEngine(), PingedEngine(0.02)
    down.is_down = True
    pool = pool_of([down, good])
    ask_many(pool, 4)
    time.sleep(0.7)
    pauses = [later - sooner for sooner, later in zip(down.pings, down.pings[1:], strict=False)]
    assert len(pauses) >= 2
    assert pauses == sorted(pauses) or min(pauses[1:]) >= 0.18
    assert state_of(pool, 0) in (MemberState.RESTING, MemberState.LOST)
    assert pool.slots == 1
    down.is_down = False
    deadline = time.monotonic() + 5
    while state_of(pool, 0) != MemberState.READY and time.monotonic() < deadline:
        time.sleep(0.01)
    assert pool.slots == 2
    ask_many(pool, 20)
    assert down.answered.total() > 0


def test_a_clip_goes_to_another_member_only_once() -> None:
    asked: list[str] = []

    def die(engine: WaitingEngine, which: Clip) -> None:
        if which.path.name == "7.wav":
            asked.append(which.path.name)
            raise EngineError("this clip kills it")

    engines = [WaitingEngine(fault=die) for _ in range(3)]
    pool = pool_of(engines)
    with pytest.raises(EngineError, match="this clip kills it"):
        ask(pool, 7)
    assert len(asked) == 2
    ask_many(pool, 6)


def test_the_pool_dies_when_all_members_have() -> None:
    engines = [PingedEngine(), PingedEngine()]
    for each in engines:
        each.is_down = True
    pool = pool_of(engines)
    with pytest.raises(EngineError, match="connection refused"):
        ask(pool, 0)
    started = time.monotonic()
    with pytest.raises(EngineError, match="all 2 engines have failed"):
        ask(pool, 1)
    assert time.monotonic() - started < 3
    engines[1].is_down = False
    deadline = time.monotonic() + 5
    while state_of(pool, 1) != MemberState.READY and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ask(pool, 2) == ["full", "brief"]


def test_what_concerns_every_track_is_raised_as_itself() -> None:
    class NoModel(PingedEngine):
        def ping(self) -> None:
            raise ModelError("it cannot be loaded")

    def die(engine: WaitingEngine, which: Clip) -> None:
        raise ModelError("it cannot be loaded")

    engine = NoModel()
    engine.fault = die
    pool = pool_of([engine])
    with pytest.raises(ModelError):
        ask(pool, 0)


def test_faults_of_a_clip_do_not_count_against_a_member() -> None:
    def refuse(engine: WaitingEngine, which: Clip) -> None:
        raise TooLongError("too long")

    pool = pool_of([WaitingEngine(fault=refuse), WaitingEngine(fault=refuse)])
    with pytest.raises(TooLongError):
        ask(pool, 0)
    assert {status.state for status in pool.members} == {MemberState.READY}


def test_a_clip_without_any_answer_goes_to_another_member() -> None:
    class Rejecting(WaitingEngine):
        def describe(self, clip, prompts, sampling, observer=None):  # type: ignore[no-untyped-def]
            for prompt in prompts:
                yield Failure(preset=prompt.preset, kind=FailureKind.TIMEOUT, reason="no answer within 1 s")

    good = WaitingEngine()
    pool = pool_of([Rejecting(), good])
    assert ask(pool, 0) == ["full", "brief"]
    assert good.answered.total() == 1
    lone = pool_of([Rejecting()])
    results = list(lone.describe(clip(1), PROMPTS, Sampling()))
    assert [type(result) for result in results] == [Failure, Failure]


def test_close_ends_clips_in_progress_and_those_that_wait() -> None:
    pool = pool_of([WaitingEngine(30), WaitingEngine(30)])
    with ThreadPoolExecutor(5) as threads:
        waiting = [threads.submit(ask, pool, number) for number in range(5)]
        time.sleep(0.2)
        started = time.monotonic()
        pool.close()
        for future in waiting:
            with pytest.raises(StoppedError):
                future.result(5)
    assert time.monotonic() - started < 2
    with pytest.raises(StoppedError):
        ask(pool, 9)


def test_a_retry_goes_to_the_member_that_knows_the_clip() -> None:
    engines = [WaitingEngine(0.01) for _ in range(4)]
    pool = pool_of(engines)
    for _ in range(3):
        ask(pool, 5)
    assert sorted(each.answered.total() for each in engines) == [0, 0, 0, 3]


def test_answers_say_which_member_made_them() -> None:
    class Named(WaitingEngine):
        provenance = {"endpoint": "https://a.example"}  # noqa: RUF012

    pool = pool_of([Named(), WaitingEngine()])
    assert pool.provenance == {}
    made = {
        result.provenance.get("endpoint")
        for number in range(8)
        for result in pool.describe(clip(number), PROMPTS, Sampling())
        if isinstance(result, Answer)
    }
    assert made <= {"https://a.example", None}
    assert "https://a.example" in made


def test_leaving_the_results_early_frees_the_slot() -> None:
    engine = WaitingEngine()
    pool = pool_of([engine])
    results = pool.describe(clip(0), PROMPTS, Sampling())
    next(results)
    results.close()  # type: ignore[attr-defined]
    thread = threading.Thread(target=ask, args=(pool, 1), daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
