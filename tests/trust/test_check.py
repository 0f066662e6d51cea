"""Verdicts on claims, and the check of a track: what speaks for and against, reasons, score."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from musicflamingo_cli.audio.key import Key
from musicflamingo_cli.audio.second_opinion import Opinion
from musicflamingo_cli.audio.tempo import Tempo
from musicflamingo_cli.sidecars.captions import CHECK_KEY, MEASURED_KEY
from musicflamingo_cli.sidecars.checks import check_result, has_outdated_check
from musicflamingo_cli.trust import measured
from musicflamingo_cli.trust.check import TrackCheck, check_captions
from musicflamingo_cli.trust.known import Known, known_of
from musicflamingo_cli.trust.measured import Measured
from musicflamingo_cli.trust.scan import check_dataset
from musicflamingo_cli.trust.verdicts import Verdict, against_key
from tests.conftest import MakeWav


def measurement(bpm: float = 95.0, confidence: float = 0.3, key: str = "E minor", margin: float = 0.2) -> Measured:
    """A measurement with equal halves."""
    return Measured(
        tempo=Tempo(bpm=bpm, confidence=confidence),
        key=Key(name=key, confidence=margin),
        lufs=-14.0,
        seconds=30.0,
        silence=0.0,
        width=0.2,
        halves=(key, key),
    )


def check(caption: str, known: Known | None = None, **others: str) -> TrackCheck:
    return check_captions({"full": caption, **others}, known or Known(measured=measurement()))


def verdict(caption: str, field: str, known: Known | None = None) -> Verdict:
    """The verdict on a caption's only claim of a field."""
    (found,) = [each.verdict for each in check(caption, known).claims if each.claim.field == field]
    return found


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("At 95 BPM.", Verdict.SUPPORTED),
        ("At 98 BPM.", Verdict.SUPPORTED),  # within 4 %
        ("At 100 BPM.", Verdict.CONTRADICTED),
        ("At 190 BPM.", Verdict.OCTAVE),
        ("At 47.5 BPM.", Verdict.OCTAVE),
        ("At 142 BPM.", Verdict.OCTAVE),  # 3/2: triplets
        ("A four-on-the-floor kick at 142 BPM.", Verdict.CONTRADICTED),
        ("Between 90 and 120 BPM.", Verdict.SUPPORTED),
        ("At 150 BPM.", Verdict.CONTRADICTED),
    ],
)
def test_tempo_against_95_bpm(caption: str, expected: Verdict) -> None:
    assert verdict(caption, "tempo") == expected


def test_an_unsure_measurement_contradicts_nothing() -> None:
    known = Known(measured=measurement(confidence=0.05, margin=0.09))
    assert verdict("At 150 BPM.", "tempo", known) == Verdict.UNKNOWN
    assert verdict("In Eb major.", "key", known) == Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("claimed", "expected"),
    [
        ("E minor", Verdict.SUPPORTED),
        ("E", Verdict.SUPPORTED),
        ("E aeolian", Verdict.SUPPORTED),
        ("E dorian", Verdict.SUPPORTED),
        ("G major", Verdict.RELATIVE),
        ("E major", Verdict.RELATIVE),
        ("B minor", Verdict.RELATIVE),
        ("A minor", Verdict.RELATIVE),
        ("D mixolydian", Verdict.RELATIVE),  # the notes of G major
        ("B major", Verdict.CONTRADICTED),
        ("Eb major", Verdict.CONTRADICTED),
        ("F# minor", Verdict.CONTRADICTED),
    ],
)
def test_key_against_e_minor(claimed: str, expected: Verdict) -> None:
    claimed = claimed.replace("aeolian", "minor")  # as facts.key_of spells it
    assert against_key(claimed, Key(name="E minor", confidence=0.2)) == expected


@pytest.mark.parametrize(
    ("bpm", "expected"),
    [
        (95, Verdict.SUPPORTED),
        (118, Verdict.OCTAVE),
        (59, Verdict.OCTAVE),
        (105, Verdict.CONTRADICTED),
    ],
)
def test_a_tempo_that_fits_one_half_is_not_contradicted(bpm: int, expected: Verdict) -> None:
    known = Known(measured=replace(measurement(), tempi=(95.0, 118.2)))
    assert verdict(f"A track at {bpm} BPM.", "tempo", known) == expected
    assert verdict("At 118 BPM.", "tempo", Known(measured=measurement())) == Verdict.CONTRADICTED


def test_a_key_that_fits_one_half_is_not_contradicted() -> None:
    key = Key(name="E minor", confidence=0.2)
    assert against_key("Eb major", key, ("E minor", "C minor")) == Verdict.RELATIVE


def test_what_any_source_supports_is_not_contradicted() -> None:
    known = Known(measured=measurement(), tempo=Tempo(bpm=150.0, confidence=1.0))
    assert verdict("At 150 BPM.", "tempo", known) == Verdict.UNKNOWN
    assert verdict("At 131 BPM.", "tempo", known) == Verdict.CONTRADICTED


@pytest.mark.parametrize(
    ("caption", "field", "known", "expected"),
    [
        ("A death metal song.", "genre", Known(genres=("classical",)), Verdict.CONTRADICTED),
        ("A techno track.", "genre", Known(genres=("house",)), Verdict.UNKNOWN),
        ("A techno track.", "genre", Known(genres=("techno", "house")), Verdict.SUPPORTED),
        ("A pop song.", "genre", Known(genres=("classical",)), Verdict.UNKNOWN),  # pop is of no family
        ("A female singer.", "vocals", Known(voice="none"), Verdict.CONTRADICTED),
        ("The lyrics are in French.", "language", Known(language="en"), Verdict.CONTRADICTED),
        ("The lyrics are in French.", "language", Known(language="French"), Verdict.SUPPORTED),
        ("It is in 3/4.", "metre", Known(metre="4/4"), Verdict.CONTRADICTED),
        ("The song is 3:45 long.", "length", Known(lengths=(30.0,)), Verdict.CONTRADICTED),
        ("The song is 3:45 long.", "length", Known(lengths=(120.0, 230.0)), Verdict.SUPPORTED),
    ],
)
def test_values_of_other_tools(caption: str, field: str, known: Known, expected: Verdict) -> None:
    assert verdict(caption, field, known) == expected


def test_a_second_opinion_supports_but_never_contradicts() -> None:
    def known(bpm: float, confidence: float = 0.3) -> Known:
        return Known(measured=replace(measurement(confidence=confidence), essentia=Opinion(bpm=bpm, key="C# minor")))

    assert verdict("At 131 BPM.", "tempo", known(131.0)) == Verdict.UNKNOWN  # the two disagree
    assert verdict("At 131 BPM.", "tempo", known(88.0)) == Verdict.OCTAVE  # 3/2
    assert verdict("At 131 BPM.", "tempo", known(100.0)) == Verdict.CONTRADICTED
    assert verdict("At 131 BPM.", "tempo", known(100.0, confidence=0.0)) == Verdict.UNKNOWN
    assert verdict("In Eb major.", "key", known(95.0)) == Verdict.CONTRADICTED
    assert verdict("In Db minor.", "key", known(95.0)) == Verdict.UNKNOWN


def test_another_caption_gives_doubt_but_no_verdict() -> None:
    found = check("At 120 BPM with female vocals.", Known(), brief="At 87 BPM; it is instrumental.")
    assert found.contradicted == []
    assert "full: tempo 120 doubtful: another caption disagrees (brief: 87)" in found.reasons
    assert "full: vocals female doubtful: another caption disagrees (brief: none)" in found.reasons
    assert found.score < check("At 120 BPM with female vocals.", Known(), brief="At 60 BPM; she sings.").score


def test_the_score_counts_a_fault_once_and_orders_tracks() -> None:
    supported = check("At 95 BPM in E minor.").score
    unknown = check("At 95 BPM in E minor.", Known()).score
    wrong = check("At 131 BPM in E minor.").score
    assert (supported, wrong) == (1.0, 0.4)
    assert supported > unknown > wrong
    assert check("At 131 BPM.", None, a="At 131 BPM.", b="At 131 BPM.").score == 0.4


@pytest.mark.parametrize(
    ("stated", "name"), [("8A", "A minor"), ("8B", "C major"), ("9A", "E minor"), ("F#m", "F# minor")]
)
def test_keys_as_other_tools_write_them(stated: str, name: str, make_wav: MakeWav) -> None:
    key = known_of({"key": stated}, make_wav()).key
    assert key is not None
    assert key.name == name


# -- a dataset -----------------------------------------------------------------------------------------


def write_track(audio: Path, **info: Any) -> Path:
    """Write a sidecar with a measurement (95 BPM, E minor) and other values; return it."""
    audio.with_suffix(".INFO").write_text(
        json.dumps({"bass": [0.1], MEASURED_KEY: measured.as_json(measurement()), **info})
    )
    return audio.with_suffix(".INFO")


def test_the_result_is_saved_and_goes_stale(make_wav: MakeWav, tmp_path: Path) -> None:
    sidecar = write_track(make_wav("a.wav"), music_flamingo_full="At 131 BPM.", music_flamingo_approved=True)
    (found,) = check_dataset(tmp_path)
    assert found.check
    info = json.loads(sidecar.read_text())
    result = check_result(info)
    assert result
    assert (result.score, result.contradicted) == (0.4, ("full",))
    assert "131" in result.reasons[0]
    assert info["bass"] == [0.1]
    assert info["music_flamingo_approved"] is True
    for change in ({"music_flamingo_full": "At 95 BPM."}, {MEASURED_KEY: None}, {"bpm": 131}):
        assert check_result({**info, **change}) is None
        assert has_outdated_check({**info, **change})
    assert not has_outdated_check({**info, "energy": 5})


def test_a_second_check_changes_no_byte(make_wav: MakeWav, tmp_path: Path) -> None:
    sidecar = write_track(make_wav("a.wav"), music_flamingo_full="At 131 BPM.")
    list(check_dataset(tmp_path))
    before = sidecar.stat().st_mtime_ns, sidecar.read_bytes()
    list(check_dataset(tmp_path))
    assert (sidecar.stat().st_mtime_ns, sidecar.read_bytes()) == before


def test_the_result_survives_other_tools(make_wav: MakeWav, tmp_path: Path) -> None:
    """They read the file, add keys and write all of it again, perhaps sorted or on one line."""
    sidecar = write_track(make_wav("a.wav"), music_flamingo_full="At 131 BPM, café.", loudness=float("nan"))
    list(check_dataset(tmp_path))
    info = {**json.loads(sidecar.read_text()), "energy": 0.5}
    before = check_result(info)
    assert before
    for options in ({"sort_keys": True}, {"indent": 2, "ensure_ascii": False}, {"indent": "\t"}):
        assert check_result(json.loads(json.dumps(info, **options))) == before


def test_nothing_is_written_without_save(make_wav: MakeWav, tmp_path: Path) -> None:
    sidecar = write_track(make_wav("a.wav"), music_flamingo_full="At 131 BPM.")
    before = sidecar.read_bytes()
    (found,) = check_dataset(tmp_path, save=False)
    assert found.check
    assert found.check.contradicted == ["full"]
    assert sidecar.read_bytes() == before


def test_a_measurement_of_replaced_audio_is_left_out(make_wav: MakeWav, tmp_path: Path) -> None:
    info = {MEASURED_KEY: {**measured.as_json(measurement()), "audio": {"size": 1, "hash": "x", "modified": 0}}}
    assert known_of(info, make_wav("a.wav")).measured is None


def test_a_caption_on_several_tracks_is_in_doubt(make_wav: MakeWav, tmp_path: Path) -> None:
    long = "A calm and slow piece for solo piano that stays the same from its beginning to its end."
    for name in ("a", "b", "c"):
        write_track(make_wav(f"{name}.wav"), music_flamingo_full=long if name < "c" else f"{long} Nearly.")
    scores = [found.check.score for found in check_dataset(tmp_path) if found.check]
    assert scores == [0.5, 0.5, 1.0]


def test_lyrics_are_no_claims_about_the_track(make_wav: MakeWav, tmp_path: Path) -> None:
    write_track(make_wav("a.wav"), music_flamingo_lyrics="She sings at 131 BPM.", music_flamingo_model="gguf")
    (found,) = check_dataset(tmp_path)
    assert found.check is None


def test_many_tracks_are_checked_in_processes(make_wav: MakeWav, tmp_path: Path) -> None:
    source = make_wav("0.wav")
    for number in range(250):
        audio = tmp_path / f"{number}.wav"
        if number:
            audio.hardlink_to(source)
        write_track(audio, music_flamingo_full=f"Track {number} runs at {131 if number % 2 else 95} BPM.")
    found = list(check_dataset(tmp_path, processes=2))
    assert [each.track.audio.name for each in found] == sorted(f"{number}.wav" for number in range(250))
    assert sum(bool(each.check and each.check.contradicted) for each in found) == 125
    assert all(CHECK_KEY in json.loads(each.track.sidecar.read_text()) for each in found)


def test_a_broken_sidecar_is_one_failure(make_wav: MakeWav, tmp_path: Path) -> None:
    make_wav("a.wav").with_suffix(".INFO").write_text("{broken")
    write_track(make_wav("b.wav"), music_flamingo_full="At 95 BPM.")
    first, second = check_dataset(tmp_path)
    assert first.failure
    assert second.check


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("English", Verdict.SUPPORTED),
        ("en-US", Verdict.SUPPORTED),
        ("German", Verdict.CONTRADICTED),
        ("de", Verdict.CONTRADICTED),
        ("de_DE", Verdict.CONTRADICTED),
        ("English, Spanish", Verdict.UNKNOWN),
        ("englisch", Verdict.UNKNOWN),  # no name that is known here
    ],
)
def test_only_a_known_other_language_contradicts(stated: str, expected: Verdict) -> None:
    assert verdict("A ballad with vocals sung in English.", "language", Known(language=stated)) == expected
