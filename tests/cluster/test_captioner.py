"""The driver's side of a cluster, without Ray: doubles of actors that are lost, write, or see nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from musicflamingo_cli.captioning.captioner import Captioner, Policy
from musicflamingo_cli.choices import Writer
from musicflamingo_cli.cluster.actor import CaptionActor, Reply, SentTrack
from musicflamingo_cli.cluster.captioner import ClusterCaptioner, _probes
from musicflamingo_cli.cluster.plan import ClusterPlan, Facts, Work
from musicflamingo_cli.cluster.worker import ActorWorker, WorkerLostError
from musicflamingo_cli.config import Settings
from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.engines.pool import member as member_module
from musicflamingo_cli.engines.pool.member import Member
from musicflamingo_cli.errors import ConfigError, FailureKind
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.captions import caption_key
from musicflamingo_cli.sidecars.leftovers import LOCK_MARK, LOCK_SUFFIX, sweep_folder, temporary_name
from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar
from musicflamingo_cli.types import COMPLETE, Outcome, Track
from tests.conftest import MakeWav
from tests.fakes.engines import GOOD, REAL_PAIR, ScriptedEngine

PRESETS = [Preset("full", "x"), Preset("brief", "y")]
Work_ = Callable[[Track, Sequence[Preset], bool, SentTrack | None], Outcome]


class Double:
    """An actor as the driver sees it; ``work`` may raise WorkerLostError."""

    slots = 1
    node = "n1"
    engine = "double"

    def __init__(self, work: Work_, sees: bool = True) -> None:
        self.work = work
        self.sees = sees
        self.closed = threading.Event()

    def caption(
        self, track: Track, presets: Sequence[Preset], info: Mapping[str, Any], writes: bool, sent: SentTrack | None
    ) -> Reply:
        return Reply(self.work(track, presets, writes, sent), [])

    def stop(self) -> None:
        self.closed.set()

    def close(self) -> None:
        self.closed.set()


def captioner_of(*doubles: Double, writer: Writer = Writer.DRIVER) -> ClusterCaptioner:
    members = [Member(f"a{n}", lambda: doubles[0], each) for n, each in enumerate(doubles)]
    return ClusterCaptioner(cast("list[Member[ActorWorker]]", members), REAL_PAIR, writer)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_module, "PAUSES", (0.05,))


def lose(*_: Any) -> Outcome:
    raise WorkerLostError("the node is gone")


def test_the_driver_writes_what_an_actor_answered(make_wav: MakeWav) -> None:
    track = track_for(make_wav())
    keys = {"music_flamingo_full": GOOD}
    captioner = captioner_of(Double(lambda t, p, w, s: Outcome(t, keys=keys)))
    assert captioner.caption(track, PRESETS, {}, save=True).saved
    assert read_sidecar(track.sidecar)["music_flamingo_full"] == GOOD


def test_nothing_is_written_without_save(make_wav: MakeWav) -> None:
    track = track_for(make_wav())
    captioner = captioner_of(Double(lambda t, p, w, s: Outcome(t, keys={"music_flamingo_full": GOOD})))
    assert not captioner.caption(track, PRESETS, {}, save=False).saved
    assert not track.sidecar.exists()


def test_a_lost_actors_track_goes_to_another(make_wav: MakeWav) -> None:
    track = track_for(make_wav())
    captioner = captioner_of(Double(lose), Double(lambda t, p, w, s: Outcome(t)))
    assert captioner.caption(track, PRESETS, {}, save=True).failures == ()


def test_a_track_that_is_lost_twice_is_not_to_blame(make_wav: MakeWav) -> None:
    (failure,) = (
        captioner_of(Double(lose), Double(lose)).caption(track_for(make_wav()), PRESETS, {}, save=True).failures
    )
    assert failure.kind is FailureKind.WORKER_LOST
    assert failure.kind.is_transient
    assert not failure.kind.blames_engine


def test_what_a_lost_actor_wrote_is_not_made_again(make_wav: MakeWav) -> None:
    track, asked = track_for(make_wav()), []

    def write_and_die(track: Track, presets: Sequence[Preset], writes: bool, sent: SentTrack | None) -> Outcome:
        assert writes
        merge_sidecar(track.sidecar, {"music_flamingo_full": GOOD})
        raise WorkerLostError("gone before it answered")

    def answer(track: Track, presets: Sequence[Preset], writes: bool, sent: SentTrack | None) -> Outcome:
        asked.append([preset.name for preset in presets])
        return Outcome(track)

    captioner = captioner_of(Double(write_and_die), Double(answer), writer=Writer.ACTORS)
    captioner.caption(track, PRESETS, {}, save=True)
    assert asked == [["brief"]]


def test_what_a_killed_actor_left_beside_the_track_is_removed(make_wav: MakeWav) -> None:
    """It had written everything; nobody takes its lock again in this run."""
    track = track_for(make_wav())

    def write_and_die(track: Track, presets: Sequence[Preset], writes: bool, sent: SentTrack | None) -> Outcome:
        merge_sidecar(track.sidecar, {caption_key(preset.name): GOOD for preset in presets})
        track.sidecar.with_name(track.sidecar.name + LOCK_SUFFIX).write_text(LOCK_MARK)
        temporary_name(track.sidecar).write_text("{")
        raise WorkerLostError("killed before it answered")

    captioner = captioner_of(Double(write_and_die), Double(lose), writer=Writer.ACTORS)
    assert captioner.caption(track, PRESETS, {}, save=True).skipped == COMPLETE
    assert sorted(path.name for path in track.audio.parent.iterdir()) == [track.sidecar.name, track.audio.name]


def test_a_probe_outlives_a_sweep_of_its_folder(tmp_path: Path) -> None:
    """Else actors that join later would not see the dataset."""
    with _probes([tmp_path]) as (file,):
        sweep_folder(tmp_path)
        assert file.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_file_too_large_to_send_is_no_full_disk(make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("musicflamingo_cli.cluster.captioner._LARGEST_SENT", 100)
    captioner = captioner_of(Double(lambda t, p, w, s: Outcome(t), sees=False))
    (failure,) = captioner.caption(track_for(make_wav()), PRESETS, {}, save=True).failures
    assert failure.kind is FailureKind.UNREADABLE_AUDIO
    assert "share the folder" in failure.hint


def test_a_late_answer_replaces_nothing(make_wav: MakeWav) -> None:
    """An actor that was frozen and given up wakes and writes, after another one has done its track."""
    track = track_for(make_wav("song.wav", 2))
    actor = CaptionActor(Work(Settings(), 1, False, ()))
    theirs = {"music_flamingo_full": "theirs", "music_flamingo_provenance": {"full": {"run": "theirs"}}}

    def reply(prompt: Any, sampling: Any) -> str:
        merge_sidecar(track.sidecar, theirs)
        return GOOD

    actor._captioner = Captioner(ScriptedEngine(reply), REAL_PAIR, Policy())
    actor.caption(track, PRESETS, {}, writes=True)
    info = read_sidecar(track.sidecar)
    assert (info["music_flamingo_full"], info["music_flamingo_brief"]) == ("theirs", GOOD)
    assert info["music_flamingo_provenance"]["full"] == {"run": "theirs"}


def test_a_node_that_does_not_see_the_folder_gets_the_file(make_wav: MakeWav) -> None:
    """The actor is the real one, with a scripted engine; its answer is what it would be in the folder."""
    audio = make_wav("song.wav", 2)
    actor = CaptionActor(Work(Settings(), 1, False, ()))
    actor._captioner = Captioner(ScriptedEngine(lambda p, s: GOOD), REAL_PAIR, Policy())

    def work(track: Track, presets: Sequence[Preset], writes: bool, sent: SentTrack | None) -> Outcome:
        assert sent is not None
        elsewhere = Track(Path("/not/here") / track.audio.name, Path("/not/here/song.INFO"))
        return actor.caption(elsewhere, presets, {}, writes, sent).outcome

    captioner = captioner_of(Double(work, sees=False), writer=Writer.ACTORS)
    outcome = captioner.caption(track_for(audio), PRESETS, {}, save=True)
    assert outcome.saved
    made = read_sidecar(audio.with_suffix(".INFO"))["music_flamingo_provenance"]["full"]
    assert made["audio"]["modified"] == audio.stat().st_mtime_ns // 1000
    assert made["audio"]["size"] == audio.stat().st_size


def test_ctrl_c_interrupts_and_keeps_what_came_back(make_wav: MakeWav) -> None:
    track = track_for(make_wav())

    def wait(track: Track, presets: Sequence[Preset], writes: bool, sent: SentTrack | None) -> Outcome:
        assert double.closed.wait(10)
        return Outcome(track, keys={"music_flamingo_full": GOOD})

    double = Double(wait)
    captioner = captioner_of(double)
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(captioner.caption(track, PRESETS, {}, save=True)))
    thread.start()
    time.sleep(0.2)
    captioner.close()
    thread.join(5)
    assert outcomes[0].saved
    assert captioner.caption(track, PRESETS, {}, save=True).was_interrupted


def test_differences_between_nodes_are_named() -> None:
    found = Facts("1.0", "3.11", "9 bytes ab").differences(Facts("1.1", "3.11", ""))
    assert found == ["version 1.1 instead of 1.0", "model missing instead of 9 bytes ab"]


@pytest.mark.parametrize("address", ["music", "/data/music", "host", "ray://host:1", ""])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigError):
        ClusterPlan(address=address)
