"""What `check` and `measure` wrote is shown; what is absurd in it is ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from musicflamingo_cli.review.doubts import doubt_of, marks_in, measured_json, reasons_of
from musicflamingo_cli.sidecars.checks import basis_of
from musicflamingo_cli.trust.known import known_of

CAPTION = "A track at 80 BPM, 180 bars, in F# minor."
INFO = {"music_flamingo_full": CAPTION, "music_flamingo_note": "It is 120 BPM."}
CHECK: dict[str, Any] = {"score": 0.4, "reasons": ["full: tempo 80 contradicted"], "contradicted": ["full"]}


def checked(check: Any) -> dict[str, Any]:
    return {**INFO, "music_flamingo_check": {**check, "basis": basis_of(INFO)} if isinstance(check, dict) else check}


def measured(bpm: float, confidence: float) -> dict[str, Any]:
    tempo = {"bpm": bpm, "confidence": confidence, "alternatives": []}
    return {"music_flamingo_measured": {"version": 1, "seconds": 9.0, "silence": 0.0, "tempo": tempo, "key": None}}


def test_a_check_is_doubt_and_reasons() -> None:
    assert doubt_of(checked(CHECK)) == pytest.approx(0.6)
    assert reasons_of(checked(CHECK)) == CHECK["reasons"]


def test_a_note_outdates_no_check_but_a_caption_does() -> None:
    assert doubt_of(checked(CHECK) | {"music_flamingo_full": "At 97 BPM."}) is None
    assert doubt_of(checked(CHECK) | {"music_flamingo_note": "Listen again."}) == pytest.approx(0.6)


@pytest.mark.parametrize("check", [None, [], {}, {"score": "high"}, {"score": -1}, {"score": float("nan")}])
def test_absurd_checks_are_no_doubt(check: Any) -> None:
    assert doubt_of(checked(check)) is None
    assert reasons_of(checked(check)) == []


@pytest.mark.parametrize(
    ("bpm", "confidence", "is_marked"),
    [(97.3, 0.4, True), (97.3, 0.01, False), (80, 1, False), (161, 1, False), (40, 1, False), (120, 1, False)],
)
def test_a_measured_tempo_marks_what_it_contradicts(
    tmp_path: Path, bpm: float, confidence: float, is_marked: bool
) -> None:
    info = measured(bpm, confidence)
    marks = marks_in(CAPTION, "full", known_of(info, tmp_path / "song.wav"))
    assert [CAPTION[mark.start : mark.end] for mark in marks] == (["80"] if is_marked else [])
    assert all("measured 97.3 BPM" in mark.reason for mark in marks)
    shown = measured_json(info, Path("a.wav"))
    assert shown is not None
    assert shown["tempo"]["bpm"] == bpm
    assert measured_json({}, Path("a.wav")) is None
