"""Claims of captions: a labelled table, half of which no rule was tuned on."""

from __future__ import annotations

import time

import pytest

from musicflamingo_cli.trust.claims import Field, claims_in, is_quadruple, sentence_spans
from tests.trust.sentences import HALVES, NAMES, score, sentences

# The least precision and recall on the half that no rule was tuned on.
LEAST = {
    Field.TEMPO: (0.95, 0.90),
    Field.KEY: (1.0, 0.94),
    Field.METRE: (1.0, 1.0),
    Field.LENGTH: (1.0, 0.80),
    Field.GENRE: (0.95, 0.95),
    Field.INSTRUMENT: (0.95, 0.95),
    Field.ABSENT: (1.0, 0.75),
    Field.VOCALS: (0.95, 0.95),
    Field.LANGUAGE: (1.0, 0.95),
    Field.MOOD: (1.0, 0.90),
}


def test_the_table_is_large_and_covers_every_field() -> None:
    labelled = [expected for path in HALVES.values() for _, expected in sentences(path)]
    assert len(labelled) >= 300
    for field in NAMES.values():
        assert sum(bool(expected[field]) for expected in labelled) >= 18


@pytest.mark.parametrize("field", list(LEAST))
def test_claims_of_the_held_out_half(field: Field) -> None:
    found = score(HALVES["held out"])[field]
    precision, recall = LEAST[field]
    assert found.precision >= precision
    assert found.recall >= recall


def test_a_claim_names_its_place() -> None:
    caption = "A house track at 124 BPM. It stays between 120 and 125 BPM, in A minor; there are no drums."
    places = {caption[claim.start : claim.end] for claim in claims_in(caption)}
    assert {"house", "124", "120 and 125", "A minor", "drums"} <= places


def test_a_tempo_has_its_limits() -> None:
    (claim,) = [each for each in claims_in("It rises from 80 to 120 BPM.") if each.field == Field.TEMPO]
    assert (claim.value, claim.low, claim.high) == ("80-120", 80.0, 120.0)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A four-on-the-floor kick.", True),
        ("In 4/4 at 120 BPM.", True),
        ("A waltz with a backbeat.", False),
        ("In 4/4 with triplets.", False),
        ("A slow piece for piano.", False),
    ],
)
def test_captions_that_say_four_beats(caption: str, expected: bool) -> None:
    assert is_quadruple(caption) == expected


def test_sentences_do_not_end_inside_numbers() -> None:
    caption = "At 99.5 BPM it drives.  **Key:** A minor\nEnd"
    assert [caption[first:last] for first, last in sentence_spans(caption)] == [
        "At 99.5 BPM it drives.",
        "**Key:** A minor",
        "End",
    ]


@pytest.mark.parametrize(
    "loop",
    ["no drums and bass, ", "drums are absent and bass ", "sung in the night ", "a 3 minute and 4 second ", "A. "],
)
def test_the_time_grows_with_the_length_only(loop: str) -> None:
    """Some answers loop; expressions that go back over them again and again would take minutes."""
    began = time.process_time()
    claims_in(loop * 1000)
    assert time.process_time() - began < 2
