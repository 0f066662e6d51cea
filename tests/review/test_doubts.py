"""What `check` and `measure` wrote is shown; what is absurd in it is ignored."""

from __future__ import annotations

from typing import Any

import pytest

from musicflamingo_cli.review.doubts import Mark, doubt_of, marks_in, measured_json, reasons_of

CAPTION = "A house track at 80 BPM, 180 bars, in F# minor."
EVIDENCE = [{"source": "measured", "verdict": "contradicted", "detail": "97.3 BPM"}]
CLAIM = {"field": "tempo", "value": "80", "verdict": "contradicted", "evidence": EVIDENCE}
CHECK: dict[str, Any] = {"score": 0.4, "reasons": ["full: tempo 80 contradicted"], "claims": {"full": [CLAIM]}}


def measured(bpm: float, confidence: float) -> dict[str, Any]:
    tempo = {"bpm": bpm, "confidence": confidence, "alternatives": []}
    return {"music_flamingo_measured": {"version": 1, "seconds": 9.0, "silence": 0.0, "tempo": tempo, "key": None}}


def test_a_check_is_doubt_reasons_and_marks() -> None:
    info = {"music_flamingo_check": CHECK}
    assert doubt_of(info) == pytest.approx(0.6)
    assert reasons_of(info) == CHECK["reasons"]
    assert marks_in(info, "full", CAPTION) == [Mark(17, 19, "measured 97.3 BPM")]
    assert marks_in(info, "structure", CAPTION) == []
    assert marks_in(info, "full", "It was edited: 180 BPM.") == []


@pytest.mark.parametrize(
    "check",
    [
        None,
        [],
        {},
        {"score": "high"},
        {"score": True},
        {"score": float("nan")},
        {"claims": {"full": [1, {}, {"verdict": "contradicted"}]}},
    ],
)
def test_absurd_checks_are_no_doubt(check: Any) -> None:
    info = {"music_flamingo_check": check}
    assert doubt_of(info) is None
    assert reasons_of(info) == []
    assert marks_in(info, "full", CAPTION) == []


@pytest.mark.parametrize(
    ("bpm", "confidence", "is_marked"),
    [(97.3, 0.4, True), (97.3, 0.01, False), (80, 1, False), (161, 1, False), (40, 1, False), (120, 1, False)],
)
def test_a_measured_tempo_marks_what_it_contradicts(bpm: float, confidence: float, is_marked: bool) -> None:
    info = measured(bpm, confidence)
    assert bool(marks_in(info, "full", CAPTION)) is is_marked
    shown = measured_json(info)
    assert shown is not None
    assert shown["tempo"]["bpm"] == bpm
    assert measured_json({}) is None
