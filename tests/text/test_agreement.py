"""How far two captions agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicflamingo_cli.text.agreement import Match, Overlap, agreement, marked_words, match_keys, match_tempi
from musicflamingo_cli.text.facts import facts_in


@pytest.mark.parametrize(
    ("first", "second", "match"),
    [
        (128.0, 128.0, "same"),
        (128.0, 126.0, "same"),
        (100.0, 102.0, "same"),
        (100.0, 103.0, "different"),
        (140.0, 70.0, "half"),
        (140.0, 71.0, "half"),
        (70.0, 140.0, "double"),
        (70.0, 105.0, "different"),
        (None, 105.0, "only the second"),
        (105.0, None, "only the first"),
        (None, None, "neither"),
    ],
)
def test_tempi(first: float | None, second: float | None, match: str) -> None:
    assert match_tempi(first, second) == match


@pytest.mark.parametrize(
    ("first", "second", "match"),
    [
        ("A minor", "A minor", "same"),
        ("C# minor", "Db minor", "same"),
        ("Cb major", "B major", "same"),
        ("E# minor", "F minor", "same"),
        ("A minor", "C major", "different"),  # relative
        ("A minor", "A major", "different"),  # parallel
        ("D dorian", "D minor", "different"),
        ("G", "G major", "same"),
        ("G minor", "G", "same"),
        ("G", "D major", "different"),
        ("", "G major", "only the second"),
        ("G major", "", "only the first"),
        ("", "", "neither"),
    ],
)
def test_keys(first: str, second: str, match: str) -> None:
    assert match_keys(first, second) == match


def test_the_agreement_of_two_captions() -> None:
    first = facts_in("A techno track at 140 BPM in C# minor with synths, drums and bass.")
    second = facts_in("House and techno at 70 BPM in D-flat minor, with drums and a flute.")
    found = agreement(first, second)
    assert (found.tempo, found.key) == (Match.HALF, Match.SAME)
    assert found.genres == Overlap(("techno",), (), ("house",))
    assert found.instruments == Overlap(("drums",), ("synth", "bass"), ("flute",))
    assert found.instruments.total == 4


def marked(text: str, other: str) -> list[str]:
    return [run for run, differs in marked_words(text, other) if differs]


def test_words_that_differ_are_marked() -> None:
    assert marked("A slow, calm waltz in C.", "A calm and fast waltz in D.") == ["slow,", "C."]
    assert marked("A calm and fast waltz in D.", "A slow, calm waltz in C.") == ["and fast", "D."]
    assert marked("The SAME words", "the same words.") == []
    assert marked('In C#, "calm".', "in C calm") == ["C#,"]
    assert marked("all of it", "") == ["all of it"]
    assert marked("", "all of it") == []


@given(st.text(), st.text())
def test_the_runs_are_the_text(text: str, other: str) -> None:
    runs = list(marked_words(text, other))
    assert "".join(run for run, _ in runs) == (text if text.strip() else "")
    assert all(not differs for _, differs in marked_words(text, text))
