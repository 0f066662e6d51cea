"""How often `judge` decides right, on labelled answers (answers.py)."""

from __future__ import annotations

import pytest

from musicflamingo_cli.text.cleaning import hint_for, judge, whole_sentences
from musicflamingo_cli.text.excuses import says_it_cannot_hear
from musicflamingo_cli.text.loops import words_of
from tests.text.answers import ANSWERS, Labelled, Question


def is_refused(answer: Labelled) -> bool:
    min_words = 1 if answer.question is Question.SHORT else 3
    return bool(judge(answer.text, False, min_words, answer.question is Question.LYRICS).refusal)


def test_the_table_is_large_enough_and_in_halves() -> None:
    assert len(ANSWERS) >= 150
    assert len({(answer.text, answer.question) for answer in ANSWERS}) == len(ANSWERS)
    assert 0.4 < sum(answer.is_held_out for answer in ANSWERS) / len(ANSWERS) < 0.6


@pytest.mark.parametrize("answer", [each for each in ANSWERS if not each.is_held_out], ids=lambda each: each.text[:30])
def test_the_tuned_half_is_judged_right(answer: Labelled) -> None:
    assert is_refused(answer) is not answer.fit


def test_precision_and_recall_on_the_other_half() -> None:
    held_out = [answer for answer in ANSWERS if answer.is_held_out]
    refused = [answer for answer in held_out if is_refused(answer)]
    unfit = [answer for answer in held_out if not answer.fit]
    right = sum(not answer.fit for answer in refused)
    assert right / len(refused) >= 0.98  # precision: of what is refused
    assert right / len(unfit) >= 0.95  # recall: of what should be


@pytest.mark.parametrize(
    ("cut", "whole"),
    [
        ("यह धीमा है। इसमें सितार", "यह धीमा है।"),
        ("هل هذا جاز؟ نعم مع بي", "هل هذا جاز؟"),
        ("یہ دھیما ہے۔ اس میں", "یہ دھیما ہے۔"),
        ("เพลงช้า เสียงเปียโน และกล", "เพลงช้า เสียงเปียโน"),
        ("曲很好听! 有钢", "曲很好听!"),
        ("曲很好听!有钢", "曲很好听!"),
    ],
)
def test_sentences_of_other_scripts_end(cut: str, whole: str) -> None:
    assert whole_sentences(cut) == whole


def test_words_of_scripts_with_and_without_spaces() -> None:
    assert len(words_of("यह एक धीमा गीत है।")) == 5
    assert len(words_of("เพลงช้า")) >= 3
    assert words_of("Café 静か, 120") == ["café", "静", "か", "120"]


@pytest.mark.parametrize(
    ("raw", "hit_limit", "hint"),
    [
        ("Pop.", False, "min_words"),
        ("a slow song with", True, "max_tokens"),
        ("No audio was provided.", False, "doctor"),
        ("drums and bass " * 40, False, "--repeat-penalty"),
        ("Calm.\nassistant\nx", False, "--seed"),
    ],
)
def test_the_hint_fits_the_reason(raw: str, hit_limit: bool, hint: str) -> None:
    assert hint in hint_for(judge(raw, hit_limit).refusal)


def test_long_answers_are_searched_quickly() -> None:
    says_it_cannot_hear("as I cannot not have audio no music in the " * 5000)
    says_it_cannot_hear('"' * 20_000 + "I'm " * 20_000)
