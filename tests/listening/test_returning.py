"""The round trip on the real llama.cpp: songs of known tempo and instruments stand for what a generator would make."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from musicflamingo_cli.choices import EngineName
from musicflamingo_cli.config import GenerationSettings, Settings
from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.demo.songs import songs
from musicflamingo_cli.listening.clips import MadeClip, existing, request_for
from musicflamingo_cli.listening.returning import Returning
from musicflamingo_cli.listening.round_trip import Result
from musicflamingo_cli.listening.sources import Source
from musicflamingo_cli.models.checkpoints import MUSICGEN
from musicflamingo_cli.models.generators import Generator
from musicflamingo_cli.prompts import load_presets, prompts_files
from musicflamingo_cli.trust.claims import Field


@pytest.mark.real
@pytest.mark.slow
def test_what_a_clip_says_comes_back(real_llama_dir: Path, tmp_path: Path) -> None:
    song = next(each for each in songs() if each.path.stem == "house loop")
    track = track_for(Path(shutil.copy(song.path, tmp_path / "original.mp3")))
    wav = Path(shutil.copy(song.path, tmp_path / "clip.wav"))  # decoders look at the content
    caption = "House at 120 BPM in C major with synth, kick drum and violin. At 90 BPM."
    source = Source(track, "clip", "full", caption)
    model = Generator(folder=tmp_path, name="fake", model_type=MUSICGEN, rate=32_000, channels=1, size=0)
    clip = MadeClip(source, wav, request_for(source, model, GenerationSettings(), melody=False))
    clip.read = len(caption) - len(" At 90 BPM.")  # the text encoder did not get it
    settings = Settings(
        llama_dir=real_llama_dir, model="tiny", engine=EngineName.SERVER, threads=1, timeout=120, temperature=0.0
    )
    returning = Returning(settings, load_presets(prompts_files(None, None)))
    assert returning.is_needed(clip)
    (done,) = returning.run([clip])
    trip = done.round_trip
    assert trip
    assert trip.bpm == pytest.approx(120, rel=0.02)
    assert trip.preset == "full"
    results = {(each.field, each.value): each.result for each in trip.claims}
    assert results == {
        (Field.TEMPO, "120"): Result.CAME_BACK,
        (Field.KEY, "C major"): Result.CAME_BACK,
        (Field.INSTRUMENT, "synth"): Result.CAME_BACK,
        (Field.INSTRUMENT, "kick drum"): Result.CAME_BACK,
        (Field.INSTRUMENT, "violin"): Result.LOST,
    }
    assert json.loads((tmp_path / "clip.json").read_text())["round_trip"]["caption"] == trip.caption
    found = existing(MadeClip(source, wav, clip.request))
    assert found
    assert found.round_trip == trip
    assert not returning.is_needed(found)
    assert found.round_trip
    found.round_trip = replace(found.round_trip, failure="took longer than 600 s")
    assert returning.is_needed(found)
