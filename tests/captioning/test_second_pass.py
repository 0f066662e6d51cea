from __future__ import annotations

import json
from typing import Any

import pytest

from musicflamingo_cli.captioning.captioner import Captioner, Policy
from musicflamingo_cli.captioning.second_pass import SCHEMA, Derived, SecondPass, Wanted
from musicflamingo_cli.config import Settings
from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.engines.native.engine import NativeEngine
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.sidecars.captions import captions_in
from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar
from musicflamingo_cli.text.schema import mismatch, schema_problem
from musicflamingo_cli.trust.prose import kept_fields, unsupported
from musicflamingo_cli.types import NO_AUDIO, Answer, Sampling
from tests.conftest import MakeWav
from tests.fakes.engines import REAL_PAIR, ScriptedEngine

PROSE = "A slow techno track in A minor at 124 BPM with piano and no drums. The mood is dark."
EMPTY: dict[str, Any] = {
    **{"genre": "", "subgenres": [], "mood": [], "instruments": [], "tempo_bpm": 0, "key": ""},
    **{"time_signature": "", "vocals": "", "language": "", "summary": ""},
}
FIELDS = Wanted(fields=True)
INFO = {"music_flamingo_full": PROSE}


def derive(*answers: str, info: dict[str, Any] = INFO, wanted: Wanted = FIELDS) -> Derived:
    """The second pass with a model that gives these answers, one after another."""
    left = iter(answers)
    engine = ScriptedEngine(lambda prompt, sampling: next(left))
    return SecondPass(Captioner(engine, REAL_PAIR, Policy(retries=len(answers) - 1)), wanted).derive(info)


def fields(**values: Any) -> str:
    return json.dumps({**EMPTY, **values})


def test_the_schema_is_usable() -> None:
    assert schema_problem(SCHEMA) == ""
    assert mismatch(EMPTY, SCHEMA) == ""


def test_fields_that_the_prose_claims_are_kept() -> None:
    given = {"genre": "techno", "mood": ["dark"], "instruments": ["piano"], "tempo_bpm": 124, "key": "A minor"}
    assert kept_fields({**EMPTY, **given}, PROSE) == (given, {})


def test_fields_that_it_does_not_are_dropped() -> None:
    wrong = {"genre": "jazz", "tempo_bpm": 120, "key": "C major", "vocals": "female", "summary": "Fast jazz."}
    kept, dropped = kept_fields({**EMPTY, **wrong, "instruments": ["piano", "drums"]}, PROSE)
    assert kept == {"instruments": ["piano"]}
    assert dropped == {**wrong, "instruments": ["drums"]}


@pytest.mark.parametrize("genre", [" ", "a", "tech", "drums"])
def test_words_that_name_nothing_of_the_prose(genre: str) -> None:
    """Blanks, short words, parts of words, and what is denied."""
    assert kept_fields({**EMPTY, "genre": genre}, PROSE) == ({}, {"genre": genre})


def test_new_claims_of_a_short_version() -> None:
    assert unsupported("Dark techno at 124 BPM, no drums.", PROSE) == []
    assert unsupported("Dark techno at 125 BPM with drums.", PROSE) == ["tempo 125", "instrument drums"]


def test_what_is_dropped_is_in_the_provenance() -> None:
    derived = derive(fields(genre="techno", key="C major"))
    assert derived.values == {"music_flamingo_fields": {"genre": "techno"}}
    assert derived.made["fields"]["dropped"] == {"key": "C major"}
    assert list(derived.made["fields"]["made_from"]) == ["full"]


def test_an_answer_that_is_no_json_is_retried() -> None:
    assert derive("A techno track.", fields(genre="techno")).values
    (failure,) = derive("A techno track.", fields(genre="jazz")).failures
    assert failure.reason == "none of the fields is in the captions (2 tries)"


def test_a_short_version_adds_nothing_and_is_short() -> None:
    wanted = Wanted(short=12)
    assert derive("Dark techno in A minor.", wanted=wanted).values == {
        "music_flamingo_short": "Dark techno in A minor."
    }
    assert not derive("Dark jazz in A minor.", wanted=wanted).values
    assert not derive(PROSE, wanted=wanted).values
    assert derive("Dark jazz in A minor.", PROSE, "Dark techno with piano.", wanted=wanted).values


def test_it_goes_stale_with_the_captions(make_wav: MakeWav) -> None:
    track = track_for(make_wav())
    merge_sidecar(track.sidecar, {**INFO, "music_flamingo_approved": True})
    engine = ScriptedEngine(lambda prompt, sampling: fields(genre="techno"))
    second = SecondPass(Captioner(engine, REAL_PAIR, Policy()), Wanted(fields=True))
    second.save(track, read_sidecar(track.sidecar), second.derive(read_sidecar(track.sidecar)))
    info = read_sidecar(track.sidecar)
    assert info["music_flamingo_fields"] == {"genre": "techno"}
    assert info["music_flamingo_approved"] is True
    assert captions_in({**info, "music_flamingo_short": "Dark techno."}) == INFO
    assert not second.derive(info).values
    merge_sidecar(track.sidecar, {"music_flamingo_full": "Slow techno."})
    assert second.derive(read_sidecar(track.sidecar)).values
    second.save(track, info, Derived(values={"music_flamingo_fields": {"genre": "old"}}))
    assert read_sidecar(track.sidecar)["music_flamingo_fields"] == {"genre": "techno"}


@pytest.mark.real
def test_the_random_model_fills_in_all_fields(random_settings: Settings) -> None:
    """Each field by the grammar, and none of them kept, as none is in the prose."""
    engine = NativeEngine(random_settings, resolve("F32", random_settings.models_folder))
    (preset,) = Wanted(fields=True).presets
    try:
        (answer,) = engine.describe(NO_AUDIO, [preset.render({})], Sampling(seed=3))
    finally:
        engine.close()
    assert isinstance(answer, Answer), answer
    assert mismatch(json.loads(answer.text), SCHEMA) == ""
