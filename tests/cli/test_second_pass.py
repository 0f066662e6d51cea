"""`--fields` and `--short` over a folder: what is saved, what is not asked again, what cannot be combined."""

from __future__ import annotations

import json

import pytest

from musicflamingo_cli.captioning.captioner import Captioner, Policy
from musicflamingo_cli.captioning.second_pass import Wanted
from musicflamingo_cli.cli.console import Console
from musicflamingo_cli.cli.second_pass import SecondPassOptions, derive_all
from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar
from musicflamingo_cli.types import Prompt, Sampling
from tests.conftest import MakeWav
from tests.fakes.engines import REAL_PAIR, ScriptedEngine

EMPTY = {"genre": "", "subgenres": [], "mood": [], "instruments": [], "tempo_bpm": 0, "key": ""}
ANSWER = json.dumps({**EMPTY, "genre": "techno", "time_signature": "", "vocals": "", "language": "", "summary": ""})


def answer(prompt: Prompt, sampling: Sampling) -> str:
    if "jazz" in prompt.text:
        return "Rock with drums."
    return ANSWER if prompt.schema else "A dark techno track."


def test_each_track_is_saved_and_asked_once(make_wav: MakeWav, capsys: pytest.CaptureFixture[str]) -> None:
    tracks = [track_for(make_wav(name)) for name in ("a.wav", "b.wav", "c.wav")]
    merge_sidecar(tracks[0].sidecar, {"music_flamingo_full": "A dark techno track."})
    merge_sidecar(tracks[1].sidecar, {"music_flamingo_full": "A jazz track."})
    engine = ScriptedEngine(answer)
    captioner = Captioner(engine, REAL_PAIR, Policy(retries=0))
    console = Console(as_json=True, quiet=True, verbose=False, colour=False)
    assert derive_all(console, captioner, Wanted(fields=True, short=20), tracks, overwrite=False) == 1
    assert read_sidecar(tracks[0].sidecar)["music_flamingo_fields"] == {"genre": "techno"}
    assert read_sidecar(tracks[0].sidecar)["music_flamingo_short"] == "A dark techno track."
    assert list(read_sidecar(tracks[1].sidecar)) == ["music_flamingo_full"]
    assert not tracks[2].sidecar.exists()
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {len(each["failures"]) for each in printed} == {0, 2}
    asked = len(engine.asked)
    assert asked == 4
    assert derive_all(console, captioner, Wanted(fields=True, short=20), tracks[:1], overwrite=False) == 0
    assert len(engine.asked) == asked
    derive_all(console, captioner, Wanted(fields=True), tracks[:1], overwrite=True)
    assert len(engine.asked) == asked + 1


def test_what_cannot_be_combined() -> None:
    options = SecondPassOptions(fields=True)
    assert options.wanted_in_batch("auto", None, save=True) == Wanted(fields=True)
    assert SecondPassOptions().wanted_in_batch("mtmd-cli", "local", save=False) is None
    for engine, ray, save in (("mtmd-cli", None, True), ("auto", "local", True), ("auto", None, False)):
        with pytest.raises(ConfigError):
            options.wanted_in_batch(engine, ray, save=save)
