from __future__ import annotations

from typing import Any

import pytest

from musicflamingo_cli.audio.segments import Cutting, Span
from musicflamingo_cli.sidecars.captions import captions_in
from musicflamingo_cli.sidecars.segments import Segment, has_real_segments, is_cut_so, keys_with, segments_of

FIRST, SECOND = Span(0, 30), Span(30, 60)
MADE = {"model": "music-flamingo-hf.Q6_K.gguf", "version": "x"}
DONE = Segment(FIRST, {"full": "Calm."}, {"full": MADE}, {"full": "Hm."})


def test_it_is_read_as_it_was_written() -> None:
    keys = keys_with({}, [FIRST, SECOND], DONE, Cutting(30, 30).as_json())
    assert segments_of(keys) == [DONE, Segment(SECOND)]
    assert is_cut_so(keys, Cutting(30, 30))
    assert not is_cut_so(keys, Cutting(30, 15))
    assert captions_in(keys) == {}


def test_segments_with_the_same_ends_stay_and_others_go() -> None:
    before = keys_with({}, [FIRST, SECOND], DONE, {})
    silent = Segment(SECOND, is_silent=True)
    assert segments_of(keys_with(before, [FIRST, SECOND], silent, {})) == [DONE, silent]
    other = Segment(Span(15, 45), {"full": "Loud."})
    assert segments_of(keys_with(before, [FIRST, other.span], other, {})) == [DONE, other]


def test_new_captions_replace_those_of_their_presets() -> None:
    two = DONE.with_captions({"brief": "B."}, {"brief": MADE}, {})
    again = two.with_captions({"full": "Loud."}, {"full": {"version": "y"}}, {})
    assert again.captions == {"full": "Loud.", "brief": "B."}
    assert again.provenance == {"full": {"version": "y"}, "brief": MADE}
    assert again.reasoning == {}


@pytest.mark.parametrize(
    "damage",
    [
        None,
        "text",
        {"start": 0},
        [1, "x", None],
        [{"start": 5, "end": 5}],
        [{"start": "0", "end": "30"}],
        [{"start": float("nan"), "end": 30}],
        [{"start": 0, "end": 1e400}],
        [{"start": True, "end": 30}],
    ],
)
def test_what_others_wrote_there_is_no_segment(damage: Any) -> None:
    assert segments_of({"music_flamingo_segments": damage}) == []


def test_damaged_captions_are_left_out() -> None:
    entry = {
        "start": 0,
        "end": 30,
        "captions": {"full": 5, "brief": " ", "other": "x"},
        "provenance": [],
        "reasoning": 3,
    }
    (segment,) = segments_of({"music_flamingo_segments": [entry]})
    assert segment == Segment(FIRST, {"other": "x"})


def test_whose_captions_they_are() -> None:
    tiny = Segment(SECOND, {"full": "x"}, {"full": {"toy": True}})
    assert not has_real_segments(keys_with({}, [SECOND], tiny, {}))
    assert has_real_segments(keys_with({}, [FIRST], DONE, {}))
