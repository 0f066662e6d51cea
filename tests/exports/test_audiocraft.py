"""audiocraft exports, read back as its music dataset does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile

from musicflamingo_cli.exports import ExportOptions
from tests.exports.conftest import PRESETS, read_jsonl, run, true_captions, true_texts

# From audiocraft/data/music_dataset.py and info_audio_dataset.py, repeated since the package does not install
# everywhere.
_FIELDS = ("title", "artist", "key", "bpm", "genre", "moods", "description", "name", "instrument")


def as_audiocraft_reads(info: dict[str, Any]) -> dict[str, Any]:
    """The fields of a JSON file as audiocraft's reader normalises them."""
    missing = [name for name in _FIELDS if name not in info]
    assert not missing  # audiocraft raises KeyError
    assert isinstance(info["moods"], (list, str))
    key = info["key"]
    return {
        "key": key.strip().lower() if key and "," not in key else None,
        "bpm": float(info["bpm"]) if info["bpm"] is not None else None,
        "description": info["description"].strip() or None,
        "moods": [mood.strip().lower() for mood in info["moods"] if mood] or None,
        "instrument": info["instrument"].strip().lower() or None,
    }


def test_manifest_info_and_paraphrases_are_read(captioned: Path, tmp_path: Path) -> None:
    run("audiocraft", captioned, tmp_path / "out")
    lines: list[dict[str, Any]] = list(read_jsonl(tmp_path / "out" / "data.jsonl"))
    paraphrases = json.loads((tmp_path / "out" / "paraphrases.json").read_text("utf-8"))
    found, others = {}, {}
    for meta in lines:
        assert set(meta) == {"path", "duration", "sample_rate", "amplitude", "weight", "info_path"}
        path = Path(meta["path"])
        assert soundfile.info(path).duration == pytest.approx(meta["duration"])
        assert soundfile.info(path).samplerate == meta["sample_rate"]
        read = as_audiocraft_reads(json.loads(path.with_suffix(".json").read_text("utf-8")))
        assert read["key"] == "f# minor"
        assert 60 < read["bpm"] < 300
        assert read["instrument"] == "piano, drums"
        assert read["moods"] == ["warm"]
        name = path.relative_to(tmp_path / "out" / "audio").as_posix()
        found[name] = read["description"]
        others[name] = paraphrases[str(path.with_suffix(".json"))]
    assert found == true_texts(captioned)
    assert others == {path: list(captions.values()) for path, captions in true_captions(captioned).items()}


def test_facts_are_not_taken_from_the_prefix(captioned: Path, tmp_path: Path) -> None:
    prefix = "techno guitar at 140 BPM in C major,"
    options = ExportOptions(weights={"full": 1}, columns=PRESETS, prefix=prefix)
    run("audiocraft", captioned, tmp_path / "out", options)
    info = json.loads(next((tmp_path / "out" / "audio").rglob("*.json")).read_text("utf-8"))
    assert info["description"].startswith("techno guitar")
    assert (info["key"], info["genre"], info["instrument"]) == ("F# minor", "jazz", "piano, drums")
    assert info["bpm"] != 140
