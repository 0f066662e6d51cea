"""Exports, each proved by the reader that it is for: 50 tracks captioned by a batch, read back word for word."""

from __future__ import annotations

import csv
import errno
import hashlib
import importlib.util
import io
import json
import math
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import dill
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from musicflamingo_cli import exports
from musicflamingo_cli.captioning.batch import Dataset
from musicflamingo_cli.captioning.captioner import Captioner, Policy
from musicflamingo_cli.captioning.retries import Rounds
from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.exports import FORMATS, Choice, Tally, Target, rows
from musicflamingo_cli.exports.rows import captions_of, share
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.merge import caption_key, merge_sidecar, read_sidecar
from musicflamingo_cli.system.temporary import owner
from musicflamingo_cli.text.t5_tokens import Budget, token_counter
from musicflamingo_cli.types import Failure, Prompt, Sampling
from tests.fakes.engines import REAL_PAIR, ScriptedEngine

PRESETS = ("full", "technical", "genre_mood")
EVERYTHING = Choice(weights={"full": 1}, columns=PRESETS)
FOLDERS = ("a", "b c", "d#é%", "a/deep")
ENDINGS = (".wav", ".flac", ".ogg")


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 50 tracks in awkward places, captioned by a real batch over an engine double."""
    root = tmp_path_factory.mktemp("datasets") / "my music"
    for number in range(49):
        path = root / FOLDERS[number % 4] / f"Track {number:02d} v1.2{ENDINGS[number % 3]}"
        write_sound(path, 0.6 + number / 100)
    write_sound(root / "Song" / "full_mix.flac", 1.0)
    write_sound(root / "Song" / "drums.flac", 1.0)  # a stem: not a track
    engine = ScriptedEngine(lambda prompt, sampling: say(prompt, sampling, engine))
    captioner = Captioner(engine, REAL_PAIR, Policy())
    dataset = Dataset(root, [Preset(name, "Describe it.") for name in PRESETS])
    Rounds([dataset], captioner, lambda outcome: None, print, print, print).run(Selection())
    return root


def write_sound(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * 22050)) / 22050)
    soundfile.write(path, wave, 22050)


def say(prompt: Prompt, sampling: Sampling, engine: ScriptedEngine) -> str:
    """Another caption each time, with what formats get wrong: quotes, commas, letters that are not ASCII."""
    number = len(engine.asked)
    return (
        f'A "warm", slow jazz piece no. {number} at {60 + number} BPM in F# minor; café piano & drums, {prompt.preset}.'
    )


def run(name: str, root: Path, out: Path, choice: Choice = EVERYTHING, **target: Any) -> Tally:
    failed: list[tuple[Path, Failure]] = []
    tally = Tally(lambda path, failure: failed.append((path, failure)))
    exports.export(name, root, Target(out, **target), choice, tally, Budget(token_counter(None)))
    assert tally.failures == len(failed)
    return tally


def truth(root: Path) -> dict[str, dict[str, str]]:
    """Path below the dataset to captions, read from the sidecars themselves."""
    found = {}
    for audio in sorted(root.rglob("*")):
        if audio.suffix in ENDINGS and audio.stem != "drums":
            info = read_sidecar(track_for(audio).sidecar)
            found[audio.relative_to(root).as_posix()] = captions_of(info, PRESETS)
    assert len(found) == 50
    assert all(len(captions) == 3 for captions in found.values())
    return found


def texts(root: Path) -> dict[str, str]:
    return {path: captions["full"] for path, captions in truth(root).items()}


# -- the readers ---------------------------------------------------------------------------------------


@pytest.fixture
def _no_codec_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """datasets wants torch and torchcodec before it looks at a value; this is what it then does with a path."""
    import datasets

    monkeypatch.setattr(datasets.Audio, "encode_example", lambda self, path: {"bytes": None, "path": path})


@pytest.mark.parametrize("validation", [0.0, 0.3])
@pytest.mark.usefixtures("_no_codec_needed")
def test_huggingface_datasets_reads_the_audiofolder(captioned: Path, tmp_path: Path, validation: float) -> None:
    import datasets

    choice = Choice(weights={"full": 1}, columns=PRESETS, validation=validation)
    run("audiofolder", captioned, tmp_path / "out", choice)
    read = datasets.load_dataset("audiofolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert set(read) == ({"train", "validation"} if validation else {"train"})
    found, columns = {}, {}
    for split in read.values():
        for row in split.cast_column("audio", datasets.Audio(decode=False)):
            assert Path(row["audio"]["path"]).read_bytes() == (captioned / row["path"]).read_bytes()
            found[row["path"]] = row["text"]
            columns[row["path"]] = {preset: row[preset] for preset in PRESETS}
    assert found == texts(captioned)
    assert columns == truth(captioned)


@pytest.mark.parametrize("validation", [0.0, 0.5, 0.0001])
@pytest.mark.usefixtures("_no_codec_needed")
def test_names_that_look_like_splits_are_no_splits(tmp_path: Path, validation: float) -> None:
    """Nor does a split without rows make the loader refuse the others."""
    import datasets

    names = ["soul train 2", "test_01", "test/a", "dev/b", "validation/c", "plain", "my-eval-x", "d", "e"]
    for name in names:
        write_sound(tmp_path / "music" / f"{name}.wav", 0.1)
        (tmp_path / "music" / f"{name}.INFO").write_text(json.dumps({"music_flamingo_full": f"This is {name}."}))
    run("audiofolder", tmp_path / "music", tmp_path / "out", Choice({"full": 1}, ["full"], validation=validation))
    read = datasets.load_dataset("audiofolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    found = {row["path"]: row["text"] for split in read.values() for row in split.remove_columns("audio")}
    assert found == {f"{name}.wav": f"This is {name}." for name in names}


def test_webdataset_reads_the_shards(captioned: Path, tmp_path: Path) -> None:
    import webdataset

    run("webdataset", captioned, tmp_path / "out", shard_size=20)
    config = json.loads((tmp_path / "out" / "dataset.json").read_text())
    shards = sorted(map(str, Path(config["datasets"][0]["path"]).glob("*.tar")))
    assert config["dataset_type"] == "wds"
    assert len(shards) == 3
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
    assert len({sample["__key__"] for sample in samples}) == 50
    for sample in samples:
        about = sample["json"]
        ending = Path(about["path"]).suffix.lstrip(".")
        assert sample[ending] == (captioned / about["path"]).read_bytes()
        assert about["text"] == about["prompt"]
        assert about["seconds_total"] == pytest.approx(soundfile.info(captioned / about["path"]).duration)
    assert {sample["json"]["path"]: sample["json"]["text"] for sample in samples} == texts(captioned)
    assert {sample["json"]["path"]: sample["json"]["captions"] for sample in samples} == truth(captioned)


def samples_of(config: Path) -> dict[str, dict[str, Any]]:
    """As stable_audio_tools/data/dataset.py does: all audio below the folder, and the module through dill each time."""
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


def test_stable_audio_tools_gets_every_prompt(captioned: Path, tmp_path: Path) -> None:
    run("stable-audio", captioned, tmp_path / "out")
    found = samples_of(tmp_path / "out" / "dataset.json")
    assert found == {path: {"prompt": text} for path, text in texts(captioned).items()}  # and no stem


def test_stable_audio_tools_draws_another_caption_each_time(captioned: Path, tmp_path: Path) -> None:
    """Though the trainer loads the function anew for every sample."""
    run("stable-audio", captioned, tmp_path / "out", Choice({"full": 3, "technical": 1}, PRESETS, prefix="mytrigger,"))
    path, captions = next(iter(truth(captioned).items()))
    drawn = Counter(samples_of(tmp_path / "out" / "dataset.json")[path]["prompt"] for _ in range(60))
    assert set(drawn) == {f"mytrigger, {captions['full']}", f"mytrigger, {captions['technical']}"}
    assert drawn[f"mytrigger, {captions['full']}"] > 30


def test_stable_audio_tools_reads_what_the_sidecar_says_now(captioned: Path, tmp_path: Path) -> None:
    root = tmp_path / "music"
    shutil.copytree(captioned, root)
    run("stable-audio", root, tmp_path / "out")
    one, other = sorted(root.rglob("*.INFO"))[:2]
    merge_sidecar(one, {"music_flamingo_full": "Changed since."})
    other.write_text("{broken")
    found = samples_of(tmp_path / "out" / "dataset.json")
    said = list(found.values())
    assert said.count({"prompt": "Changed since."}) == 1
    assert said.count({"__reject__": True}) == 1


def test_stable_audio_tools_gets_each_track_in_one_split(captioned: Path, tmp_path: Path) -> None:
    tables = tmp_path / "table.csv"
    choice = Choice({"full": 1}, PRESETS, validation=0.3)
    run("stable-audio", captioned, tmp_path / "out", choice)
    run("csv", captioned, tables, choice)
    expected = {row["path"]: row["split"] for row in read_csv(tables)}
    assert 5 < Counter(expected.values())["validation"] < 25
    for split in ("train", "validation"):
        takes = samples_of(tmp_path / "out" / f"{split}.json")
        assert set(takes) == {path for path, its in expected.items() if its == split}


def test_formats_that_stable_audio_tools_passes_over_are_named(captioned: Path, tmp_path: Path) -> None:
    root = tmp_path / "music"
    shutil.copytree(captioned, root)
    wav = next(root.rglob("Track 00*.wav"))
    wav.rename(wav.with_suffix(".caf"))
    assert run("stable-audio", root, tmp_path / "out").remarks == {"are .caf, which stable-audio-tools passes over": 1}


# audiocraft/data/music_dataset.py and info_audio_dataset.py, restated: its package does not install everywhere.
AUDIOCRAFT_FIELDS = ("title", "artist", "key", "bpm", "genre", "moods", "description", "name", "instrument")


def as_audiocraft_reads(info: dict[str, Any]) -> dict[str, Any]:
    missing = [name for name in AUDIOCRAFT_FIELDS if name not in info]
    assert not missing  # it raises KeyError
    assert isinstance(info["moods"], (list, str))
    key = info["key"]
    return {
        "key": key.strip().lower() if key and "," not in key else None,
        "bpm": float(info["bpm"]) if info["bpm"] is not None else None,
        "description": info["description"].strip() or None,
        "moods": [mood.strip().lower() for mood in info["moods"] if mood] or None,
        "instrument": info["instrument"].strip().lower() or None,
    }


def test_audiocraft_gets_manifest_info_and_paraphrases(captioned: Path, tmp_path: Path) -> None:
    run("audiocraft", captioned, tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "data.jsonl").read_text("utf-8").splitlines()]
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
    assert found == texts(captioned)
    assert others == {path: list(captions.values()) for path, captions in truth(captioned).items()}


def test_ace_step_files_stand_beside_the_audio(captioned: Path, tmp_path: Path) -> None:
    root = tmp_path / "music"
    shutil.copytree(captioned, root)
    sidecar = next(root.rglob("Track 04*.INFO"))
    merge_sidecar(sidecar, {caption_key("lyrics"): "La la la"})
    run("ace-step", root, tmp_path / "out")
    found = {}
    for audio in (path for path in (tmp_path / "out").rglob("*") if path.suffix in ENDINGS):
        about = json.loads(audio.with_suffix(".json").read_text("utf-8"))
        assert set(about) == {"caption", "bpm", "keyscale", "timesignature", "language"}
        assert about["caption"] == audio.with_suffix(".caption.txt").read_text("utf-8")
        assert about["keyscale"] == "F# minor"
        assert isinstance(about["bpm"], int)
        found[audio.relative_to(tmp_path / "out").as_posix()] = about["caption"]
    assert found == texts(root)
    lyrics = list((tmp_path / "out").rglob("*.lyrics.txt"))
    assert [path.read_text() for path in lyrics] == ["La la la"]  # no file claims that the others have none


def test_txt_holds_the_caption_and_nothing_else(captioned: Path, tmp_path: Path) -> None:
    run("txt", captioned, tmp_path / "out", audio="copy")
    found = {}
    for audio in (path for path in (tmp_path / "out").rglob("*") if path.suffix in ENDINGS):
        assert not audio.is_symlink()
        found[audio.relative_to(tmp_path / "out").as_posix()] = audio.with_suffix(".txt").read_text("utf-8")
    assert found == texts(captioned)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_jsonl(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def read_parquet(path: Path) -> list[dict[str, str]]:
    from pyarrow import parquet

    rows: list[dict[str, str]] = parquet.read_table(path).to_pylist()
    return rows


@pytest.mark.parametrize(("name", "read"), [("csv", read_csv), ("jsonl", read_jsonl), ("parquet", read_parquet)])
@pytest.mark.parametrize("paths", ["relative", "absolute"])
def test_tables_are_read_back_word_for_word(
    captioned: Path, tmp_path: Path, name: str, read: Any, paths: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(captioned.parent)
    run(name, Path("my music"), tmp_path / "table", paths=paths)
    rows = read(tmp_path / "table")
    start = f"{captioned}/" if paths == "absolute" else ""
    assert {row["path"]: row["text"] for row in rows} == {f"{start}{k}": v for k, v in texts(captioned).items()}
    assert {row["path"]: {preset: row[preset] for preset in PRESETS} for row in rows} == {
        f"{start}{path}": captions for path, captions in truth(captioned).items()
    }


# -- what holds for all of them ------------------------------------------------------------------------


def fingerprint(path: Path) -> dict[str, str]:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(f.relative_to(path.parent)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.mark.parametrize("name", FORMATS)
def test_a_second_export_is_the_same_bytes(captioned: Path, tmp_path: Path, name: str) -> None:
    choice = Choice({"full": 1, "technical": 1}, PRESETS, validation=0.2)
    run(name, captioned, tmp_path / "out", choice)
    first = fingerprint(tmp_path / "out")
    run(name, captioned, tmp_path / "out", choice, overwrite=True)
    assert fingerprint(tmp_path / "out") == first
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # nothing is left beside it


@pytest.mark.parametrize("name", FORMATS)
def test_a_broken_sidecar_is_named_and_the_rest_exported(captioned: Path, tmp_path: Path, name: str) -> None:
    root = tmp_path / "music"
    shutil.copytree(captioned, root)
    next(root.rglob("Track 20*.INFO")).write_text("{broken")
    failed: list[Path] = []
    tally = Tally(lambda path, failure: failed.append(path))
    exports.export(name, root, Target(tmp_path / "out"), EVERYTHING, tally, Budget(token_counter(None)))
    assert [path.stem for path in failed] == ["Track 20 v1.2"]
    assert tally.exported == 49


@pytest.mark.parametrize("name", ["audiocraft", "ace-step", "webdataset"])
def test_audio_that_cannot_be_read_costs_its_track_only(captioned: Path, tmp_path: Path, name: str) -> None:
    root = tmp_path / "music"
    shutil.copytree(captioned, root)
    broken = next(path for path in root.rglob("Track 30*") if path.suffix in ENDINGS)
    broken.write_bytes(b"no sound")
    tally = run(name, root, tmp_path / "out")
    assert (tally.exported, tally.failures) == (49, 1)
    left = [path.name for path in (tmp_path / "out").rglob("Track 30*")]
    assert left == []


@pytest.mark.parametrize(
    ("choice", "exported", "left_out"),
    [
        (Choice({"full": 1}, PRESETS), 3, {"no caption": 2}),
        (Choice({"technical": 1}, ()), 1, {"no caption": 4}),
        (Choice({"full": 1}, PRESETS, only_complete=True), 1, {"no caption": 1, "not complete": 3}),
        (Choice({"full": 1}, PRESETS, only_approved=True), 1, {"no caption": 1, "not approved": 3}),
        (Choice({"full": 1}, (), min_words=5), 1, {"no caption": 2, "no caption of the right length": 2}),
        (Choice({"full": 1}, (), max_words=4), 2, {"no caption": 2, "no caption of the right length": 1}),
    ],
    ids=["all", "another preset", "complete", "approved", "min", "max"],
)
def test_which_tracks_are_taken(tmp_path: Path, choice: Choice, exported: int, left_out: dict[str, int]) -> None:
    captions: list[dict[str, Any]] = [
        {"music_flamingo_full": "Four words of text", "music_flamingo_approved": True},
        {"music_flamingo_full": "Here are five words now", "music_flamingo_approved": "yes"},
        {f"music_flamingo_{preset}": "In all three" for preset in PRESETS},
        {"music_flamingo_genre_mood": "", "music_flamingo_full": None},
        {"music_flamingo_genre_mood": "Only this"},
    ]
    if choice.min_words == 5:
        captions[2]["music_flamingo_full"] = "Too short"
    for number, info in enumerate(captions):
        write_sound(tmp_path / "music" / f"{number}.wav", 0.1)
        (tmp_path / "music" / f"{number}.INFO").write_text(json.dumps(info))
    tally = run("csv", tmp_path / "music", tmp_path / "out.csv", choice)
    assert (tally.exported, tally.left_out) == (exported, left_out)
    again = Tally(print)
    exports.rehearse(
        "csv", tmp_path / "music", Target(tmp_path / "new.csv"), choice, again, Budget(token_counter(None))
    )
    assert (again.exported, again.left_out) == (exported, left_out)


def test_words_of_the_tiny_model_are_not_exported(tmp_path: Path) -> None:
    write_sound(tmp_path / "music" / "a.wav", 0.1)
    made = {"full": {"toy": True}}
    info = {"music_flamingo_full": "Baran belin", "music_flamingo_provenance": made}
    (tmp_path / "music" / "a.INFO").write_text(json.dumps(info))
    with pytest.raises(ConfigError, match="nothing to export: the tiny model's words only"):
        run("jsonl", tmp_path / "music", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_an_export_of_nothing_leaves_the_old_one(captioned: Path, tmp_path: Path) -> None:
    for name in FORMATS:
        run(name, captioned, tmp_path / name)
        before = fingerprint(tmp_path / name)
        with pytest.raises(ConfigError, match="nothing to export"):
            run(name, captioned, tmp_path / name, Choice({"fulll": 1}, ["fulll"]), overwrite=True)
        assert fingerprint(tmp_path / name) == before


def test_what_others_wrote_into_a_sidecar_costs_no_more_than_its_track(captioned: Path, tmp_path: Path) -> None:
    root = tmp_path / "music"
    shutil.copytree(captioned, root)
    odd = {"title": "\ud800", "key": "\ud800", "lyrics": "\ud800", "bpm": 1e400, "genres": {"a": 1}}
    for number, (key, value) in enumerate(odd.items()):
        sidecar = next(root.rglob(f"Track 1{number}*.INFO"))
        info = json.loads(sidecar.read_text())
        sidecar.write_text(json.dumps({**info, key: value}))
    for name in FORMATS:
        assert run(name, root, tmp_path / name).exported == 50, name


def test_facts_are_not_taken_from_the_prefix(captioned: Path, tmp_path: Path) -> None:
    choice = Choice({"full": 1}, PRESETS, prefix="techno guitar at 140 BPM in C major,")
    run("audiocraft", captioned, tmp_path / "out", choice)
    info = json.loads(next((tmp_path / "out" / "audio").rglob("*.json")).read_text("utf-8"))
    assert info["description"].startswith("techno guitar")
    assert (info["key"], info["genre"], info["instrument"]) == ("F# minor", "jazz", "piano, drums")
    assert info["bpm"] != 140


def test_odd_presets_have_columns_of_their_own(tmp_path: Path) -> None:
    presets = ["text", "text_caption", "path", "full"]
    write_sound(tmp_path / "music" / "a.wav", 0.1)
    info = {f"music_flamingo_{preset}": f"The caption of {preset}." for preset in presets}
    (tmp_path / "music" / "a.INFO").write_text(json.dumps(info))
    for name, read in (("csv", read_csv), ("jsonl", read_jsonl)):
        run(name, tmp_path / "music", tmp_path / name, Choice({"full": 1}, presets))
        (row,) = read(tmp_path / name)
        assert (row["path"], row["text"]) == ("a.wav", "The caption of full.")
        assert sorted(value for key, value in row.items() if key not in ("path", "text", "preset")) == sorted(
            info.values()
        )


def test_a_read_error_in_the_middle_of_a_tar_costs_one_sample(
    captioned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import webdataset

    from musicflamingo_cli.exports.webdataset import _Shards

    write = _Shards._write
    calls: list[str] = []

    def flaky(self: Any, tar: Any, suffix: str, size: int, content: Any) -> None:
        calls.append(suffix)
        if len(calls) == 7:  # the fourth track's audio: its header and a part of it are written, then the disk fails
            write(self, tar, suffix, 100, io.BytesIO(b"x" * 100))
            tar.fileobj.write(b"half a member")
            raise OSError(errno.EIO, "Input/output error")
        write(self, tar, suffix, size, content)

    monkeypatch.setattr(_Shards, "_write", flaky)
    tally = run("webdataset", captioned, tmp_path / "out")
    assert (tally.exported, tally.failures) == (49, 1)
    shards = sorted(map(str, (tmp_path / "out").glob("*.tar")))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
    assert len(samples) == 49
    for sample in samples:
        path = sample["json"]["path"]
        assert sample[Path(path).suffix.lstrip(".")] == (captioned / path).read_bytes()


def test_a_mix_keeps_to_its_odds_and_to_each_track(captioned: Path, tmp_path: Path) -> None:
    choice = Choice({"full": 4, "technical": 1}, PRESETS)
    run("jsonl", captioned, tmp_path / "all.jsonl", choice)
    drawn = {row["path"]: row["preset"] for row in read_jsonl(tmp_path / "all.jsonl")}
    assert 25 < Counter(drawn.values())["full"] < 49
    smaller = tmp_path / "my music"
    shutil.copytree(captioned, smaller)
    shutil.rmtree(smaller / "a")
    run("jsonl", smaller, tmp_path / "some.jsonl", choice)
    assert all(drawn[row["path"]] == row["preset"] for row in read_jsonl(tmp_path / "some.jsonl"))


@given(st.text())
def test_a_share_is_at_least_zero_and_below_one(text: str) -> None:
    assert 0 <= share(text) < 1


def test_a_name_that_is_not_utf8_fails_alone(tmp_path: Path) -> None:
    for name in ("good", "bad\udcff"):
        write_sound(tmp_path / "music" / "x.wav", 0.1)
        (tmp_path / "music" / "x.wav").rename(tmp_path / "music" / f"{name}.wav")
        (tmp_path / "music" / f"{name}.INFO").write_text('{"music_flamingo_full": "A caption."}')
    tally = run("parquet", tmp_path / "music", tmp_path / "out.parquet")
    assert (tally.exported, tally.failures) == (1, 1)


# -- the place -----------------------------------------------------------------------------------------


def test_what_is_not_an_export_of_ours_is_never_replaced(captioned: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.doc").write_text("years of work")
    with pytest.raises(ConfigError, match="no export of ours"):
        run("txt", captioned, out, overwrite=True)
    (out / "thesis.doc").unlink()
    run("txt", captioned, out)
    with pytest.raises(ConfigError, match="holds an export already"):
        run("txt", captioned, out)
    (out / "a" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"did not write: a/notes\.txt"):
        run("txt", captioned, out, overwrite=True)
    assert (out / "a" / "notes.txt").read_text() == "mine"
    (out / "a" / "notes.txt").unlink()
    edited = next(out.rglob("Track*.txt"))
    edited.write_text("edited by hand")
    with pytest.raises(ConfigError, match="was changed since"):
        run("txt", captioned, out, overwrite=True)
    assert edited.read_text() == "edited by hand"


@pytest.mark.parametrize("name", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("kind", ["document", "link", "dangling", "fifo", "folder"])
def test_a_table_replaces_nothing_but_a_table(captioned: Path, tmp_path: Path, name: str, kind: str) -> None:
    out, mine = tmp_path / "out", tmp_path / "thesis.doc"
    mine.write_text("years of work")
    match kind:
        case "document":
            mine.rename(out)
        case "link":
            out.symlink_to(mine)
        case "dangling":
            out.symlink_to(tmp_path / "nowhere")
        case "fifo":
            os.mkfifo(out)
        case "folder":
            out.mkdir()
    before = out.lstat()
    with pytest.raises(ConfigError, match=r"did not write it|is a folder"):
        run(name, captioned, out, overwrite=True)
    assert (out.lstat().st_ino, out.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert (out if kind == "document" else mine).read_text() == "years of work"


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_appears_while_an_export_is_built_stays(
    captioned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    out = tmp_path / "out"
    if overwrite:
        run("txt", captioned, out)
    real = rows._fits

    def meanwhile(caption: str, choice: Choice) -> bool:
        out.mkdir(exist_ok=True)
        (out / "thesis.doc").write_text("years of work")
        return real(caption, choice)

    monkeypatch.setattr(rows, "_fits", meanwhile)
    with pytest.raises(ConfigError):
        run("txt", captioned, out, overwrite=overwrite)
    assert (out / "thesis.doc").read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_of_two_exports_at_once_one_is_told(captioned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    real = rows._fits
    calls: list[int] = []

    def the_other_is_faster(caption: str, choice: Choice) -> bool:
        if not calls:
            calls.append(1)
            run("txt", captioned, out, Choice({"technical": 1}, PRESETS))
        return real(caption, choice)

    monkeypatch.setattr(rows, "_fits", the_other_is_faster)
    with pytest.raises(ConfigError, match="holds an export already"):
        run("txt", captioned, out)
    assert "technical" in next(out.rglob("*.txt")).read_text()


@pytest.mark.parametrize("at", [1, 2])
def test_an_interruption_between_renames_loses_nothing(
    captioned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Ctrl-C right after the first rename, and right after the second."""
    out = tmp_path / "out"
    run("txt", captioned, out)
    old = fingerprint(out)
    real = Path.rename
    calls: list[int] = []

    def rename(self: Path, target: Path) -> Path:
        renamed = real(self, target)
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt
        return renamed

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        run("txt", captioned, out, Choice({"technical": 1}, PRESETS), overwrite=True)
    monkeypatch.undo()
    is_old = fingerprint(out) == old
    assert is_old == (at == 1)
    assert len(list(out.rglob("*.txt"))) == 50


def test_names_with_newlines_can_be_replaced(tmp_path: Path) -> None:
    write_sound(tmp_path / "music" / "x\ny.wav", 0.1)
    (tmp_path / "music" / "x\ny.INFO").write_text('{"music_flamingo_full": "A caption."}')
    for overwrite in (False, True):
        run("txt", tmp_path / "music", tmp_path / "out", overwrite=overwrite)


def test_a_table_of_another_kind_is_not_replaced(captioned: Path, tmp_path: Path) -> None:
    """Every audiocraft manifest begins with a path, too."""
    run("audiocraft", captioned, tmp_path / "out")
    before = fingerprint(tmp_path / "out")
    with pytest.raises(ConfigError, match="did not write it"):
        run("jsonl", captioned, tmp_path / "out" / "data.jsonl", overwrite=True)
    assert fingerprint(tmp_path / "out") == before


def test_a_large_text_that_was_edited_stays(captioned: Path, tmp_path: Path) -> None:
    run("audiofolder", captioned, tmp_path / "out")
    metadata = tmp_path / "out" / "metadata.jsonl"
    metadata.write_text(metadata.read_text("utf-8").replace("calm", "loud").replace("slow", "fast"), "utf-8")
    with pytest.raises(ConfigError, match="changed since"):
        run("audiofolder", captioned, tmp_path / "out", overwrite=True)


def test_the_working_folder_and_links_in_the_dataset_are_no_places(
    captioned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "music"
    shutil.copytree(captioned, root)
    (root / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="inside the dataset"):
        run("txt", root, root / "out")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ConfigError, match="cannot be replaced"):
        run("txt", root, Path())
    with pytest.raises(ConfigError, match="not UTF-8"):
        run("stable-audio", root, tmp_path / "x\udcff")


def test_a_split_whose_only_track_fails_has_no_config(captioned: Path, tmp_path: Path) -> None:
    root = tmp_path / "music"
    shutil.copytree(captioned, root)
    choice = Choice({"full": 1}, PRESETS, validation=0.02)
    run("csv", root, tmp_path / "t.csv", choice)
    kept_apart = [row["path"] for row in read_csv(tmp_path / "t.csv") if row["split"] == "validation"]
    for path in kept_apart:
        (root / path).write_bytes(b"no sound")
    assert kept_apart
    run("webdataset", root, tmp_path / "out", choice)
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name[0] != ".") == ["train", "train.json"]


def test_stable_audio_tools_trains_on_nothing_that_is_no_longer_approved(captioned: Path, tmp_path: Path) -> None:
    root = tmp_path / "music"
    shutil.copytree(captioned, root)
    sidecars = sorted(root.rglob("*.INFO"))
    for sidecar in sidecars[:3]:
        merge_sidecar(sidecar, {"music_flamingo_approved": True})
    run("stable-audio", root, tmp_path / "out", Choice({"full": 1}, PRESETS, only_approved=True))
    assert len(samples_of(tmp_path / "out" / "dataset.json")) == 3
    merge_sidecar(sidecars[0], {"music_flamingo_full": "Nobody has seen this one."})
    said = list(samples_of(tmp_path / "out" / "dataset.json").values())
    assert said.count({"__reject__": True}) == 1


def test_a_link_to_a_folder_stays_one(captioned: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    for overwrite in (False, True):
        run("txt", captioned, tmp_path / "out", overwrite=overwrite)
        assert (tmp_path / "out").is_symlink()
        assert len(list((tmp_path / "real").rglob("*.txt"))) == 50
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "real"]


@pytest.mark.parametrize("name", ["csv", "txt"])
def test_a_place_that_cannot_be_is_one_sentence(captioned: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="cannot write"):
        run(name, captioned, tmp_path / "file" / "out")


def test_a_full_disk_is_one_sentence_and_leaves_nothing(captioned: Path, tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "from musicflamingo_cli.__main__ import main\n"
        f"sys.argv = ['musicflamingo', 'export', 'webdataset', {str(captioned)!r}, {str(tmp_path / 'out')!r}]\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2
    assert "cannot write" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_has_left_is_put_right(captioned: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("txt", captioned, out)
    before = fingerprint(out)
    dead = owner().replace(str(os.getpid()), "999999999")
    out.rename(tmp_path / f".out.mf-export-{dead}-ab12.old")  # killed between two renames
    (tmp_path / f".out.mf-export-{dead}-ab12").mkdir()
    living = tmp_path / f".out.mf-export-{owner()}-cd34"
    living.mkdir()
    with pytest.raises(ConfigError, match="holds an export already"):
        run("txt", captioned, out, Choice({"nothing": 1}, []))
    assert fingerprint(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["out", living.name])


def test_an_export_that_fails_leaves_the_old_one(
    captioned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("csv", captioned, tmp_path / "t.csv")
    run("txt", captioned, tmp_path / "out")
    before = fingerprint(tmp_path / "t.csv") | fingerprint(tmp_path / "out")

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rows, "_fits", interrupted)
    for name, out in (("csv", "t.csv"), ("txt", "out")):
        with pytest.raises(KeyboardInterrupt):
            run(name, captioned, tmp_path / out, overwrite=True)
    assert fingerprint(tmp_path / "t.csv") | fingerprint(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "t.csv"]


@pytest.mark.parametrize("name", ["txt", "webdataset"])
def test_an_export_into_the_dataset_is_refused(captioned: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="inside the dataset"):
        run(name, captioned, captioned / "exported")


def test_memory_does_not_grow_with_the_dataset(tmp_path: Path) -> None:
    """2000 tracks of links, tables and tars of the same sound: the peak of the second thousand is the first's."""
    import tracemalloc

    root = tmp_path / "music"
    write_sound(tmp_path / "sound.wav", 0.1)
    for number in range(2000):
        folder = root / f"{number // 100:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.wav").symlink_to(tmp_path / "sound.wav")
        (folder / f"{number}.INFO").write_text(json.dumps({"music_flamingo_full": f"Caption {number}. " * 50}))
    peaks: list[int] = []
    for part in (root / "00", root):
        tracemalloc.start()
        for name in ("csv", "webdataset", "audiocraft", "parquet"):
            run(name, part, tmp_path / f"{name}-{len(peaks)}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 6_000_000, [math.ceil(peak / 1e6) for peak in peaks]
