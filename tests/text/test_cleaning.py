"""Cleaning answers, and deciding whether they are accepted."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from musicflamingo_cli.text.cleaning import (
    judge,
    normalize_text,
    whole_sentences,
    without_template_tokens,
    without_transcription_frame,
)
from musicflamingo_cli.text.loops import loops


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("plain words", "plain words"),
        ("a—b and c – d", "a - b and c - d"),
        ("120–130 BPM", "120-130 BPM"),
        ("“quoted” and ‘single’ «guillemets»", '"quoted" and \'single\' "guillemets"'),
        ("F♯ minor, B♭ major, C♮", "F# minor, Bb major, C"),
        ("4×4 beat", "4x4 beat"),
        ("ﬁne ﬂow", "fine flow"),
        ("café, Björk, año, Łódź", "café, Björk, año, Łódź"),
        ("a\u00a0b\u2009c\u3000d", "a b c d"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("line one\nline two\r\nthree", "line one line two three"),
        ("- drums\n- bass\n* pads\n• keys", "drums bass pads keys"),
        ("## Overview\nGood", "Overview Good"),
        ("**Bold** and *it* and __under__ and _one_", "Bold and it and under and one"),
        ("snake_case stays", "snake_case stays"),
        ("1. Intro\n2) Verse", "Intro Verse"),
        ("| a | b |\n|---|---|\n| c | d |", "| a | b | | c | d |"),
        ("see [the page](https://example.org/x)", "see the page"),
        ("```\ncode\n```", "code"),
        ("don`t `quote`", "don't quote"),
        ("~120 BPM ~ x", "about 120 BPM x"),
        ("{x} ^ \\ <x>", "(x) / x>"),
        ("2½ minutes, 1¼ bars", "2 1/2 minutes, 1 1/4 bars"),
        ("F#°7, vii°, Bb°, 20°", "F#dim7, viidim, Bbdim, 20 degrees"),
        ("CΔ7 and Cmaj", "Cmaj7 and Cmaj"),
        ("<i>Warm</i> R&amp;B<br>", "Warm R&B"),
        ("In bar\n16. The drums enter.", "In bar 16. The drums enter."),
        ("<5 dB", "less than 5 dB"),
        ("Am → F → C", "Am -> F -> C"),
        ("good 🎵 music ★", "good music"),
        ("end<|im_end|>", "end"),
        ("bell\x07 and \x1b[0m", "bell and [0m"),
        ("120~130 BPM, 120 ～ 130", "120-130 BPM, 120-130"),
        ("symphony n° 9, N°5, 20 °C", "symphony no. 9, No. 5, 20 degreesC"),
        ("10^3 and 10 ^ -2", "10 to the power of 3 and 10 to the power of -2"),
        ("10\u200b^3, 10\u00ad², 2\u200b½", "10 to the power of 3, 10 to the power of 2, 2 1/2"),
        ("10², 10⁻³, m², C⁷", "10 to the power of 2, 10 to the power of -3, m2, C7"),
        ("dub&reggae, R&amp;B, &notreal; &#9835;", "dub&reggae, R&B, &notreal;"),
        ("- 3 dB\n- drums\n+ 2 semitones", "- 3 dB drums + 2 semitones"),
        ("> 3 seconds\n> quoted", "> 3 seconds quoted"),
        ("می\u200cخواهم and zero\u200cwidth", "می\u200cخواهم and zerowidth"),
        ("", ""),
    ],
)
def test_normalisation(raw: str, clean: str) -> None:
    assert normalize_text(raw) == clean


@given(st.text() | st.text(alphabet="-*_ #>.1)`~<a\n|[](){}^°—:=x\\♯"))
def test_normalisation_is_idempotent_and_fits_t5(raw: str) -> None:
    once = normalize_text(raw)
    assert normalize_text(once) == once
    assert not set("{}~^<\\`\n\r\t") & set(once)
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "So") for c in once if c not in "©®¦\u200c\u200d")


# Without what the documented exceptions consist of: tags, entities, links, code, list numbers, Δ after a chord.
_MEANINGFUL = st.text(alphabet=st.characters(exclude_characters="<>&;[]`\n\r\u2028\u2029\x0b\x0c\x1c\x1d\x1e\x85ΔＣ∆△"))
_MUSICAL = st.text(alphabet="abCn0127 ~^°º²₂½-+>#*_|=♭×&\u200c−–①")


@settings(max_examples=500)
@given(_MEANINGFUL | _MUSICAL)
def test_letters_and_digits_survive_in_order(raw: str) -> None:
    left = iter(normalize_text(raw))
    kept = [c for c in unicodedata.normalize("NFKC", raw) if c.isalnum()]
    assert all(any(c == other for other in left) for c in kept)


@given(st.integers(1, 999), st.text(alphabet="~^²₂½①⅓⁻°× \u200b", min_size=1), st.integers(1, 999))
def test_numbers_are_not_glued_together(first: int, between: str, second: int) -> None:
    assume(between != "\u200b" * len(between))  # invisible: it is one number for the reader, too
    digits = "".join(c for c in unicodedata.normalize("NFKC", between) if c.isascii() and c.isdigit())
    assert f"{first}{digits}{second}" not in normalize_text(f"{first}{between}{second}")


@given(st.text(alphabet=st.characters(categories=["L"]), max_size=30))
def test_letters_are_kept(word: str) -> None:
    kept = unicodedata.normalize("NFKC", word)
    letters = [c for c in kept if unicodedata.category(c)[0] == "L"]
    assert [c for c in normalize_text(word) if unicodedata.category(c)[0] == "L"] == letters


@pytest.mark.parametrize(
    ("raw", "hit_limit", "text_out", "refusal"),
    [
        ("A calm piano piece.", False, "A calm piano piece.", ""),
        ("  \n ", False, "", "empty"),
        ("<|im_end|>", False, "", "empty"),
        ("...", False, "", "empty"),
        ("\ufffd\ufffd", False, "", "empty"),
        ("Pop.", False, "", "too short"),
        ("It is pop. It has drums and a", True, "It is pop.", ""),
        ("It is pop. It has drums.", True, "It is pop. It has drums.", ""),
        ("It is a long piece with drums and", True, "", "token limit"),
        ("A calm piece<|im_end|>\n<|im_start|>user\nmore", False, "A calm piece", ""),
        ("A calm <|im_start|> piece of music", False, "", "template"),
        ("Nice piece.\nassistant\nAnother piece.", False, "", "template"),
        ("the drums " * 60, True, "", "repeats"),
        ("Warm intro with pads.\n2.", True, "Warm intro with pads.", ""),
        ("Warm pads and strings, e.g.", True, "", "token limit"),
        ("Warm pads.\nuser: what else?\nassistant: drums and bass.", False, "", "template"),
        ("Warm \ufffd\ufffd pa\ufffdds.", False, "", "invalid UTF-8"),
        ("Warm pads and strings. Th\ufffd", True, "Warm pads and strings.", ""),
        ("I'm sorry, but I cannot listen to audio files.", False, "", "cannot hear"),
        ("暖かいピアノの曲。静かに始", True, "暖かいピアノの曲。", ""),
        ("A slow song with a warm bass. " * 12, False, "", "repeats"),
    ],
)
def test_accepted_and_refused_answers(raw: str, hit_limit: bool, text_out: str, refusal: str) -> None:
    verdict = judge(raw, hit_limit)
    assert verdict.text == text_out
    assert refusal in verdict.refusal
    assert bool(verdict.refusal) == bool(refusal)


def test_lyrics_may_repeat_and_are_cut_at_a_line() -> None:
    chorus = "Around the world, around the world\n" * 6
    assert judge(chorus, False, lines=True).text
    assert judge("One line here\nanother line\nand a thi", True, lines=True).text == "One line here another line"
    assert "repeats" in judge("la la la la\n" * 80, True, lines=True).refusal


def test_lyrics_in_one_line_are_cut_at_a_sentence() -> None:
    assert judge("Summer follows spring. The days gr", True, lines=True).text == "Summer follows spring."
    assert "token limit" in judge("summer follows spring the days gr", True, lines=True).refusal


# How the model answers "Transcribe the input speech.", as documented; and answers that only resemble it.
_TRANSCRIPTIONS = [
    ('The spoken content of the audio is "summer follows spring".', "summer follows spring"),
    ("The transcription of the audio is 'it's a summer's day'.", "it's a summer's day"),
    ('The content of the input audio is "one\ntwo"', "one\ntwo"),
    ('The spoken content of the audio is "she says "stay" and leaves".', 'she says "stay" and leaves'),
    ('The spoken content of the audio is "".', ""),
]


@pytest.mark.parametrize(("raw", "spoken"), _TRANSCRIPTIONS)
def test_a_transcription_loses_its_frame(raw: str, spoken: str) -> None:
    assert without_transcription_frame(raw) == spoken
    assert judge(raw, False, min_words=1, lines=True).text == normalize_text(spoken)


@pytest.mark.slow
@pytest.mark.parametrize(("raw", "spoken"), _TRANSCRIPTIONS)
def test_transformers_strips_the_same_frame(raw: str, spoken: str) -> None:
    from transformers.models.audioflamingo3.processing_audioflamingo3 import AudioFlamingo3Processor

    processor = AudioFlamingo3Processor.__new__(AudioFlamingo3Processor)
    assert processor._strip_assistant_prefix_and_quotes(raw) == spoken


@pytest.mark.parametrize(
    "raw",
    [
        "The spoken content of the audio is unclear.",
        'A song. The spoken content of the audio is "la la".',
        'The singer repeats "summer".',
        '"summer follows spring"',
    ],
)
def test_other_answers_keep_their_text(raw: str) -> None:
    assert without_transcription_frame(raw) == raw


def test_a_transcription_that_was_cut_loses_its_frame() -> None:
    cut = 'The spoken content of the audio is "Summer follows spring. The days gr'
    assert judge(cut, True, min_words=1, lines=True).text == "Summer follows spring."


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("It is slow.<|im_end|>\n<|im_start|>user\nmore", "It is slow."),
        (" It has <sound> drums. ", "It has   drums."),
        ("Plain text.", "Plain text."),
    ],
)
def test_template_tokens_do_not_get_into_a_conversation(raw: str, kept: str) -> None:
    assert without_template_tokens(raw) == kept


def test_min_words_allows_short_answers() -> None:
    assert judge("120 BPM", False, min_words=1).text == "120 BPM"


@given(st.text(), st.booleans())
def test_an_accepted_answer_is_not_empty_and_normalised(raw: str, hit_limit: bool) -> None:
    verdict = judge(raw, hit_limit)
    assert bool(verdict.text) != bool(verdict.refusal)
    assert normalize_text(verdict.text) == verdict.text


@pytest.mark.parametrize(
    ("words", "looping"),
    [
        ("verse chorus verse chorus", False),
        ("The chords are C - G - Am - F - C - G - Am - F through the verse.", False),
        ("na " * 50, True),
        ("C - G - Am - F, " * 6, False),
        ("very very very good", False),
        ("one two three four five six seven eight nine ten " * 5, True),
        (" ".join(f"word{i}" for i in range(300)), False),
        ("The beat is steady. " + "It keeps going and going. " * 8, True),
    ],
)
def test_loops(words: str, looping: bool) -> None:
    assert loops(words) is looping


@pytest.mark.parametrize(
    ("cut", "whole"),
    [
        ("One. Two. Thr", "One. Two."),
        ("It runs at 120.5 BPM and", ""),
        ('He says "go." Then', 'He says "go."'),
        ("Pads, e.g. strings and", ""),
        ("Sections: 1. Intro 2. Verse", ""),
        ("The tempo is 95. The key", "The tempo is 95."),
    ],
)
def test_whole_sentences(cut: str, whole: str) -> None:
    assert whole_sentences(cut) == whole
