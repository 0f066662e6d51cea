"""Clips are made once, kept, and named when they are whole. The worker is a double; files and processes are real."""

from __future__ import annotations

import errno
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from musicflamingo_cli.config import GenerationSettings, Settings
from musicflamingo_cli.dataset.tracks import CLIPS, NO_TRACKS, find_tracks, track_for
from musicflamingo_cli.listening import generator as module
from musicflamingo_cli.listening.clips import MadeClip
from musicflamingo_cli.listening.job import ListenJob
from musicflamingo_cli.listening.sources import Source, Wanted, sources_of_tracks
from musicflamingo_cli.models.checkpoints import MUSICGEN
from musicflamingo_cli.models.generators import Generator
from musicflamingo_cli.system.temporary import owner
from musicflamingo_cli.types import Skipped
from tests.conftest import MakeWav

pytestmark = pytest.mark.slow  # each test starts processes
SETTINGS = GenerationSettings(seconds=1.0)


@pytest.fixture(autouse=True)
def _double(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WORKER", (sys.executable, "-m", "tests.fakes.music_worker"))


def made(
    folder: Path, sources: list[Source], settings: GenerationSettings = SETTINGS, **model_is: str
) -> list[MadeClip]:
    values: dict[str, Any] = {"name": "fake", "identity": "1234", **model_is}
    model = Generator(folder=folder, model_type=MUSICGEN, rate=32_000, channels=1, size=0, **values)
    return list(ListenJob(folder / "out", model, Settings(timeout=20), settings).clips(sources, lambda step: None))


def kept(clips: list[MadeClip]) -> list[bool]:
    return [clip.is_kept for clip in clips]


def test_a_clip_is_made_again_only_if_it_would_differ(make_wav: MakeWav, tmp_path: Path) -> None:
    audio = make_wav("music/a.wav")
    sources = sources_of_tracks([audio], Wanted(text="calm"))
    assert kept(made(tmp_path, sources)) == [False]
    assert kept(made(tmp_path, sources)) == [True]
    assert kept(made(tmp_path, [replace(sources[0], is_approved=True)])) == [True]
    (tmp_path / "out" / "a.text.wav").unlink()
    assert kept(made(tmp_path, sources)) == [False]
    assert kept(made(tmp_path, sources, replace(SETTINGS, at_once=1))) == [True]
    assert kept(made(tmp_path, sources, replace(SETTINGS, guidance=4.0))) == [False]
    assert kept(made(tmp_path, sources, name="other")) == [False]
    assert kept(made(tmp_path, [replace(sources[0], caption="loud")], name="other")) == [False]
    assert kept(made(tmp_path, sources)) == [False]
    assert kept(made(tmp_path, sources, identity="5678")) == [False], "other weights of the same name"
    continued = replace(SETTINGS, start_seconds=0.5)
    assert kept(made(tmp_path, sources, continued)) == [False]
    assert kept(made(tmp_path, sources, continued)) == [True]
    make_wav("music/a.wav", hertz=880.0)  # it begins with other audio now
    assert kept(made(tmp_path, sources, continued)) == [False]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"made_by": "another"}', "[" * 100_000])
def test_other_files_are_never_replaced(make_wav: MakeWav, tmp_path: Path, text: str) -> None:
    sources = sources_of_tracks([make_wav("music/a.wav")], Wanted(text="calm"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.text.json").write_text(text)
    (clip,) = made(tmp_path, sources)
    assert clip.failure
    assert "is another file" in clip.failure.reason
    assert (tmp_path / "out" / "a.text.json").read_text() == text
    assert not clip.wav.exists()


def test_a_clip_of_ours_without_its_numbers_is_made_again(make_wav: MakeWav, tmp_path: Path) -> None:
    sources = sources_of_tracks([make_wav("music/a.wav")], Wanted(text="calm"))
    (clip,) = made(tmp_path, sources)
    values = json.loads(clip.json_file.read_text())
    clip.json_file.write_text(json.dumps(values | {"samples": "many"}))
    assert kept(made(tmp_path, sources)) == [False]


def test_a_failure_leaves_nothing_and_stops_nothing(make_wav: MakeWav, tmp_path: Path) -> None:
    good, empty = make_wav("music/a.wav"), tmp_path / "music" / "empty.wav"
    empty.touch()
    out = tmp_path / "out"
    out.mkdir()
    host = owner().rpartition("-")[0]
    (out / f".musicflamingo-{host}-999999999-3.wav").touch()  # of a run that was killed
    (out / f".musicflamingo-elsewhere-{os.getpid()}-3.wav").touch()  # of one on another machine
    sources = [
        *sources_of_tracks([good, empty], Wanted(text="calm")),
        *sources_of_tracks([make_wav("music/b.wav")], Wanted(text="die")),
    ]
    clips = {clip.source.name: clip for clip in made(tmp_path, sources, replace(SETTINGS, start_seconds=0.5))}
    assert {name for name, clip in clips.items() if clip.failure} == {"empty.text", "b.text"}
    assert sorted(path.name for path in out.iterdir() if path.name != NO_TRACKS) == [
        f".musicflamingo-elsewhere-{os.getpid()}-3.wav",
        "a.text.json",
        "a.text.wav",
    ]


def test_tracks_of_one_name_keep_their_clips(make_wav: MakeWav, tmp_path: Path) -> None:
    one, other = make_wav("a/intro.wav"), make_wav("b/intro.wav")
    (first,) = made(tmp_path, sources_of_tracks([one], Wanted(text="calm")))
    before = first.json_file.read_bytes()
    (second,) = made(tmp_path, sources_of_tracks([other], Wanted(text="loud")))
    assert (first.wav.name, first.json_file.read_bytes()) == ("intro.text.wav", before)
    assert second.wav.is_file()
    for sources in ([other], [one, other], [other, one]):
        clips = made(tmp_path, [each for audio in sources for each in sources_of_tracks([audio], Wanted(text="calm"))])
        assert {clip.source.track.audio: clip.wav for clip in clips}.items() <= {
            one: first.wav,
            other: second.wav,
        }.items()


def test_a_full_disk_costs_the_clip_and_no_later_one(
    make_wav: MakeWav, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = sources_of_tracks([make_wav("music/a.wav")], Wanted(text="calm"))

    def full(clip: MadeClip) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(MadeClip, "save", full)
        (clip,) = made(tmp_path, sources)
    assert clip.failure
    assert "No space left" in clip.failure.reason
    assert [clip.failure for clip in made(tmp_path, sources)] == [None]


def test_clips_are_no_tracks_of_a_dataset_around_them(make_wav: MakeWav, tmp_path: Path) -> None:
    audio = make_wav("a.wav")
    made(tmp_path, sources_of_tracks([audio], Wanted(text="calm")))
    assert list(find_tracks(tmp_path)) == [track_for(audio), Skipped(tmp_path / "out", CLIPS)]
    assert len(list(find_tracks(tmp_path / "out"))) == 1, "but it can be captioned by itself"
