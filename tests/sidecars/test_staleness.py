from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar
from musicflamingo_cli.sidecars.staleness import (
    CAPTIONED,
    MISSING,
    STALE,
    Maker,
    has_real,
    missing,
    older_than,
    outdated,
    state_of,
)
from musicflamingo_cli.types import Sampling

PRESETS = (Preset("full", "x"), Preset("brief", "y"))
FULL = PRESETS[0]


@pytest.mark.parametrize(
    ("info", "is_toy", "expected"),
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
def test_what_is_missing(info: dict[str, Any], is_toy: bool, expected: list[str]) -> None:
    assert [preset.name for preset in missing(info, PRESETS, Maker(is_toy=is_toy))] == expected


NOW = Maker(False, "m.Q6_K.gguf", "mmproj.gguf", Sampling(), 2, "0.1.0", {"start": None, "fraction": None}, 1200.0)
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
        ({}, CAPTIONED),
        ({"seed": 43, "repeat_penalty": 1.1}, CAPTIONED),  # asked again after a refusal
        ({"seed": 45, "repeat_penalty": 1.1}, STALE),
        ({"seed": 43}, STALE),  # without the penalty of a retry: another --seed
        ({"audio_seconds": 1199.95, "source_seconds": 1800.0}, CAPTIONED),
        ({"audio_seconds": 60.0, "source_seconds": 200.0}, STALE),  # with --max-seconds 60
        ({"audio_seconds": None}, STALE),
        ({"seed": 7}, STALE),
        ({"seed": None}, STALE),
        ({"repeat_penalty": 1.2}, STALE),
        ({"temperature": 0.0}, STALE),
        ({"top_p": 1.0}, STALE),
        ({"model": "m.Q8_0.gguf"}, STALE),
        ({"mmproj": "other.gguf"}, STALE),
        ({"version": "0.0.9"}, STALE),
        ({"template": "0" * 16}, STALE),
        ({"audio_seconds": 1200.0, "cut": True}, CAPTIONED),  # its length is not known, but that there was more
        ({"audio_seconds": 60.0, "cut": True}, STALE),
        ({"start": 30.0}, STALE),
        ({"fraction": 0.6}, STALE),
    ],
)
def test_what_is_stale(changed: dict[str, Any], state: str) -> None:
    assert state_of(info(**changed), FULL, NOW) == state


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({"audio_seconds": 85.0, "source_seconds": 200.0}, CAPTIONED),  # half of what follows 30 s
        ({"audio_seconds": 60.0, "source_seconds": 200.0}, STALE),  # with --max-seconds 60
        ({"audio_seconds": 1200.0, "source_seconds": 4000.0}, CAPTIONED),
        ({"audio_seconds": 29.0, "source_seconds": 59.0}, CAPTIONED),  # to its end: the header had promised more
        ({"audio_seconds": 85.0, "source_seconds": 200.0, "fraction": 0.4}, STALE),
        ({"audio_seconds": 85.0, "source_seconds": 200.0, "start": None}, STALE),
    ],
)
def test_a_part_of_a_track_that_was_heard_less_far_is_stale(changed: dict[str, Any], state: str) -> None:
    now = replace(NOW, hearing={"start": 30.0, "fraction": 0.5})
    assert state_of(info(**{"start": 30.0, "fraction": 0.5, **changed}), FULL, now) == state


def test_what_a_person_approved_is_not_stale_whatever_made_it() -> None:
    corrected = {**info(version="0.0.1"), "music_flamingo_full": "As a person put it.", "music_flamingo_approved": True}
    assert state_of(corrected, FULL, NOW) == CAPTIONED
    assert state_of({**corrected, "music_flamingo_approved": "yes"}, FULL, NOW) == STALE
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


def test_a_toys_words_do_not_follow_a_real_models() -> None:
    toy = replace(NOW, is_toy=True, model="tiny.gguf")
    assert state_of(info(), FULL, toy) == CAPTIONED
    assert state_of({"music_flamingo_full": "of unknown origin"}, FULL, toy) == CAPTIONED
    assert state_of(info(toy=True), FULL, toy) == STALE
    assert has_real(info(), "full")
    assert not has_real(info(toy=True), "full")
    assert not has_real({}, "full")


def test_a_caption_of_unknown_origin_is_stale_but_not_missing() -> None:
    unknown = {"music_flamingo_full": "A caption."}
    assert state_of(unknown, FULL, NOW) == STALE
    assert missing(unknown, [FULL], NOW) == []
    assert outdated(unknown, [FULL], NOW) == [FULL]
    assert state_of(unknown, FULL, Maker()) == CAPTIONED  # nothing to compare with


def test_another_prompt_makes_it_stale() -> None:
    assert state_of(info(), replace(FULL, prompt="z"), NOW) == STALE
    assert state_of({"music_flamingo_full": ""}, FULL, NOW) == MISSING


def test_older_than() -> None:
    assert older_than(info(), [FULL], "2026-11-21T08:00:01+00:00") == [FULL]
    assert older_than(info(), [FULL], "2026-11-21T08:00:00+00:00") == []
    assert older_than({}, PRESETS, "2026") == list(PRESETS)
