from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.captions import has_real_caption
from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar
from musicflamingo_cli.sidecars.staleness import (
    CaptionSettings,
    CaptionState,
    EarlierRuns,
    has_other_audio,
    missing,
    outdated,
    state_of,
)
from musicflamingo_cli.system.identity import file_identity
from musicflamingo_cli.types import Sampling
from tests.conftest import MakeWav

PRESETS = (Preset("full", "x"), Preset("brief", "y"))
FULL = PRESETS[0]


@pytest.mark.parametrize(
    ("info", "is_tiny", "expected"),
    [
        ({}, False, ["full", "brief"]),
        ({"music_flamingo_full": "x"}, False, ["brief"]),
        ({"music_flamingo_full": "", "music_flamingo_brief": " \n"}, False, ["full", "brief"]),
        ({"music_flamingo_full": None, "music_flamingo_brief": 3}, False, ["full", "brief"]),
        (
            {"music_flamingo_full": "x", "music_flamingo_provenance": {"full": {"toy": True}}},
            False,
            ["full", "brief"],
        ),
        ({"music_flamingo_full": "x", "music_flamingo_provenance": {"full": {"toy": True}}}, True, ["brief"]),
        ({"music_flamingo_full": "x", "music_flamingo_provenance": "odd"}, False, ["brief"]),
    ],
)
def test_what_is_missing(info: dict[str, Any], is_tiny: bool, expected: list[str]) -> None:
    assert [preset.name for preset in missing(info, PRESETS, CaptionSettings(is_tiny=is_tiny))] == expected


NOW = CaptionSettings(
    False, "m.Q6_K.gguf", "mmproj.gguf", Sampling(), 2, "0.1.0", {"start": None, "fraction": None}, 1200.0
)
MADE = {
    "model": "m.Q6_K.gguf",
    "mmproj": "mmproj.gguf",
    "version": "0.1.0",
    "template": FULL.template_hash,
    "temperature": 0.7,
    "top_p": 0.9,
    "repeat_penalty": 1.05,
    "seed": 42,
    "audio_seconds": 200.0,
    "time": "2026-11-21T08:00:00+00:00",
}


def info(**changed: Any) -> dict[str, Any]:
    made = {key: value for key, value in {**MADE, **changed}.items() if value is not None}
    return {"music_flamingo_full": "A caption.", "music_flamingo_provenance": {"full": made}}


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({}, CaptionState.CAPTIONED),
        ({"seed": 43, "repeat_penalty": 1.1}, CaptionState.CAPTIONED),  # asked again after a refusal
        ({"seed": 45, "repeat_penalty": 1.1}, CaptionState.OUTDATED),
        ({"seed": 43}, CaptionState.OUTDATED),  # without the penalty of a retry: another --seed
        ({"audio_seconds": 1199.95, "source_seconds": 1800.0}, CaptionState.CAPTIONED),
        ({"audio_seconds": 60.0, "source_seconds": 200.0}, CaptionState.OUTDATED),  # with --max-seconds 60
        ({"audio_seconds": None}, CaptionState.OUTDATED),
        ({"seed": 7}, CaptionState.OUTDATED),
        ({"seed": None}, CaptionState.OUTDATED),
        ({"repeat_penalty": 1.2}, CaptionState.OUTDATED),
        ({"temperature": 0.0}, CaptionState.OUTDATED),
        ({"top_p": 1.0}, CaptionState.OUTDATED),
        ({"model": "m.Q8_0.gguf"}, CaptionState.OUTDATED),
        ({"mmproj": "other.gguf"}, CaptionState.OUTDATED),
        ({"version": "0.0.9"}, CaptionState.OUTDATED),
        ({"template": "0" * 16}, CaptionState.OUTDATED),
        (
            {"audio_seconds": 1200.0, "cut": True},
            CaptionState.CAPTIONED,
        ),  # longer, by how much is not known
        ({"audio_seconds": 60.0, "cut": True}, CaptionState.OUTDATED),
        ({"start": 30.0}, CaptionState.OUTDATED),
        ({"fraction": 0.6}, CaptionState.OUTDATED),
    ],
)
def test_what_is_outdated(changed: dict[str, Any], state: str) -> None:
    assert state_of(info(**changed), FULL, NOW) == state


@pytest.mark.parametrize(
    ("made", "now", "state"),
    [
        (None, "", CaptionState.CAPTIONED),
        ("mine", "mine", CaptionState.CAPTIONED),
        ("mine", None, CaptionState.CAPTIONED),  # an endpoint's own
        ("mine", "", CaptionState.OUTDATED),
        (None, "mine", CaptionState.OUTDATED),
        ("mine", "other", CaptionState.OUTDATED),
    ],
)
def test_another_adapter_makes_captions_outdated(made: str | None, now: str | None, state: str) -> None:
    assert state_of(info(lora=made), FULL, replace(NOW, lora=now)) == state


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({"audio_seconds": 85.0, "source_seconds": 200.0}, CaptionState.CAPTIONED),  # half of what follows 30 s
        ({"audio_seconds": 60.0, "source_seconds": 200.0}, CaptionState.OUTDATED),  # with --max-seconds 60
        ({"audio_seconds": 1200.0, "source_seconds": 4000.0}, CaptionState.CAPTIONED),
        (
            {"audio_seconds": 29.0, "source_seconds": 59.0},
            CaptionState.CAPTIONED,
        ),  # to its end: the header was wrong
        ({"audio_seconds": 85.0, "source_seconds": 200.0, "fraction": 0.4}, CaptionState.OUTDATED),
        ({"audio_seconds": 85.0, "source_seconds": 200.0, "start": None}, CaptionState.OUTDATED),
    ],
)
def test_a_shorter_excerpt_is_outdated(changed: dict[str, Any], state: str) -> None:
    now = replace(NOW, excerpt={"start": 30.0, "fraction": 0.5})
    assert state_of(info(**{"start": 30.0, "fraction": 0.5, **changed}), FULL, now) == state


def test_an_approved_caption_is_never_outdated() -> None:
    corrected = {**info(version="0.0.1"), "music_flamingo_full": "As a person put it.", "music_flamingo_approved": True}
    assert state_of(corrected, FULL, NOW) == CaptionState.CAPTIONED
    assert state_of({**corrected, "music_flamingo_approved": "yes"}, FULL, NOW) == CaptionState.OUTDATED
    assert outdated(corrected, PRESETS, NOW) == [PRESETS[1]]  # what is missing is missing


def test_what_was_approved_stays_so_when_a_preset_is_added(tmp_path: Path) -> None:
    corrected = {**info(version="0.0.1"), "music_flamingo_full": "As a person put it.", "music_flamingo_approved": True}
    path = tmp_path / "a.INFO"
    merge_sidecar(path, corrected)
    made = {**MADE, "template": PRESETS[1].template_hash}
    merge_sidecar(path, {"music_flamingo_brief": "New.", "music_flamingo_provenance": {"brief": made}})
    now = read_sidecar(path)
    assert now["music_flamingo_approved"] is False  # not all that stands there was looked at
    later = replace(NOW, version="9")
    assert outdated(now, PRESETS, later) == [PRESETS[1]]
    merge_sidecar(path, {"music_flamingo_full": "Another.", "music_flamingo_provenance": {"full": MADE}})
    assert outdated(read_sidecar(path), PRESETS, later) == list(PRESETS)  # it was replaced all the same


def test_tiny_model_captions_do_not_replace_real_ones() -> None:
    toy = replace(NOW, is_tiny=True, model="tiny.gguf")
    assert state_of(info(), FULL, toy) == CaptionState.CAPTIONED
    assert state_of({"music_flamingo_full": "of unknown origin"}, FULL, toy) == CaptionState.CAPTIONED
    assert state_of(info(toy=True), FULL, toy) == CaptionState.OUTDATED
    assert has_real_caption(info(), "full")
    assert not has_real_caption(info(toy=True), "full")
    assert not has_real_caption({}, "full")


def test_a_caption_of_unknown_origin_is_outdated_not_missing() -> None:
    unknown = {"music_flamingo_full": "A caption."}
    assert state_of(unknown, FULL, NOW) == CaptionState.OUTDATED
    assert missing(unknown, [FULL], NOW) == []
    assert outdated(unknown, [FULL], NOW) == [FULL]
    assert state_of(unknown, FULL, CaptionSettings()) == CaptionState.CAPTIONED  # nothing to compare with


def test_another_prompt_makes_it_outdated() -> None:
    assert state_of(info(), replace(FULL, prompt="z"), NOW) == CaptionState.OUTDATED
    assert state_of({"music_flamingo_full": ""}, FULL, NOW) == CaptionState.MISSING


def test_another_model_of_the_same_name_makes_it_outdated() -> None:
    now = replace(NOW, model_identity="b" * 16)
    assert state_of(info(model_identity="b" * 16), FULL, now) == CaptionState.CAPTIONED
    assert state_of(info(model_identity="a" * 16), FULL, now) == CaptionState.OUTDATED
    assert state_of(info(), FULL, now) == CaptionState.CAPTIONED  # made before identities were recorded


def test_other_audio_of_the_same_name_makes_it_outdated(make_wav: MakeWav) -> None:
    audio = make_wav(seconds=2)
    made = info(audio=file_identity(audio))
    assert state_of(made, FULL, NOW, audio) == CaptionState.CAPTIONED
    make_wav(seconds=2, hertz=880)
    assert state_of(made, FULL, NOW, audio) == CaptionState.OUTDATED
    assert has_other_audio(made, [FULL.name], audio)
    approved = {**made, "music_flamingo_approved": True}
    assert state_of(approved, FULL, NOW, audio) == CaptionState.CAPTIONED
    assert not has_other_audio(approved, [FULL.name], audio)
    assert state_of(info(), FULL, NOW, audio) == CaptionState.CAPTIONED  # made before identities were recorded
    audio.unlink()
    assert state_of(made, FULL, NOW, audio) == CaptionState.CAPTIONED


@pytest.mark.parametrize("odd", ["x", 5, [], {}, {"size": [1], "modified": {}}, {"size": True}])
def test_a_poisoned_identity_does_no_harm(make_wav: MakeWav, odd: object) -> None:
    assert state_of(info(audio=odd, run=odd, number=odd), FULL, NOW, make_wav()) in CaptionState
    runs = EarlierRuns()
    runs.add(info(run=odd, number=odd))
    assert not runs.made_since(info(run=odd, number=odd), FULL)


def test_captions_made_since_a_scan_are_known_without_a_clock() -> None:
    runs = EarlierRuns()
    runs.add(info(run="one", number=7))
    runs.add({"music_flamingo_provenance": "odd"})
    assert not runs.made_since(info(run="one", number=7), FULL)
    assert runs.made_since(info(run="one", number=8), FULL)  # by a run that was in progress then
    assert runs.made_since(info(run="two", number=1), FULL)
    assert not runs.made_since(info(), FULL)  # of unknown origin
    assert not runs.made_since({}, FULL)
