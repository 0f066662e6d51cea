"""Segments: what is asked about which, what is saved when, and what the tiny model says about a song that changes."""

from __future__ import annotations

import json
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from musicflamingo_cli.audio.segments import Cutting, Span
from musicflamingo_cli.captioning.batch import Dataset, Task, claim_and_caption, scan
from musicflamingo_cli.captioning.captioner import Captioner, Policy, open_captioner
from musicflamingo_cli.captioning.second_pass import SecondPass
from musicflamingo_cli.captioning.second_pass import Wanted as Derivations
from musicflamingo_cli.captioning.segments import SegmentCaptioner
from musicflamingo_cli.choices import Wanted
from musicflamingo_cli.config import Settings
from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.demo.songs import songs
from musicflamingo_cli.errors import EngineError, FailureKind, StoppedError
from musicflamingo_cli.models.model import ModelPair
from musicflamingo_cli.prompts import Preset, choose, load_presets, prompts_files
from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar
from musicflamingo_cli.sidecars.segments import Segment, segments_of
from musicflamingo_cli.sidecars.staleness import CaptionSettings, EarlierRuns
from musicflamingo_cli.types import CUT_OTHERWISE, OTHER_SEGMENTS, WOULD_BE_LOST, Outcome, Prompt, Sampling, Workload
from tests.conftest import RATE, MakeWav, start_batch, tone
from tests.fakes.engines import GOOD, REAL_PAIR, TINY_PAIR, Scripted, ScriptedEngine
from tiny_flamingo import music
from tiny_flamingo.songs import SONGS

PRESETS = (Preset("full", "Describe it."), Preset("brief", "Be brief."))
TEN = Cutting(10, 10)
REAL = CaptionSettings(model=REAL_PAIR.name, projector=REAL_PAIR.projector_name)
Respond = Callable[[Prompt, Sampling], Scripted]


def good(prompt: Prompt, sampling: Sampling) -> Scripted:
    return GOOD


def run(
    audio: Path,
    respond: Respond = good,
    cutting: Cutting = TEN,
    model: ModelPair = REAL_PAIR,
    presets: Sequence[Preset] = PRESETS,
    **selection: Any,
) -> tuple[Outcome, ScriptedEngine]:
    """One track as a batch would do it."""
    engine = ScriptedEngine(respond)
    selected = Selection(cutting=cutting, **{"settings": CaptionSettings(is_tiny=model.is_tiny), **selection})
    overwrite = selected.wanted == Wanted.ALL
    captioner = SegmentCaptioner(Captioner(engine, model, Policy(retries=0, overwrite=overwrite)), selected)
    (item,) = scan([Dataset(audio, presets)], selected)
    if isinstance(item, Outcome):
        return item, engine
    asked = claim_and_caption(
        lambda task: captioner.caption(task.track, task.presets, task.info, save=True), item, selected
    )
    return asked, engine


def found(audio: Path) -> list[Segment]:
    return segments_of(read_sidecar(audio.with_suffix(".INFO")))


def test_each_segment_is_captioned_and_saved(make_wav: MakeWav) -> None:
    audio = make_wav(seconds=25)
    audio.with_suffix(".INFO").write_text('{"bpm": 120, "x": NaN}')
    outcome, engine = run(audio)
    assert outcome.saved
    assert not outcome.failures
    assert outcome.audio_seconds == 25
    assert [(each.start, each.end) for each in outcome.segments] == [(0, 10), (10, 20), (20, 25)]
    assert len(engine.asked) == 6
    segments = found(audio)
    assert [segment.span for segment in segments] == [Span(0, 10), Span(10, 20), Span(20, 25)]
    assert all(segment.captions == {"full": GOOD, "brief": GOOD} for segment in segments)
    assert [segment.provenance["full"]["audio_seconds"] for segment in segments] == [10, 10, 5]
    info = read_sidecar(audio.with_suffix(".INFO"))
    assert list(info)[:2] == ["bpm", "x"]
    assert info["music_flamingo_provenance"]["segments"]["seconds"] == 10
    assert "music_flamingo_full" not in info
    assert run(audio)[0].skipped == "complete"


def test_the_captions_of_the_whole_stay_approved(make_wav: MakeWav) -> None:
    audio = make_wav(seconds=10)
    merge_sidecar(audio.with_suffix(".INFO"), {"music_flamingo_full": "x", "music_flamingo_approved": True})
    run(audio)
    info = read_sidecar(audio.with_suffix(".INFO"))
    assert (info["music_flamingo_full"], info["music_flamingo_approved"]) == ("x", True)


def test_a_segment_is_saved_before_the_next_one_fails(make_wav: MakeWav) -> None:
    audio = make_wav(seconds=30)
    saved: list[int] = []

    def respond(prompt: Prompt, sampling: Sampling) -> Scripted:
        sidecar = audio.with_suffix(".INFO")
        done = sum(bool(segment.captions) for segment in found(audio)) if sidecar.exists() else 0
        saved.append(done)
        return GOOD if len(saved) <= 4 else EngineError("it died", "type this")

    outcome, _ = run(audio, respond)
    assert saved[-1] >= 1, "the first segment was saved while the third was asked about"
    assert sorted(len(segment.captions) for segment in found(audio)) == [0, 2, 2]
    (missing,) = (segment.span for segment in found(audio) if not segment.captions)
    assert {failure.reason for failure in outcome.failures} == {f"at {missing}: it died"}
    again, engine = run(audio)
    assert len(engine.asked) == 2
    assert [(each.start, each.end) for each in again.segments] == [(missing.start, missing.end)]
    assert [len(segment.captions) for segment in found(audio)] == [2, 2, 2]


def test_only_the_missing_presets_of_a_segment_are_asked(make_wav: MakeWav) -> None:
    audio = make_wav(seconds=20)
    refused = iter([True, False, False, False])
    run(audio, lambda prompt, sampling: "" if prompt.preset == "brief" and next(refused) else GOOD)
    assert sorted(sorted(segment.captions) for segment in found(audio)) == [["brief", "full"], ["full"]]
    _, engine = run(audio)
    assert [preset for preset, _ in engine.asked] == ["brief"]


def test_an_engine_that_is_down_is_not_asked_about_every_segment(make_wav: MakeWav) -> None:
    audio = make_wav(seconds=100)
    outcome, engine = run(audio, lambda prompt, sampling: EngineError("it is down", ""))
    assert {failure.kind for failure in outcome.failures} == {FailureKind.ENGINE}
    assert len(engine.asked) <= 5
    assert not audio.with_suffix(".INFO").exists()


def test_an_interrupt_is_one_failure(make_wav: MakeWav) -> None:
    outcome, _ = run(make_wav(seconds=60), lambda prompt, sampling: StoppedError("stopped"))
    assert outcome.audio_seconds == 0
    assert [failure.kind for failure in outcome.failures] == [FailureKind.INTERRUPTED]
    assert outcome.was_interrupted


def test_a_silent_segment_has_no_captions_and_is_complete(tmp_path: Path) -> None:
    audio = tmp_path / "a.wav"
    soundfile.write(audio, np.vstack([np.zeros((10 * RATE, 1)), tone(10)]), RATE)
    outcome, _ = run(audio)
    assert outcome.notes == ("1 segments are silent",)
    assert [segment.is_silent for segment in found(audio)] == [True, False]
    assert run(audio)[0].skipped == "complete"
    soundfile.write(audio, tone(20), RATE)
    assert len(run(audio, wanted=Wanted.OUTDATED, settings=REAL)[0].segments) == 2


def test_silent_segments_take_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audio, scratch = tmp_path / "a.wav", tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    soundfile.write(audio, np.vstack([np.zeros((20 * RATE, 1)), tone(10)]), RATE)
    there: list[list[str]] = []

    def look(prompt: Prompt, sampling: Sampling) -> Scripted:
        there.append(sorted(path.name for path in scratch.rglob("*-*.wav")))
        return GOOD

    run(audio, look)
    assert there[-1] == ["20-30.wav"] or all(name.startswith("20") for name in there[-1]), there


def test_segments_of_two_files_are_not_mixed(make_wav: MakeWav) -> None:
    audio = make_wav(seconds=20)
    run(audio)
    before = audio.with_suffix(".INFO").read_bytes()
    audio.write_bytes(make_wav("other.wav", 20, 300).read_bytes())
    presets = (*PRESETS, Preset("mood", "Which mood?"))
    assert run(audio)[0].skipped == OTHER_SEGMENTS
    assert run(audio, presets=presets)[0].skipped == OTHER_SEGMENTS
    assert audio.with_suffix(".INFO").read_bytes() == before
    assert len(run(audio, wanted=Wanted.OUTDATED, settings=REAL)[0].segments) == 2
    assert run(audio)[0].skipped == "complete"


def test_the_silence_of_an_earlier_file_goes_with_it(tmp_path: Path) -> None:
    audio = tmp_path / "a.wav"
    soundfile.write(audio, np.vstack([tone(20), np.zeros((10 * RATE, 1))]), RATE)
    run(audio)
    soundfile.write(audio, tone(30), RATE)
    answered = iter([GOOD] * 4)  # for two segments of three, then no more

    def interrupted(prompt: Prompt, sampling: Sampling) -> Scripted:
        return next(answered, StoppedError("stopped"))

    run(audio, interrupted, wanted=Wanted.ALL)
    assert not any(segment.is_silent for segment in found(audio))


def test_another_cutting_is_kept_unless_stale_is_given(make_wav: MakeWav) -> None:
    audio = make_wav(seconds=20)
    run(audio)
    five = Cutting(5, 5)
    assert run(audio, cutting=five)[0].skipped == CUT_OTHERWISE
    assert run(audio, cutting=replace(TEN, start=5))[0].skipped == CUT_OTHERWISE
    assert len(run(audio, cutting=five, wanted=Wanted.OUTDATED, settings=REAL)[0].segments) == 4
    assert len(found(audio)) == 4
    assert run(audio, cutting=five, wanted=Wanted.OUTDATED, settings=REAL)[0].skipped == "complete"


def test_cutting_again_loses_no_other_presets_captions(make_wav: MakeWav) -> None:
    audio = make_wav(seconds=20)
    run(audio)
    before = audio.with_suffix(".INFO").read_bytes()
    for wanted in (Wanted.OUTDATED, Wanted.ALL):
        outcome, _ = run(audio, cutting=Cutting(5, 5), wanted=wanted, settings=REAL, presets=PRESETS[:1])
        assert outcome.skipped == f"{WOULD_BE_LOST}: brief (name these presets, too)"
    assert audio.with_suffix(".INFO").read_bytes() == before
    assert run(audio, cutting=Cutting(5, 5), wanted=Wanted.ALL, edited=True, presets=PRESETS[:1])[0].saved


def test_what_makes_a_segment_outdated(make_wav: MakeWav) -> None:
    audio = make_wav(seconds=20)
    run(audio)

    def stale(settings: CaptionSettings) -> Outcome:
        return run(audio, wanted=Wanted.OUTDATED, settings=settings)[0]

    assert stale(REAL).skipped == "complete"
    assert len(stale(CaptionSettings(model="other.gguf")).segments) == 2
    assert len(stale(CaptionSettings(sampling=Sampling(temperature=0))).segments) == 2
    audio.write_bytes(make_wav("other.wav", 20, 300).read_bytes())
    assert len(stale(REAL).segments) == 2, "the audio was replaced"


def test_the_tiny_model_replaces_no_real_captions(make_wav: MakeWav) -> None:
    audio = make_wav(seconds=20)
    run(audio)
    for cutting in (TEN, Cutting(5, 5)):
        for wanted in (Wanted.MISSING, Wanted.OUTDATED):
            assert run(audio, cutting=cutting, model=TINY_PAIR, wanted=wanted)[0].skipped
    assert run(audio, lambda prompt, sampling: "A flute plays.", model=TINY_PAIR, wanted=Wanted.ALL)[0].saved
    assert {segment.captions["full"] for segment in found(audio)} == {"A flute plays."}
    assert len(run(audio)[0].segments) == 2, "and a real model replaces the tiny model's"


def test_an_edited_caption_of_a_segment_stays(make_wav: MakeWav) -> None:
    audio = make_wav(seconds=20)
    run(audio)
    info = read_sidecar(audio.with_suffix(".INFO"))
    info["music_flamingo_segments"][0]["captions"]["full"] = "By hand."
    info["music_flamingo_segments"][0]["provenance"]["full"] = {"edited": True}
    audio.with_suffix(".INFO").write_text(json.dumps(info))
    run(audio, lambda prompt, sampling: "A flute plays.", wanted=Wanted.ALL)
    assert [segment.captions["full"] for segment in found(audio)] == ["By hand.", "A flute plays."]
    assert run(audio, cutting=Cutting(5, 5), wanted=Wanted.ALL)[0].skipped == CUT_OTHERWISE


def test_two_runs_that_overwrite_share_the_work(make_wav: MakeWav) -> None:
    audio = make_wav(seconds=20)
    run(audio)
    earlier = EarlierRuns()
    earlier.add(read_sidecar(audio.with_suffix(".INFO")))
    assert len(run(audio, wanted=Wanted.ALL, earlier=earlier)[0].segments) == 2
    assert run(audio, wanted=Wanted.ALL, earlier=earlier)[0].skipped == "complete"


def test_a_part_of_a_track_can_be_cut(make_wav: MakeWav) -> None:
    audio = make_wav(seconds=30)
    cutting = Cutting(10, 10, start=5, max_seconds=20)
    run(audio, cutting=cutting)
    assert [segment.span for segment in found(audio)] == [Span(5, 15), Span(15, 25)]


def test_a_sidecar_that_broke_meanwhile_is_left_alone(make_wav: MakeWav) -> None:
    audio = make_wav(seconds=30)

    def respond(prompt: Prompt, sampling: Sampling) -> Scripted:
        audio.with_suffix(".INFO").write_text("{broken")
        return GOOD

    outcome, _ = run(audio, respond)
    assert [failure.kind for failure in outcome.failures] == [FailureKind.SIDECAR]
    assert audio.with_suffix(".INFO").read_text() == "{broken"


def test_prompts_about_a_segment_lack_the_tempo_of_the_whole(make_wav: MakeWav) -> None:
    audio = make_wav(seconds=10)
    measured = {"version": 1, "seconds": 10.0, "silence": 0.0, "tempo": {"bpm": 120.0, "confidence": 0.9}}
    audio.with_suffix(".INFO").write_text(json.dumps({"music_flamingo_measured": measured}))
    asked: list[str] = []

    def respond(prompt: Prompt, sampling: Sampling) -> Scripted:
        asked.append(prompt.text)
        return GOOD

    engine = ScriptedEngine(respond)
    selection = Selection(cutting=TEN)
    captioner = SegmentCaptioner(Captioner(engine, REAL_PAIR, Policy()), selection)
    preset = Preset("full", "It has {measured_bpm} BPM. It lasts {duration}.")
    track = track_for(audio)
    captioner.caption(track, [preset], read_sidecar(track.sidecar), save=True)
    assert asked == ["It lasts 0:10."]


# -- the summary -------------------------------------------------------------------------------------


def summarised(audio: Path, *answers: str) -> dict[str, Any]:
    left = iter(answers)
    engine = ScriptedEngine(lambda prompt, sampling: next(left))
    second = SecondPass(Captioner(engine, REAL_PAIR, Policy(retries=len(answers) - 1)), Derivations(summary=True))
    track = track_for(audio)
    info = read_sidecar(track.sidecar)
    second.save(track, info, second.derive(info))
    return read_sidecar(track.sidecar)


def test_a_summary_says_what_the_segments_say(make_wav: MakeWav) -> None:
    audio = make_wav(seconds=20)
    texts = iter(["Slow techno at 100 BPM.", "", "Fast techno at 140 BPM.", ""])
    run(audio, lambda prompt, sampling: next(texts))
    text = "Techno that begins at 100 BPM and ends at 140 BPM."
    info = summarised(audio, "Jazz in A minor at 120 BPM.", text)
    assert info["music_flamingo_summary"] == text
    assert list(info["music_flamingo_provenance"]["summary"]["made_from"]) == ["0:00-0:10", "0:10-0:20"]
    assert summarised(audio, "Never asked.")["music_flamingo_summary"] == text
    segments = info["music_flamingo_segments"]
    segments[0]["captions"]["full"] = "Slow techno at 90 BPM."
    merge_sidecar(audio.with_suffix(".INFO"), {"music_flamingo_segments": segments})
    text = "It begins as slow techno at 90 BPM."
    assert summarised(audio, text)["music_flamingo_summary"] == text


def test_no_summary_before_all_segments_have_captions(make_wav: MakeWav) -> None:
    audio = make_wav(seconds=20)
    texts = iter([GOOD, GOOD])
    run(audio, lambda prompt, sampling: next(texts, ""))
    assert "music_flamingo_summary" not in summarised(audio, "Never asked.")


# -- the real engine ---------------------------------------------------------------------------------


def write_changing_song(path: Path) -> None:
    """The demo's slow organ for 30 s, then its house loop for 30 s."""
    halves = [replace(SONGS[title], seconds=30.0) for title in ("slow organ", "house loop")]
    samples = [music.render(half, music.Recording(noise_db=-70.0), 44_100)[0] for half in halves]
    soundfile.write(path, np.concatenate(samples), 44_100)


@pytest.mark.real
@pytest.mark.slow
def test_the_tiny_model_names_each_half_of_a_song_that_changes(tmp_path: Path, real_llama_dir: Path) -> None:
    audio = tmp_path / "song.flac"
    write_changing_song(audio)
    settings = Settings(model="tiny", llama_dir=real_llama_dir, temperature=0.0, threads=1, timeout=120)
    presets = choose(load_presets(prompts_files(None, None)), ["full"])
    selection = Selection(cutting=Cutting(30, 30), settings=CaptionSettings(is_tiny=True))
    with open_captioner(settings, Workload(2, 1)) as captioner:
        (task,) = scan([Dataset(audio, presets)], selection)
        assert isinstance(task, Task)
        outcome = SegmentCaptioner(captioner, selection).caption(task.track, task.presets, task.info, save=True)
    assert not outcome.failures
    first, second = (segment.captions["full"] for segment in found(audio))
    slow, fast, _ = songs()
    names = ("tempo", "key", "lead", "bass", "drums")
    assert slow.missed(first, names) == []
    assert fast.missed(second, names) == []
    assert len(fast.missed(first, names)) == len(slow.missed(second, names)) == 5


@pytest.mark.real
@pytest.mark.slow
def test_a_kill_between_segments_loses_only_the_one_in_progress(
    make_wav: MakeWav, random_settings: Settings, tmp_path: Path
) -> None:
    audio = make_wav("data/song.wav", seconds=60)
    sidecar = audio.with_suffix(".INFO")
    (tmp_path / "scratch").mkdir()
    options = ("--segments", "5", "--preset", "brief", "--engine", "server", "--retries", "0", "--temperature", "0")
    child = start_batch(audio.parent, random_settings, *options, scratch=tmp_path / "scratch")
    while not sidecar.exists() or sum(bool(segment.captions) for segment in found(audio)) < 3:
        assert child.poll() is None, child.communicate()
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = found(audio)
    done = sum(bool(segment.captions) for segment in before)
    assert 3 <= done < 12
    child = start_batch(audio.parent, random_settings, *options, scratch=tmp_path / "scratch")
    _, messages = child.communicate(timeout=300)
    assert child.returncode == 0, messages
    after = found(audio)
    assert [segment.span for segment in after] == [Span(start, start + 5) for start in range(0, 60, 5)]
    assert all(segment.captions for segment in after)
    kept = [segment for segment in before if segment.captions]
    assert [segment for segment in after if segment in kept] == kept, "what was done is as it was"
    runs = [segment.provenance["brief"]["run"] for segment in after]
    assert sorted(map(runs.count, set(runs))) == sorted([done, 12 - done])
    assert sorted(path.name for path in audio.parent.iterdir()) == ["song.INFO", "song.wav"]
