from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from musicflamingo_cli.captioning.captioner import Captioner, Policy
from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.engines.observer import UNOBSERVED, Observer
from musicflamingo_cli.errors import EngineError, FailureKind, StoppedError
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars import merge as sidecar
from musicflamingo_cli.types import Answer, Clip, Excerpt, Failure, Outcome, Prompt, Sampling
from tests.conftest import MakeWav, tone
from tests.fakes.engines import GOOD, REAL_PAIR, TINY_PAIR, Scripted, ScriptedEngine

PRESETS = [Preset("full", "Describe it."), Preset("brief", "Be brief.")]
Respond = Callable[[Prompt, Sampling], Scripted]


def run(
    audio: Path, respond: Respond, presets: list[Preset] = PRESETS, retries: int = 2, save: bool = True, **more: Any
) -> tuple[Outcome, ScriptedEngine]:
    engine = ScriptedEngine(respond, **more)
    captioner = Captioner(engine, REAL_PAIR, Policy(retries=retries))
    track = track_for(audio)
    return captioner.caption(track, presets, sidecar.read_sidecar(track.sidecar), save=save), engine


def test_accepted_answers_are_saved_with_their_provenance(make_wav: MakeWav) -> None:
    audio = make_wav()
    audio.with_suffix(".INFO").write_text('{"bpm": 120, "x": NaN}')
    outcome, _ = run(audio, lambda prompt, sampling: GOOD)
    saved = sidecar.read_sidecar(audio.with_suffix(".INFO"))
    assert outcome.saved
    assert not outcome.failures
    assert list(saved)[:2] == ["bpm", "x"]
    assert saved["music_flamingo_full"] == saved["music_flamingo_brief"] == GOOD
    assert saved["music_flamingo_model"] == "gguf_Q6_K"
    made = saved["music_flamingo_provenance"]["full"]
    assert made["prompt"] == "Describe it."
    assert made["seed"] == 42
    assert made["audio_seconds"] == 1.0
    assert made["llama_cpp"] == "b0"
    assert "toy" not in made


def test_channels_that_cancel_out_are_noted_and_recorded(tmp_path: Path) -> None:
    left = tone(2)
    soundfile.write(tmp_path / "a.wav", np.hstack([0.9 * left, -left]), 16_000)
    outcome, _ = run(tmp_path / "a.wav", lambda prompt, sampling: GOOD)
    assert outcome.notes == ("its channels cancel out in mono; used channel 2 alone",)
    made = sidecar.read_sidecar(tmp_path / "a.INFO")["music_flamingo_provenance"]["full"]
    assert made["channel"] == 2


def test_a_changed_caption_is_no_longer_approved(make_wav: MakeWav) -> None:
    """Also where the approval comes while the model is at work."""
    audio = make_wav()
    info = audio.with_suffix(".INFO")

    def reply(prompt: Prompt, sampling: Sampling) -> str:
        info.write_text('{"music_flamingo_approved": true, "music_flamingo_full": "Another one."}')
        return GOOD

    run(audio, reply)
    assert sidecar.read_sidecar(info)["music_flamingo_approved"] is False


def test_keys_are_in_preset_order_whatever_order_answers_have(make_wav: MakeWav) -> None:
    class Backwards(ScriptedEngine):
        def describe(
            self,
            clip: Clip,
            prompts: Sequence[Prompt],
            sampling: Sampling,
            observer: Observer = UNOBSERVED,
        ) -> Iterator[Answer | Failure]:
            yield from super().describe(clip, prompts[::-1], sampling)

    audio = make_wav()
    captioner = Captioner(Backwards(lambda prompt, sampling: GOOD), REAL_PAIR, Policy())
    outcome = captioner.caption(track_for(audio), PRESETS, {}, save=True)
    assert [caption.preset for caption in outcome.captions] == ["full", "brief"]
    saved = sidecar.read_sidecar(audio.with_suffix(".INFO"))
    assert list(saved)[:2] == ["music_flamingo_full", "music_flamingo_brief"]
    assert list(saved["music_flamingo_provenance"]) == ["full", "brief"]


def test_a_refused_answer_is_asked_again_with_other_seeds(make_wav: MakeWav) -> None:
    def reply(prompt: Prompt, sampling: Sampling) -> str:
        return "" if prompt.preset == "full" and sampling.seed < 44 else GOOD

    outcome, engine = run(make_wav(), reply)
    assert {caption.preset for caption in outcome.captions} == {"full", "brief"}
    assert [preset for preset, _ in engine.asked] == ["full", "brief", "full", "full"]
    assert [sampling.seed for _, sampling in engine.asked] == [42, 42, 43, 44]
    assert engine.asked[-1][1].repeat_penalty == 1.1


@pytest.mark.parametrize(("min_words", "accepted"), [(1, True), (2, True), (3, False)])
def test_a_preset_says_how_short_an_answer_may_be(make_wav: MakeWav, min_words: int, accepted: bool) -> None:
    era = Preset("era", "From which decade?", max_tokens=20, min_words=min_words)
    outcome, _ = run(make_wav(), lambda prompt, sampling: "The 1980s.", [era])
    assert [caption.text for caption in outcome.captions] == ["The 1980s."] * accepted
    assert ["too short" in failure.reason for failure in outcome.failures] == [True] * (not accepted)


@pytest.mark.parametrize("retries", [0, 2])
def test_what_stays_refused_is_a_failure_and_never_saved(make_wav: MakeWav, retries: int) -> None:
    audio = make_wav()
    outcome, engine = run(audio, lambda p, s: "  " if p.preset == "full" else GOOD, retries=retries)
    assert [(f.preset, f.kind) for f in outcome.failures] == [("full", "refused answer")]
    assert "empty" in outcome.failures[0].reason
    assert "music_flamingo_full" not in sidecar.read_sidecar(audio.with_suffix(".INFO"))
    assert len(engine.asked) == 2 + retries


def test_a_caption_that_the_audio_was_not_heard_for_is_none(make_wav: MakeWav) -> None:
    audio = make_wav()
    outcome, _ = run(audio, lambda p, s: GOOD, audio_tokens=0)
    assert {failure.kind for failure in outcome.failures} == {"not heard"}
    assert not audio.with_suffix(".INFO").exists()


def test_answers_before_an_engine_dies_are_kept(make_wav: MakeWav) -> None:
    audio = make_wav()
    outcome, _ = run(audio, lambda p, s: GOOD if p.preset == "full" else EngineError("it died", "type this"))
    assert [caption.preset for caption in outcome.captions] == ["full"]
    assert outcome.failures == (Failure("brief", FailureKind.ENGINE, "it died", "type this"),)
    assert sidecar.read_sidecar(audio.with_suffix(".INFO"))["music_flamingo_full"] == GOOD


def test_an_interrupt_saves_what_is_finished(make_wav: MakeWav) -> None:
    audio = make_wav()
    with pytest.raises(KeyboardInterrupt):
        run(audio, lambda p, s: GOOD if p.preset == "full" else KeyboardInterrupt())
    assert sidecar.read_sidecar(audio.with_suffix(".INFO"))["music_flamingo_full"] == GOOD


def test_without_save_nothing_is_written(make_wav: MakeWav) -> None:
    audio = make_wav()
    outcome, _ = run(audio, lambda p, s: GOOD, save=False)
    assert len(outcome.captions) == 2
    assert not outcome.saved
    assert not audio.with_suffix(".INFO").exists()


def test_audio_that_cannot_be_heard_fails_the_track(tmp_path: Path) -> None:
    audio = tmp_path / "text.mp3"
    audio.write_text("no music")
    outcome, engine = run(audio, lambda p, s: GOOD)
    assert [failure.kind for failure in outcome.failures] == ["unreadable audio"]
    assert not engine.asked


def test_a_sidecar_that_broke_meanwhile_is_left_alone(make_wav: MakeWav) -> None:
    audio = make_wav()

    def reply(prompt: Prompt, sampling: Sampling) -> str:
        audio.with_suffix(".INFO").write_text("{broken")
        return GOOD

    outcome, _ = run(audio, reply)
    assert [failure.kind for failure in outcome.failures] == ["sidecar"]
    assert not outcome.saved
    assert audio.with_suffix(".INFO").read_text() == "{broken"


def test_a_cut_is_noted_and_recorded(make_wav: MakeWav) -> None:
    audio = make_wav(seconds=4)
    engine = ScriptedEngine(lambda p, s: GOOD)
    captioner = Captioner(engine, REAL_PAIR, Policy(excerpt=Excerpt(max_seconds=2)))
    outcome = captioner.caption(track_for(audio), PRESETS, {}, save=True)
    assert "first 2 s of 4 s" in outcome.notes[0]
    made = json.loads(audio.with_suffix(".INFO").read_text())["music_flamingo_provenance"]["full"]
    assert (made["audio_seconds"], made["source_seconds"]) == (2.0, 4.0)


def test_variables_come_from_the_sidecar(make_wav: MakeWav) -> None:
    audio = make_wav()
    audio.with_suffix(".INFO").write_text('{"bpm": 123.4, "artists": ["Nina", "Miles"]}')
    asked: list[str] = []

    def reply(prompt: Prompt, sampling: Sampling) -> str:
        asked.append(prompt.text)
        return GOOD

    run(
        audio,
        reply,
        [Preset("full", "By {artist}[[, called {title}]]. It has {bpm} BPM. Key {key}. It is {duration}.")],
    )
    assert asked == ["By Nina, Miles. It has 123 BPM. It is 0:01."]


def test_measured_values_are_variables(make_wav: MakeWav) -> None:
    audio = make_wav()
    measured = {
        "version": 1,
        "seconds": 1.0,
        "silence": 0.0,
        "tempo": {"bpm": 127.96, "confidence": 0.4, "alternatives": []},
        "key": {"name": "A minor", "confidence": 0.2, "relatives": []},
    }
    audio.with_suffix(".INFO").write_text(json.dumps({"music_flamingo_measured": measured}))
    asked: list[str] = []

    def reply(prompt: Prompt, sampling: Sampling) -> str:
        asked.append(prompt.text)
        return GOOD

    preset = Preset("full", "It has {measured_bpm} BPM. It is in {measured_key}. Go on.")
    run(audio, reply, [preset])
    measured |= {"tempo": None, "key": {"name": "A minor", "confidence": 0.05, "relatives": []}}  # no clear key
    audio.with_suffix(".INFO").write_text(json.dumps({"music_flamingo_measured": measured}))
    run(audio, reply, [preset])
    assert asked == ["It has 128 BPM. It is in A minor. Go on.", "Go on."]


def test_a_prompt_of_which_nothing_is_left_fails_alone(make_wav: MakeWav) -> None:
    outcome, _ = run(make_wav(), lambda p, s: GOOD, [Preset("full", "About {title}."), PRESETS[1]])
    assert [(f.preset, f.kind) for f in outcome.failures] == [("full", "prompt")]
    assert [caption.preset for caption in outcome.captions] == ["brief"]


def test_tiny_model_captions_are_marked_in_the_sidecar(make_wav: MakeWav) -> None:
    audio = make_wav()
    Captioner(ScriptedEngine(lambda p, s: GOOD), TINY_PAIR, Policy()).caption(track_for(audio), PRESETS, {}, save=True)
    saved = sidecar.read_sidecar(audio.with_suffix(".INFO"))
    assert saved["music_flamingo_model"] == "gguf_tiny"
    assert saved["music_flamingo_provenance"]["full"]["toy"] is True


def test_what_was_answered_before_a_stop_is_saved(make_wav: MakeWav) -> None:
    """As when Ctrl-C ends the engine while a batch's track is in progress."""

    def reply(prompt: Prompt, sampling: Sampling) -> str | BaseException:
        return GOOD if prompt.preset == "full" else StoppedError("stopped before it was answered")

    audio = make_wav()
    outcome = Captioner(ScriptedEngine(reply), REAL_PAIR, Policy()).caption(track_for(audio), PRESETS, {}, save=True)
    assert outcome.was_interrupted
    assert outcome.saved
    assert [caption.preset for caption in outcome.captions] == ["full"]
    assert json.loads(audio.with_suffix(".INFO").read_text())["music_flamingo_full"]


@pytest.mark.parametrize("keep", [False, True])
def test_reasoning_stays_out_of_the_caption(make_wav: MakeWav, keep: bool) -> None:
    audio = make_wav()
    audio.with_suffix(".INFO").write_text('{"music_flamingo_brief_reasoning": "of an older caption"}')
    limits = []

    def reply(prompt: Prompt, sampling: Sampling) -> str:
        limits.append(prompt.max_tokens)
        return f"<think>A kick.</think>{GOOD}" if prompt.preset == "full" else GOOD

    captioner = Captioner(ScriptedEngine(reply), replace(REAL_PAIR, reasons=True), Policy(keep_reasoning=keep))
    track = track_for(audio)
    captioner.caption(track, PRESETS, sidecar.read_sidecar(track.sidecar), save=True)
    saved = sidecar.read_sidecar(track.sidecar)
    assert saved["music_flamingo_full"] == GOOD
    assert saved.get("music_flamingo_full_reasoning") == ("A kick." if keep else None)
    assert saved["music_flamingo_brief_reasoning"] is None
    assert min(limits) > 300  # reasoning does not use up the answer's tokens


def test_an_answer_that_is_only_reasoning_is_refused(make_wav: MakeWav) -> None:
    outcome, _ = run(make_wav(), lambda p, s: "<think>A kick, and", retries=0)
    assert {failure.reason for failure in outcome.failures} == {"the model was still reasoning at the token limit"}
