from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from musicflamingo_cli.captioning import worker_pool
from musicflamingo_cli.captioning.batch import (
    IN_PROGRESS_ELSEWHERE,
    Dataset,
    Task,
    claim_and_caption,
    count,
    make_plan,
    run_batch,
    scan,
)
from musicflamingo_cli.choices import Wanted
from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.errors import FailureKind, ModelError
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.claims import claimed
from musicflamingo_cli.sidecars.merge import merge_sidecar
from musicflamingo_cli.types import COMPLETE, Caption, Failure, Outcome, Summary, Track

PRESETS = (Preset("full", "x"), Preset("brief", "y"))


def tree(root: Path) -> Dataset:
    for name in ("a.wav", "b.wav", "c.wav", "d.wav", "a.mp3"):
        (root / name).touch()
    (root / "b.INFO").write_text('{"music_flamingo_full": "x", "music_flamingo_brief": "y"}')
    (root / "c.INFO").write_text('{"music_flamingo_full": ""}')
    (root / "d.INFO").write_text("broken")
    return Dataset(root, PRESETS)


def names(items: list[Task | Outcome]) -> list[tuple[str, list[str]]]:
    return [(item.track.audio.name, [p.name for p in item.presets]) for item in items if isinstance(item, Task)]


def test_the_sidecars_say_what_there_is_to_do(tmp_path: Path) -> None:
    items = list(scan([tree(tmp_path)], Selection()))
    assert names(items) == [("a.wav", ["full", "brief"]), ("c.wav", ["full", "brief"])]
    rest = {item.track.audio.name: item for item in items if isinstance(item, Outcome)}
    assert rest["b.wav"].skipped == "complete"
    assert "same sidecar" in rest["a.mp3"].skipped
    assert [failure.kind for failure in rest["d.wav"].failures] == ["sidecar"]


@pytest.mark.parametrize("stem", ["x" * 245, "曲" * 81, "x" * 246, "x" * 251])
def test_a_name_too_long_for_a_sidecar_fails_before_captioning(tmp_path: Path, stem: str) -> None:
    """`.INFO` and its lock need ten bytes of the 255 that most file systems have."""
    (tmp_path / f"{stem}.wav").touch()
    (item,) = scan([Dataset(tmp_path, PRESETS)], Selection())
    if len(os.fsencode(stem)) <= 245:
        assert isinstance(item, Task)
        assert merge_sidecar(item.track.sidecar, {"music_flamingo_full": "x"})
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"{stem}.wav", f"{stem}.INFO"])
    else:
        assert isinstance(item, Outcome)
        (failure,) = item.failures
        assert failure.kind == "name too long"
        assert not failure.kind.is_transient
        assert isinstance(next(scan([Dataset(tmp_path, PRESETS)], Selection(save=False))), Task)


def test_overwrite_and_limit(tmp_path: Path) -> None:
    dataset = tree(tmp_path)
    assert [name for name, _ in names(list(scan([dataset], Selection(wanted=Wanted.ALL))))] == [
        "a.wav",
        "b.wav",
        "c.wav",
    ]
    assert names(list(scan([dataset], Selection(limit=1)))) == [("a.wav", ["full", "brief"])]


def test_files_named_one_by_one_share_no_sidecar_either(tmp_path: Path) -> None:
    for name in ("a.mp3", "a.wav", "b.wav"):
        (tmp_path / name).touch()
    roots = [tmp_path / "a.mp3", tmp_path / "a.wav", tmp_path / "b.wav", tmp_path / "a.mp3"]
    items = list(scan([Dataset(root, PRESETS) for root in roots], Selection()))
    assert [name for name, _ in names(items)] == ["a.mp3", "b.wav", "a.mp3"]
    assert [item.skipped for item in items if isinstance(item, Outcome)] == ["a.mp3 has the same sidecar, a.INFO"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_file_that_is_named_goes_before_its_rival_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: tuple[int, int]
) -> None:
    for name in ("a.mp3", "a.wav"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    roots = (tmp_path, Path("a.mp3"))
    items = list(scan([Dataset(roots[index], PRESETS) for index in order], Selection()))
    assert [name for name, _ in names(items)] == ["a.mp3"]
    assert {item.track.audio.name for item in items if isinstance(item, Outcome)} == {"a.mp3", "a.wav"}


def test_the_plan_counts(tmp_path: Path) -> None:
    plan = make_plan([tree(tmp_path)], Selection())
    assert (plan.tasks, plan.prompts, plan.complete, plan.problems) == (2, 4, 1, 1)
    assert plan.per_preset == {"full": 2, "brief": 2}


def test_running_counts_every_outcome(tmp_path: Path) -> None:
    summary = Summary()
    told: list[Outcome] = []

    def caption(task: Task) -> Outcome:
        if task.track.audio.name == "c.wav":
            return Outcome(task.track, failures=(Failure("full", FailureKind.ENGINE, "died"),), audio_seconds=2)
        return Outcome(task.track, (Caption("full", "x", None),), audio_seconds=3)  # type: ignore[arg-type]

    def done(outcome: Outcome) -> None:
        count(summary, outcome)
        told.append(outcome)

    run_batch(scan([tree(tmp_path)], Selection()), caption, lambda: 2, lambda: None, done)
    assert (summary.captioned, summary.complete, summary.failed, summary.skipped) == (1, 1, 2, 1)
    assert summary.audio_seconds == 5
    assert sorted(audio.name for audio, _ in summary.failures) == ["c.wav", "d.wav"]
    assert len(told) == 5


def tasks(count: int) -> list[Task]:
    return [Task(Track(Path(f"/{index}.wav"), Path(f"/{index}.INFO")), PRESETS, {}) for index in range(count)]


def test_one_more_than_the_slots_are_in_progress() -> None:
    lock, now, most = threading.Lock(), 0, 0
    all_in = threading.Barrier(3)  # breaks (and fails the test) unless three come together

    def caption(task: Task) -> Outcome:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        all_in.wait(10)
        with lock:
            now -= 1
        return Outcome(task.track)

    summary = Summary()
    run_batch(tasks(9), caption, lambda: 2, lambda: None, lambda outcome: count(summary, outcome))
    assert (most, summary.captioned) == (3, 9)


def test_an_interrupt_stops_and_reports_what_is_in_progress() -> None:
    stopped = threading.Event()

    def caption(task: Task) -> Outcome:
        if task.track.audio.name == "0.wav":
            return Outcome(task.track)
        assert stopped.wait(10)
        return Outcome(task.track, failures=(Failure("full", FailureKind.INTERRUPTED, "stopped"),))

    def done(outcome: Outcome) -> None:
        count(summary, outcome)
        if not told:
            told.append(outcome)
            raise KeyboardInterrupt
        told.append(outcome)

    told: list[Outcome] = []
    summary = Summary()
    with pytest.raises(KeyboardInterrupt):
        run_batch(tasks(20), caption, lambda: 2, stopped.set, done)
    assert (summary.captioned, summary.interrupted, summary.failed) == (1, 2, 0)
    assert len(told) == len({outcome.track.audio for outcome in told}) == 3


def test_what_ends_one_track_ends_the_run() -> None:
    def caption(task: Task) -> Outcome:
        raise ModelError("it cannot be loaded")

    stops: list[None] = []
    with pytest.raises(ModelError):
        run_batch(tasks(20), caption, lambda: 2, lambda: stops.append(None), lambda outcome: None)
    assert stops


def test_a_single_file_is_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    (task,) = scan([Dataset(tmp_path / "a.wav", PRESETS)], Selection())
    assert task.track == track_for(tmp_path / "a.wav")


def test_a_track_claimed_elsewhere_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    (task,) = (item for item in scan([Dataset(tmp_path, PRESETS)], Selection()) if isinstance(item, Task))
    with claimed(task.track.sidecar):
        assert claim_and_caption(lambda task: Outcome(task.track), task, Selection()).skipped == IN_PROGRESS_ELSEWHERE


def test_captions_made_since_the_scan_are_not_made_again(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    (task,) = (item for item in scan([Dataset(tmp_path, PRESETS)], Selection()) if isinstance(item, Task))
    asked: list[list[str]] = []

    def caption(task: Task) -> Outcome:
        asked.append([preset.name for preset in task.presets])
        return Outcome(task.track)

    merge_sidecar(task.track.sidecar, {"music_flamingo_full": "x"})
    claim_and_caption(caption, task, Selection())
    merge_sidecar(task.track.sidecar, {"music_flamingo_brief": "x"})
    assert claim_and_caption(caption, task, Selection()).skipped == COMPLETE
    assert asked == [["brief"]]


def test_a_scan_sweeps_only_what_a_killed_run_left(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    ours = [".mf-0123456789abcdef.tmp", ".a.INFO.mf-claim", ".gone.INFO.mf-claim"]
    theirs = [".hidden", "a.INFO.lock.bak", ".mf-notes", "x.INFO.lock"]
    for name in (*ours, *theirs):
        (tmp_path / name).touch()
    (tmp_path / "b.INFO.lock").write_text("musicflamingo")
    make_plan([Dataset(tmp_path, PRESETS)], Selection())
    assert len(list(tmp_path.iterdir())) == 2 + len(ours) + len(theirs), "a plan writes nothing"
    make_plan([Dataset(tmp_path, PRESETS)], Selection(), sweep=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a.wav", *theirs])


def test_more_slots_are_used_as_soon_as_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "_LOOK_SECONDS", 0.02)
    slots, together = [1], threading.Barrier(5)

    def caption(task: Task) -> Outcome:
        slots[0] = 4
        together.wait(10)
        return Outcome(task.track)

    summary = Summary()
    run_batch(tasks(10), caption, lambda: slots[0], lambda: None, lambda outcome: count(summary, outcome))
    assert summary.captioned == 10


def test_a_gate_follows_the_number_of_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "_LOOK_SECONDS", 0.02)
    slots, inside = [1], threading.Semaphore(0)
    leave = threading.Event()
    gate = worker_pool.SlotGate(lambda: slots[0])

    def enter() -> None:
        with gate:
            inside.release()
            assert leave.wait(10)

    threads = [threading.Thread(target=enter) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert inside.acquire(timeout=10)
    assert not inside.acquire(timeout=0.2)
    slots[0] = 2
    assert inside.acquire(timeout=10)
    assert not inside.acquire(timeout=0.2)
    leave.set()
    for thread in threads:
        thread.join(10)
