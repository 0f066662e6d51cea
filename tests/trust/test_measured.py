"""The measurement in the sidecar: what is written is read again, and nothing odd is read as a measurement."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from musicflamingo_cli.audio.key import Key, relatives_of
from musicflamingo_cli.audio.second_opinion import Opinion
from musicflamingo_cli.audio.tempo import Tempo
from musicflamingo_cli.sidecars.captions import MEASURED_KEY
from musicflamingo_cli.system.identity import file_identity
from musicflamingo_cli.trust.measured import (
    VERSION,
    Measured,
    Stated,
    as_json,
    is_current,
    measured_of,
    prompt_values,
    stated_by_others,
)

AUDIO = Path("a.wav")  # not there, so not known to be another file
MEASURED = Measured(
    tempo=Tempo(bpm=120.1, confidence=0.4, alternatives=(60.05, 240.2)),
    key=Key(name="A minor", confidence=0.2, relatives=relatives_of("A minor")),
    lufs=-14.2,
    seconds=30.0,
    silence=0.1,
    width=0.3,
    halves=("A minor", None),
    tempi=(120.0, None),
    essentia=Opinion(bpm=120.0, key=None),
    audio={"size": 3, "hash": "0123456789abcdef", "modified": 1},
)


def in_sidecar(measured: Measured) -> dict[str, Any]:
    """The sidecar's data after it went through JSON."""
    data: dict[str, Any] = json.loads(json.dumps({MEASURED_KEY: as_json(measured)}))
    return data


@pytest.mark.parametrize(
    "measured", [MEASURED, replace(MEASURED, tempo=None, key=None, lufs=None, width=None, essentia=None, tempi=())]
)
def test_what_is_written_is_read_again(measured: Measured) -> None:
    assert measured_of(in_sidecar(measured), AUDIO) == measured


@pytest.mark.parametrize("value", [None, 5, [], "x", {}, {"version": 1}, {"version": 1, "seconds": float("nan")}])
def test_odd_values_are_no_measurement(value: Any) -> None:
    assert measured_of({MEASURED_KEY: value}, AUDIO) is None


def test_the_measurement_of_an_earlier_file_is_none(tmp_path: Path) -> None:
    audio = tmp_path / "a.wav"
    audio.write_bytes(b"before")
    info = in_sidecar(replace(MEASURED, audio=file_identity(audio)))
    assert measured_of(info, audio)
    assert prompt_values(info, audio)["measured_bpm"] == "120"
    audio.write_bytes(b"after it was replaced")
    assert measured_of(info, audio) is None
    assert prompt_values(info, audio) == {}


def test_odd_parts_of_a_measurement_are_unknown() -> None:
    info = in_sidecar(MEASURED)
    info[MEASURED_KEY] |= {"tempo": {"bpm": -3, "confidence": 1}, "key": {"name": "H minor", "confidence": 1}}
    info[MEASURED_KEY] |= {"lufs": 10**400, "halves": ["A minor", 7], "width": True}
    found = measured_of(info, AUDIO)
    assert found is not None
    assert (found.tempo, found.key, found.lufs, found.width) == (None, None, None, None)
    assert found.halves == ("A minor", None)


def test_another_version_or_audio_is_not_current(tmp_path: Path) -> None:
    audio = tmp_path / "song.wav"
    audio.write_bytes(b"abc")
    measured = replace(MEASURED, audio=file_identity(audio))
    assert is_current(in_sidecar(measured), audio)
    assert not is_current({}, audio)
    assert not is_current(in_sidecar(replace(measured, version=VERSION + 1)), audio)
    audio.write_bytes(b"abcd")
    assert not is_current(in_sidecar(measured), audio)


def test_relatives_of_a_key() -> None:
    assert relatives_of("A minor") == ("C major", "A major", "E minor", "D minor")
    assert relatives_of("C major") == ("A minor", "C minor", "G major", "F major")


@pytest.mark.parametrize(
    ("info", "stated"),
    [
        ({}, Stated(None, None)),
        ({"bpm": "128.5", "key": " F#m "}, Stated(128.5, "F#m")),
        ({"bpm": 0, "tempo": 90, "musical_key": "C major"}, Stated(90.0, "C major")),
        ({"bpm": "fast", "key": 7}, Stated(None, None)),
        ({"bpm": float("nan")}, Stated(None, None)),
    ],
)
def test_values_of_other_tools(info: dict[str, Any], stated: Stated) -> None:
    assert stated_by_others(info) == stated
