"""RetryingBatch, with a captioner that fails on command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from musicflamingo_cli.captioning import retries
from musicflamingo_cli.captioning.batch import Dataset
from musicflamingo_cli.captioning.captioner import NO_BETTER
from musicflamingo_cli.captioning.retries import RetryingBatch
from musicflamingo_cli.choices import Wanted
from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.engines.observer import UNOBSERVED, Observer
from musicflamingo_cli.errors import BatchStoppedError, FailureKind
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.captions import caption_key
from musicflamingo_cli.sidecars.claims import claimed
from musicflamingo_cli.sidecars.merge import merge_sidecar
from musicflamingo_cli.types import (
    COMPLETE,
    Answer,
    Caption,
    CaptionedSegment,
    Failure,
    Outcome,
    Prompt,
    Sampling,
    Track,
)

PRESETS = (Preset("full", "x"), Preset("brief", "y"))
Fails = Callable[[str, int], Sequence[str]]  # audio's name, how often it was asked -> kinds of failures


class FailingCaptioner:
    """Saves what does not fail, as the real one does. Its own engine, too: one slot, nothing to close."""

    slots = 1

    def __init__(self, fails: Fails) -> None:
        self.engine = self
        self.fails = fails
        self.asked: Counter[str] = Counter()

    def close(self) -> None:
        """Nothing runs."""

    def caption(
        self,
        track: Track,
        presets: Sequence[Preset],
        info: Mapping[str, Any],
        *,
        save: bool,
        observer: Observer = UNOBSERVED,
    ) -> Outcome:
        self.asked[track.audio.name] += 1
        kinds = self.fails(track.audio.name, self.asked[track.audio.name])
        failed = [Failure(preset.name, FailureKind(kind), "why") for preset, kind in zip(presets, kinds, strict=False)]
        good = presets[len(failed) :]
        if good and save:
            merge_sidecar(track.sidecar, {caption_key(preset.name): "A caption." for preset in good})
        captions = tuple(Caption(preset.name, "A caption.", ANSWER) for preset in good)
        return Outcome(track, captions, tuple(failed), audio_seconds=3, saved=bool(good) and save)


ANSWER = Answer(Prompt("full", "x", 9), "A caption.", False, 750, 0.1, Sampling())


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "PAUSES", (0.0, 0.0))


def run(
    root: Path, count: int, captioner: FailingCaptioner, selection: Selection | None = None, **more: Any
) -> dict[str, Outcome]:
    """Run a batch over ``count`` files; return the final outcomes by file name, each reported once."""
    for index in range(count):
        (root / f"{index:02}.wav").touch()
    watcher = RecordingWatcher()
    if "settled" in more:
        watcher.settled = more.pop("settled")  # type: ignore[method-assign]
    batch = RetryingBatch([Dataset(root, PRESETS)], captioner, watcher, **more)
    batch.run(selection or Selection())
    return watcher.outcomes


class RecordingWatcher:
    """Keeps the final outcomes."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}

    def starting(self, audio: Path) -> Observer:
        return UNOBSERVED

    def ended(self, audio: Path) -> None:
        """Ignored."""

    def settled(self, outcome: Outcome) -> None:
        assert outcome.track.audio.name not in self.outcomes, "reported twice"
        self.outcomes[outcome.track.audio.name] = outcome


def test_only_temporary_failures_are_retried(tmp_path: Path) -> None:
    captioner = FailingCaptioner(lambda name, times: ["engine"] if name == "03.wav" and times == 1 else [])
    settled = run(tmp_path, 6, captioner)
    assert captioner.asked == Counter({f"{n:02}.wav": 1 for n in range(6)}) + Counter({"03.wav": 1})
    assert not any(outcome.failures for outcome in settled.values())


def test_two_rounds_of_a_track_are_one_outcome(tmp_path: Path) -> None:
    settled = run(tmp_path, 1, FailingCaptioner(lambda name, times: ["engine"] if times == 1 else []))
    assert [caption.preset for caption in settled["00.wav"].captions] == ["brief", "full"]
    assert settled["00.wav"].failures == ()
    assert settled["00.wav"].saved


def test_a_track_without_captions_is_not_counted_as_captioned(tmp_path: Path) -> None:
    track = Track(tmp_path / "a.wav", tmp_path / "a.INFO")
    failed = Outcome(track, failures=(Failure("", FailureKind.TIMEOUT, "slow"),))
    assert retries.merged_tries(failed, Outcome(track, skipped=NO_BETTER)).skipped == NO_BETTER
    half = replace(failed, captions=(Caption("full", "A caption.", ANSWER),), saved=True)
    assert retries.merged_tries(half, Outcome(track, skipped=COMPLETE)).skipped == ""
    unsaved = retries.merged_tries(replace(half, saved=False), Outcome(track, skipped=COMPLETE))
    assert (unsaved.captions, unsaved.skipped) == ((), COMPLETE)
    unsaved = retries.merged_tries(
        replace(failed, segments=(CaptionedSegment(0, 5, ()),)), Outcome(track, skipped=COMPLETE)
    )
    assert (unsaved.segments, unsaved.skipped) == ((), COMPLETE)


def test_answers_that_could_not_be_saved_count_once(tmp_path: Path) -> None:
    class FullDisk(FailingCaptioner):
        def caption(
            self,
            track: Track,
            presets: Sequence[Preset],
            info: Mapping[str, Any],
            *,
            save: bool,
            observer: Observer = UNOBSERVED,
        ) -> Outcome:
            done = super().caption(track, presets, info, save=self.asked[track.audio.name] > 0)
            return done if done.saved else replace(done, failures=(Failure("", FailureKind.SYSTEM, "busy"),))

    outcome = run(tmp_path, 1, FullDisk(lambda name, times: []))["00.wav"]
    assert [caption.preset for caption in outcome.captions] == ["full", "brief"]
    assert outcome.saved
    assert outcome.failures == ()


def test_what_keeps_failing_fails_once_with_its_last_word(tmp_path: Path) -> None:
    captioner = FailingCaptioner(lambda name, times: ["engine"] if times < 3 else ["timeout"])
    settled = run(tmp_path, 1, captioner)
    assert captioner.asked["00.wav"] == 3
    assert [failure.kind for failure in settled["00.wav"].failures] == ["timeout"]
    assert [caption.preset for caption in settled["00.wav"].captions] == ["brief"]


@pytest.mark.parametrize("kind", ["silent", "unreadable audio", "refused answer", "not heard", "too long"])
def test_what_will_not_go_away_is_not_asked_again(kind: str, tmp_path: Path) -> None:
    captioner = FailingCaptioner(lambda name, times: [kind])
    run(tmp_path, 1, captioner)
    assert captioner.asked["00.wav"] == 1


def test_an_unsaved_question_is_not_repeated_after_an_answer(tmp_path: Path) -> None:
    captioner = FailingCaptioner(lambda name, times: ["engine", "engine"] if name == "03.wav" and times == 1 else [])
    settled = run(tmp_path, 20, captioner, Selection(wanted=Wanted.ALL, save=False))
    assert sum(captioner.asked.values()) == 21
    assert len(settled) == 20


def test_a_limit_counts_over_all_rounds(tmp_path: Path) -> None:
    captioner = FailingCaptioner(lambda name, times: ["engine"] if times == 1 and name < "02" else [])
    assert len(run(tmp_path, 20, captioner, Selection(limit=5))) == 5
    assert len(captioner.asked) == 5


def test_the_run_stops_when_nothing_is_captioned_any_more(tmp_path: Path) -> None:
    captioner = FailingCaptioner(lambda name, times: ["engine", "engine"])
    with pytest.raises(BatchStoppedError, match="10 tracks in a row"):
        run(tmp_path, 40, captioner)
    assert len(captioner.asked) <= 13
    assert len(run(tmp_path, 40, captioner, keep_going=True)) == 40


def test_bad_files_neither_stop_a_run_nor_hide_a_dead_engine(tmp_path: Path) -> None:
    settled = run(tmp_path, 40, FailingCaptioner(lambda name, times: ["silent", "silent"]))
    assert len(settled) == 40
    mixed = FailingCaptioner(lambda name, times: [("silent" if int(name[:2]) % 5 == 0 else "engine")] * 2)
    with pytest.raises(BatchStoppedError):
        run(tmp_path, 40, mixed)


def test_bad_tracks_among_good_ones_do_not_stop_the_retries(tmp_path: Path) -> None:
    captioner = FailingCaptioner(lambda name, times: ["engine", "engine"] if int(name[:2]) % 4 == 0 else [])
    settled = run(tmp_path, 60, captioner)
    assert sum(bool(outcome.failures) for outcome in settled.values()) == 15
    assert len(settled) == 60


def test_an_interrupt_during_retries_loses_no_failure(tmp_path: Path) -> None:
    def fails(name: str, times: int) -> list[str]:
        if times == 2:
            raise KeyboardInterrupt
        return ["engine", "engine"] if name < "06" else []

    told: list[Outcome] = []
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 10, FailingCaptioner(fails), settled=told.append)
    assert len(told) == len({outcome.track.audio for outcome in told}) == 10
    assert sum(bool(outcome.failures) for outcome in told) == 6


def test_a_track_in_progress_elsewhere_is_left_to_it(tmp_path: Path) -> None:
    (tmp_path / "01.wav").touch()
    captioner = FailingCaptioner(lambda name, times: [])
    with claimed(tmp_path / "01.INFO"):
        settled = run(tmp_path, 3, captioner)
    assert sorted(settled) == ["00.wav", "02.wav"]
    assert "01.wav" not in captioner.asked


def test_an_unreadable_folder_is_reported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked").mkdir()
    stat = Path.stat

    def refusing(self: Path, **options: Any) -> Any:
        if self.name == "locked":
            raise PermissionError(13, "Permission denied")
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", refusing)
    settled = run(tmp_path, 2, FailingCaptioner(lambda name, times: ["engine"] if times == 1 else []))
    assert [failure.kind for failure in settled["locked"].failures] == ["no permission"]


def test_too_many_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "MOST_PENDING", 3)
    captioner = FailingCaptioner(lambda name, times: ["engine"] if times == 1 else [])
    settled = run(tmp_path, 8, captioner)
    assert sum(bool(outcome.failures) for outcome in settled.values()) == 5
