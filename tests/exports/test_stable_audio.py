"""stable-audio-tools exports, read back as its data loader does."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import Any

import dill

from musicflamingo_cli.exports import ExportOptions
from musicflamingo_cli.sidecars.captions import APPROVED_KEY, EXCLUDED_KEY
from musicflamingo_cli.sidecars.merge import merge_sidecar
from tests.exports.conftest import PRESETS, add, read_csv, run, true_captions, true_texts


def samples_of(config: Path) -> dict[str, dict[str, Any]]:
    """Read as stable_audio_tools/data/dataset.py does: all audio, with the module loaded by dill for each file."""
    dataset = json.loads(config.read_text())["datasets"][0]
    spec = importlib.util.spec_from_file_location("metadata_module", dataset["custom_metadata_module"])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pickled = dill.dumps(module.get_custom_metadata)
    found = {}
    for audio in sorted(Path(dataset["path"]).rglob("*")):
        if audio.suffix.lower() in (".wav", ".mp3", ".flac", ".ogg", ".aif", ".opus", ".aiff"):
            relpath = str(audio.relative_to(dataset["path"]))
            found[relpath] = dill.loads(pickled)({"path": str(audio), "relpath": relpath, "seconds_start": 0}, None)
    return found


def test_every_track_has_its_prompt_and_stems_are_left_out(captioned: Path, tmp_path: Path) -> None:
    run("stable-audio", captioned, tmp_path / "out")
    found = samples_of(tmp_path / "out" / "dataset.json")
    assert found == {path: {"prompt": text} for path, text in true_texts(captioned).items()}


def test_a_caption_is_drawn_for_every_sample(captioned: Path, tmp_path: Path) -> None:
    """Although the trainer loads the function again for every sample."""
    options = ExportOptions(weights={"full": 3, "technical": 1}, columns=PRESETS, prefix="mytrigger,")
    run("stable-audio", captioned, tmp_path / "out", options)
    path, captions = next(iter(true_captions(captioned).items()))
    drawn = Counter(samples_of(tmp_path / "out" / "dataset.json")[path]["prompt"] for _ in range(60))
    assert set(drawn) == {f"mytrigger, {captions['full']}", f"mytrigger, {captions['technical']}"}
    assert drawn[f"mytrigger, {captions['full']}"] > 30


def test_changed_and_broken_sidecars_take_effect(music: Path, tmp_path: Path) -> None:
    run("stable-audio", music, tmp_path / "out")
    changed, broken = sorted(music.rglob("*.INFO"))[:2]
    merge_sidecar(changed, {"music_flamingo_full": "Changed since."})
    broken.write_text("{broken")
    found = list(samples_of(tmp_path / "out" / "dataset.json").values())
    assert found.count({"prompt": "Changed since."}) == 1
    assert found.count({"__reject__": True}) == 1


def test_each_track_is_in_one_split(captioned: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    options = ExportOptions(weights={"full": 1}, columns=PRESETS, validation=0.3)
    run("stable-audio", captioned, tmp_path / "out", options)
    run("csv", captioned, table, options)
    expected = {row["path"]: row["split"] for row in read_csv(table)}
    assert 5 < Counter(expected.values())["validation"] < 25
    for split in ("train", "validation"):
        found = samples_of(tmp_path / "out" / f"{split}.json")
        assert set(found) == {path for path, its_split in expected.items() if its_split == split}


def test_file_types_that_the_trainer_skips_are_reported(music: Path, tmp_path: Path) -> None:
    wav = next(music.rglob("Track 00*.wav"))
    wav.rename(wav.with_suffix(".caf"))
    stats = run("stable-audio", music, tmp_path / "out")
    assert stats.remarks == {"are .caf, which stable-audio-tools skips": 1}


def test_what_is_counted_is_what_is_trained_on(music: Path, tmp_path: Path) -> None:
    """An edited caption of the tiny model counts, an excluded track does not, words are counted after striking."""
    edited, excluded, long, *_ = sorted(music.rglob("*.INFO"))
    merge_sidecar(edited, {"music_flamingo_provenance": {"full": {"toy": True, "edited": True}}})
    add(long, bpm=120)
    options = ExportOptions(weights={"full": 1}, columns=PRESETS, strike=True, max_words=4)
    for sidecar in sorted(music.rglob("*.INFO")):
        more = " The tempo is a steady 87 BPM throughout." if sidecar == long else ""
        merge_sidecar(sidecar, {"music_flamingo_full": f"Calm house music.{more}"})
    stats = run("stable-audio", music, tmp_path / "out", options)
    found = samples_of(tmp_path / "out" / "dataset.json")
    assert len(found) == stats.exported
    assert all(sample == {"prompt": "Calm house music."} for sample in found.values()), found
    merge_sidecar(excluded, {EXCLUDED_KEY: True})
    assert list(samples_of(tmp_path / "out" / "dataset.json").values()).count({"__reject__": True}) == 1


def test_an_export_that_was_used_can_be_replaced(music: Path, tmp_path: Path) -> None:
    """Loading the module leaves Python's cache beside it."""
    run("stable-audio", music, tmp_path / "out")
    samples_of(tmp_path / "out" / "dataset.json")
    (tmp_path / "out" / "__pycache__").mkdir(exist_ok=True)
    (tmp_path / "out" / "__pycache__" / "metadata.cpython-311.pyc").write_bytes(b"x")
    run("stable-audio", music, tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "__pycache__").exists()


def test_a_caption_no_longer_approved_is_rejected(music: Path, tmp_path: Path) -> None:
    sidecars = sorted(music.rglob("*.INFO"))
    for sidecar in sidecars[:3]:
        merge_sidecar(sidecar, {APPROVED_KEY: True})
    options = ExportOptions(weights={"full": 1}, columns=PRESETS, only_approved=True)
    run("stable-audio", music, tmp_path / "out", options)
    assert len(samples_of(tmp_path / "out" / "dataset.json")) == 3
    merge_sidecar(sidecars[0], {"music_flamingo_full": "Nobody has seen this one."})
    found = list(samples_of(tmp_path / "out" / "dataset.json").values())
    assert found.count({"__reject__": True}) == 1
