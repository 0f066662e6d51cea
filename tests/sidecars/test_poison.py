"""Values that no sidecar should hold: each may cost its own track, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from musicflamingo_cli.captioning.batch import Dataset, Task, scan
from musicflamingo_cli.captioning.status import as_json, examine
from musicflamingo_cli.choices import Wanted
from musicflamingo_cli.cli import app
from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.dataset.tracks import find_tracks
from musicflamingo_cli.errors import SidecarError
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.checks import check_result
from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar
from musicflamingo_cli.sidecars.staleness import CaptionSettings, EarlierRuns
from musicflamingo_cli.types import Sampling
from tests.conftest import MakeWav

PRESET = Preset("full", "What is it?")
NOW = CaptionSettings(max_seconds=1200.0, sampling=Sampling(), excerpt={"start": None, "fraction": None})
POISON = ["1" + "0" * 400, "1e400", "-1e400", "NaN", '"abc"', "[[]]", '{"a": 1}', "true", "null", "-5"]


def write(path: Path, made: dict[str, str]) -> None:
    """Write a sidecar whose provenance holds these values, given as JSON text."""
    values = {"audio_seconds": "30.0", "temperature": "0.7", "top_p": "0.9", "repeat_penalty": "1.05", "seed": "42"}
    text = ", ".join(f'"{key}": {value}' for key, value in {**values, **made}.items())
    path.write_text(f'{{"music_flamingo_full": "A song.", "music_flamingo_provenance": {{"full": {{{text}}}}}}}')


@pytest.mark.parametrize("value", POISON)
@pytest.mark.parametrize(
    "key",
    ["audio_seconds", "source_seconds", "start", "fraction", "seed", "time", "cut", "run", "audio", "model_identity"],
)
def test_one_bad_value_does_not_end_a_command(tmp_path: Path, key: str, value: str) -> None:
    for name, made in (("bad", {key: value}), ("bad too", {"source_seconds": "60", key: value}), ("good", {})):
        (tmp_path / f"{name}.wav").touch()
        write(tmp_path / f"{name}.INFO", made)
    dataset = Dataset(tmp_path, [PRESET])
    status = examine([dataset], NOW)
    assert status.tracks == 3
    assert 30 <= status.heard_seconds < 2e9
    json.dumps(as_json(status, [tmp_path]), allow_nan=False)
    for wanted in Wanted:
        assert len(list(scan([dataset], Selection(wanted=wanted, settings=NOW, earlier=EarlierRuns())))) == 3


def test_numbers_that_json_lacks_become_null_in_our_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.INFO"
    path.write_text('{"theirs": 1e400, "music_flamingo_provenance": {"full": {"x": 1e400, "y": [NaN]}}}')
    merge_sidecar(path, {"music_flamingo_provenance": {"brief": {"seed": 1}}})

    def refuse(constant: str) -> Any:
        raise AssertionError(constant)

    made = json.loads(path.read_text(), parse_constant=refuse)["music_flamingo_provenance"]
    assert made == {"full": {"x": None, "y": [None]}, "brief": {"seed": 1}}
    assert '"theirs": 1e400' in path.read_text()


def test_deeply_nested_values_cost_their_track_only(tmp_path: Path) -> None:
    for depth in range(100, 1200, 50):
        path = tmp_path / f"{depth}.INFO"
        text = f'{{"music_flamingo_provenance": {{"full": {"[" * depth}{"]" * depth}}}}}'
        path.write_text(text)
        try:
            merge_sidecar(path, {"music_flamingo_provenance": {"brief": {"seed": 1}}})
        except SidecarError:
            assert path.read_text() == text


@pytest.mark.parametrize("key", ["title", "bpm"])
def test_nested_values_end_no_command(tmp_path: Path, key: str, make_wav: MakeWav) -> None:
    """What reads them recurses, at other depths than the parser; over 100 levels are an error of their own track."""
    wav, music = make_wav(seconds=1).read_bytes(), tmp_path / "music"
    music.mkdir()
    for depth in (80, *range(500, 950, 50)):
        (music / f"{depth}.wav").write_bytes(wav)
        nested = f'"{key}": {"[" * depth}{"]" * depth}'
        (music / f"{depth}.INFO").write_text(f'{{"music_flamingo_full": "A slow song at 60 BPM.", {nested}}}')
    out = [tmp_path / name for name in ("webdataset", "ace-step")]
    for command in (["check", music], *(["export", each.name, music, each] for each in out), ["status", music]):
        done = CliRunner().invoke(app, list(map(str, command)))
        assert done.exit_code in (0, 1), done.output
        assert "Recursion" not in done.output
    assert check_result(read_sidecar(music / "80.INFO"))


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A track below 1100 folders; removed by a program that does not recurse, unlike Python's."""
    folders = [os.open(tmp_path, os.O_RDONLY)]
    for _ in range(1100):
        os.mkdir("d", dir_fd=folders[-1])
        folders.append(os.open("d", os.O_RDONLY, dir_fd=folders[-1]))
        if len(folders) > 100:
            os.close(folders.pop(0))
    os.close(os.open("deep.wav", os.O_CREAT, dir_fd=folders[-1]))
    for folder in folders:
        os.close(folder)
    yield tmp_path
    subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


def test_folders_may_be_nested_deeper_than_the_stack(deep: Path) -> None:
    (deep / "z.wav").touch()
    write(deep / "z.INFO", {})
    try:
        found = list(find_tracks(deep))
    except RecursionError:  # as an error, its report would take pytest minutes
        found = []
    assert len(found) == 2
    (task,) = (item for item in scan([Dataset(deep, [PRESET])], Selection()) if isinstance(item, Task))
    merge_sidecar(task.track.sidecar, {"music_flamingo_full": "x"}, task.track.within)
    assert read_sidecar(task.track.sidecar)
