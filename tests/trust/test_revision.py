"""Captions without what is contradicted: no broken sentence is left, and only what is sure is written."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicflamingo_cli.text.cleaning import sentence_limits
from musicflamingo_cli.trust.check import check_captions
from musicflamingo_cli.trust.known import Known
from musicflamingo_cli.trust.revision import Revision, revise
from tests.trust.test_check import measurement

KNOWN = Known(measured=measurement(bpm=95.2, key="E minor"))


def revised(caption: str, known: Known = KNOWN, *, strike: bool = False, correct: bool = False) -> Revision:
    check = check_captions({"full": caption}, known)
    return revise("full", caption, check, known, strike=strike, correct=correct)


@pytest.mark.parametrize(
    ("caption", "left"),
    [
        ("A calm piece. It runs at 131 BPM. A piano leads.", "A calm piece. A piano leads."),
        ("A calm piece, approx. 131 BPM, with e.g. a piano. Drums enter.", "Drums enter."),
        ("It runs at 131 BPM. However, the mood is calm.", "The mood is calm."),
        ("It runs at 95.2 BPM in Eb major! Strings swell.", "Strings swell."),
        ("It runs at 131 BPM.", ""),
        ("It runs at 95 BPM. A piano leads.", "It runs at 95 BPM. A piano leads."),
    ],
)
def test_sentences_with_a_contradiction_are_removed(caption: str, left: str) -> None:
    assert revised(caption, strike=True).text == left


@pytest.mark.parametrize(
    ("caption", "right"),
    [
        ("A calm piece at 131 BPM in Eb major.", "A calm piece at 95 BPM in E minor."),
        ("A steady 131-bpm pulse.", "A steady 95-bpm pulse."),
        ("It sits at 130-132 BPM.", "It sits at 95 BPM."),
        ("An 82 BPM beat.", "A 95 BPM beat."),
        ("It is a B-flat major tune.", "It is an E minor tune."),
        ("At 160 BPM, felt as 80 BPM.", "At 95 BPM, felt as 48 BPM."),
        ("The tempo is 131 BPM. It stays at 131 BPM.", "The tempo is 95 BPM. It stays at 95 BPM."),
    ],
)
def test_a_wrong_tempo_or_key_is_replaced(caption: str, right: str) -> None:
    revision = revised(caption, correct=True)
    assert revision.text == right
    assert revision.changes


@pytest.mark.parametrize(
    "caption",
    [
        "It stays between 130 and 132 BPM.",  # "between 95 BPM" is no English
        "At 131 BPM, felt at 95 BPM.",  # two equal ones would be left
        "At 190 BPM in G major.",  # an octave, a relative key
        "A female voice sings.",
    ],
)
def test_what_cannot_be_replaced_stays(caption: str) -> None:
    assert revised(caption, correct=True) == Revision(caption)


def test_an_unsure_measurement_contradicts_but_replaces_nothing() -> None:
    known = Known(measured=measurement(confidence=0.08, margin=0.12))
    caption = "At 131 BPM in Eb major. A piano leads."
    assert revised(caption, known, correct=True).text == caption
    assert revised(caption, known, correct=True, strike=True).text == "A piano leads."


def test_the_changes_name_what_was_there() -> None:
    revision = revised("It runs at 131 BPM. A male singer.", correct=True, strike=True)
    assert revision.changes == ("tempo 131 -> 95",)
    assert revised("It runs at 131 BPM. A piano.", strike=True).changes == ("removed: It runs at 131 BPM.",)


_SENTENCES = [
    "A calm piece.",
    "It runs at 131 BPM.",
    "In Eb major, it sings!",
    "Is it 95 BPM?",
    "Drums, e.g. a kick, lead.",
]


def test_only_whole_sentences_are_removed() -> None:
    for parts in itertools.permutations(_SENTENCES, 3):
        left = revised(" ".join(parts), strike=True).text
        kept = [part for part in parts if "131" not in part and "Eb" not in part]
        assert left == " ".join(kept)


@given(st.text())
def test_sentence_limits_cover_the_text(text: str) -> None:
    assert "".join(text[start:end] for start, end in sentence_limits(text)) == text
