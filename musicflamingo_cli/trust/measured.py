"""What was measured from a track's audio, and its form in the sidecar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from musicflamingo_cli.audio.key import MODES, TONICS, Key
from musicflamingo_cli.audio.second_opinion import Opinion
from musicflamingo_cli.audio.tempo import Tempo
from musicflamingo_cli.sidecars.captions import MEASURED_KEY
from musicflamingo_cli.system.identity import is_replaced

VERSION = 1  # of the estimators: tracks that another version measured are measured again
CLEAR_KEY = 0.1  # the confidence from which a key is hardly ever wrong
_LARGEST = 1e9  # no value of a measurement is larger


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured from a track's audio; None where it is unknown (noise, silence, drums alone).

    ``lufs``: integrated loudness (EBU R 128). ``seconds``: the length. ``silence``: the share of it that is silent,
    from 0 to 1. ``width``: the stereo width, from 0 (mono) to 1; None where there is no sound. ``halves``: the key
    of each half as `A minor`, None where unknown; ``tempi``: the tempo of each half, likewise. ``audio``: the
    identity of the file (see ``system.identity``). ``essentia``: what that library says, where it is installed.
    """

    tempo: Tempo | None
    key: Key | None
    lufs: float | None
    seconds: float
    silence: float
    width: float | None
    halves: tuple[str | None, ...] = ()
    tempi: tuple[float | None, ...] = ()
    audio: Mapping[str, Any] | None = None
    version: int = VERSION
    essentia: Opinion | None = None


@dataclass(frozen=True, slots=True)
class Stated:
    """Tempo in beats per minute and key that another tool wrote into the sidecar; None where it wrote none."""

    bpm: float | None
    key: str | None


def measured_of(info: Mapping[str, Any], audio: Path) -> Measured | None:
    """Return the measurement of ``audio`` in a sidecar's data.

    None where there is none, none that can be used, or that of an earlier file of this name.
    """
    found = _read(info)
    return None if found is None or is_replaced(audio, found.audio) else found


def _read(info: Mapping[str, Any]) -> Measured | None:
    found = info.get(MEASURED_KEY)
    if not isinstance(found, dict) or not isinstance(found.get("version"), int):
        return None
    seconds, silence = _number(found.get("seconds")), _number(found.get("silence"))
    if seconds is None or silence is None:
        return None
    halves, tempi, audio = found.get("halves"), found.get("tempi"), found.get("audio")
    return Measured(
        tempo=_tempo(found.get("tempo")),
        key=_key(found.get("key")),
        lufs=_number(found.get("lufs")),
        seconds=seconds,
        silence=silence,
        width=_number(found.get("width")),
        halves=tuple(_name(each) for each in halves) if isinstance(halves, list) else (),
        tempi=tuple(_bpm(each) for each in tempi) if isinstance(tempi, list) else (),
        audio=audio if isinstance(audio, dict) else None,
        version=found["version"],
        essentia=_opinion(found.get("essentia")),
    )


def as_json(measured: Measured) -> dict[str, Any]:
    """Return a measurement as the value of its sidecar key (docs/measure.md)."""
    values = asdict(measured)
    if measured.essentia is None:
        del values["essentia"]
    return {"version": values.pop("version"), **values}


def is_current(info: Mapping[str, Any], audio: Path) -> bool:
    """Return whether a sidecar's data holds a measurement of this audio by this version."""
    found = measured_of(info, audio)
    return found is not None and found.version == VERSION


def stated_by_others(info: Mapping[str, Any]) -> Stated:
    """Return the tempo and key that other tools wrote into a sidecar (`bpm`, `tempo`; `key`, `musical_key`)."""
    tempi = (_bpm(info.get(name)) for name in ("bpm", "tempo"))
    keys = (info.get(name) for name in ("key", "musical_key"))
    return Stated(
        bpm=next((tempo for tempo in tempi if tempo is not None), None),
        key=next((key.strip() for key in keys if isinstance(key, str) and key.strip()), None),
    )


def prompt_values(info: Mapping[str, Any], audio: Path) -> dict[str, str]:
    """Return the prompt variables `measured_bpm` and `measured_key` of ``audio``; unknown ones are absent.

    A key counts only where it is clear, since a model repeats what its prompt says.
    """
    found = measured_of(info, audio)
    values = {}
    if found and found.tempo:
        values["measured_bpm"] = f"{found.tempo.bpm:.0f}"
    if found and found.key and found.key.confidence >= CLEAR_KEY:
        values["measured_key"] = found.key.name
    return values


def _bpm(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    number = _number(value)
    return number if number is not None and number > 0 else None


def _tempo(value: Any) -> Tempo | None:
    if not isinstance(value, dict):
        return None
    bpm, confidence = _number(value.get("bpm")), _number(value.get("confidence"))
    if bpm is None or confidence is None or bpm <= 0:
        return None
    return Tempo(bpm=bpm, confidence=confidence, alternatives=tuple(_numbers(value.get("alternatives"))))


def _opinion(value: Any) -> Opinion | None:
    return Opinion(bpm=_number(value.get("bpm")), key=_name(value.get("key"))) if isinstance(value, dict) else None


def _key(value: Any) -> Key | None:
    if not isinstance(value, dict):
        return None
    name, confidence, relatives = _name(value.get("name")), _number(value.get("confidence")), value.get("relatives")
    if name is None or confidence is None:
        return None
    names = map(_name, relatives) if isinstance(relatives, list) else ()
    return Key(name=name, confidence=confidence, relatives=tuple(each for each in names if each))


def _name(value: Any) -> str | None:
    """The name of a key as `A minor`; None for anything else."""
    tonic, _, mode = value.partition(" ") if isinstance(value, str) else ("", "", "")
    return value if tonic in TONICS and mode in MODES else None


def _numbers(value: Any) -> list[float]:
    numbers = map(_number, value) if isinstance(value, list) else ()
    return [number for number in numbers if number is not None]


def _number(value: Any) -> float | None:
    """The value as a number; None for NaN, infinity, absurd ones and anything else."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and -_LARGEST < value < _LARGEST else None
