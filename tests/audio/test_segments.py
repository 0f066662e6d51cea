from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicflamingo_cli.audio.segments import Cutting, Span, spans_of
from musicflamingo_cli.choices import Alignment


@pytest.mark.parametrize(
    ("seconds", "cutting", "expected"),
    [
        (60.0, Cutting(30, 30), [(0, 30), (30, 60)]),
        (65.0, Cutting(30, 30), [(0, 30), (30, 60), (60, 65)]),
        (64.9, Cutting(30, 30), [(0, 30), (30, 60)]),  # a rest below 5 s is left out
        (7.5, Cutting(4, 4), [(0, 4), (4, 7.5)]),  # unless it is half a segment
        (20.0, Cutting(30, 30), [(0, 20)]),
        (3.0, Cutting(30, 30), [(0, 3)]),  # a track is never without a segment
        (65.0, Cutting(30, 15), [(0, 30), (15, 45), (30, 60), (45, 65)]),
        (90.0, Cutting(10, 40), [(0, 10), (40, 50), (80, 90)]),
    ],
)
def test_where_segments_are(seconds: float, cutting: Cutting, expected: list[tuple[float, float]]) -> None:
    assert spans_of(0.0, seconds, cutting) == [Span(*each) for each in expected]


def test_the_part_of_a_track_that_is_cut() -> None:
    assert spans_of(10.0, 45.0, Cutting(20, 20)) == [Span(10, 30), Span(30, 45)]


def test_cuts_are_moved_but_not_the_ends() -> None:
    found = spans_of(0.0, 60.0, Cutting(20, 20, Alignment.BEATS), lambda place: place + 0.1234)
    assert found == [Span(0, 20.123), Span(20.123, 40.123), Span(40.123, 60)]


@pytest.mark.parametrize("beat", [1.2, 0.5, 2.0])
def test_no_two_overlapping_segments_begin_at_one_beat(beat: float) -> None:
    found = spans_of(0.0, 40.0, Cutting(4, 1, Alignment.BEATS), lambda place: round(place / beat) * beat)
    starts = [span.start for span in found]
    assert all(later - start > 0.9 * min(beat, 1.0) for start, later in itertools.pairwise(starts))
    assert all(4 - beat <= span.seconds <= 4 + beat for span in found[:-1])
    assert len(found) > 17


@given(st.floats(0.5, 2000), st.floats(2, 120), st.floats(1, 120))
def test_segments_are_in_the_track_and_in_order(seconds: float, length: float, hop: float) -> None:
    found = spans_of(0.0, seconds, Cutting(length, hop))
    end = round(seconds, 3)
    assert found[0].start == 0
    assert all(0 <= span.start < span.end <= end for span in found)
    assert all(span.seconds <= length + 0.002 for span in found)
    assert all(first < second and first.end < second.end for first, second in itertools.pairwise(found))
    if hop <= length:  # nothing is left out but a short rest
        assert end - found[-1].end < 5.001
        assert all(second.start <= first.end + 0.002 for first, second in itertools.pairwise(found))


@given(st.lists(st.floats(0, 5000), min_size=3, max_size=3, unique=True), st.sampled_from([16_000, 44_100, 48_000]))
def test_neighbours_share_no_sample_and_lose_none(places: list[float], rate: int) -> None:
    first, middle, last = sorted(round(place, 3) for place in places)
    assert Span(first, middle).frames(rate)[1] == Span(middle, last).frames(rate)[0]


@pytest.mark.parametrize(
    ("span", "text"),
    [(Span(0, 65), "0:00-1:05"), (Span(59.999, 60.5), "0:59.999-1:00.5"), (Span(3600, 3630), "60:00-60:30")],
)
def test_how_it_is_shown(span: Span, text: str) -> None:
    assert str(span) == text


def test_what_is_recorded_tells_cuttings_apart() -> None:
    cuttings = [
        Cutting(30, 30),
        Cutting(30, 15),
        Cutting(30, 30, Alignment.BEATS),
        Cutting(30, 30, start=5),
        Cutting(30, 30, fraction=0.5),
        Cutting(30, 30, max_seconds=60),
    ]
    assert len({str(cutting.as_json()) for cutting in cuttings}) == len(cuttings)
