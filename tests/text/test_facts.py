"""Tempo, key, genres, instruments and moods that captions name."""

from __future__ import annotations

import pytest

from musicflamingo_cli.text.facts import facts_in, key_of, tempo_of


@pytest.mark.parametrize(
    ("caption", "tempo"),
    [
        ("At 128 BPM, it drives.", 128.0),
        ("a 92-bpm groove", 92.0),
        ("around 174.5 BPM", 174.5),
        ("120 beats per minute", 120.0),
        ("a 1990 record, 12 BPM, then 90 BPM", 90.0),  # 12 is too slow for a tempo
        ("no tempo here", None),
        ("house at 4000 BPM", None),
    ],
)
def test_tempo(caption: str, tempo: float | None) -> None:
    assert tempo_of(caption) == tempo


@pytest.mark.parametrize(
    ("caption", "key"),
    [
        ("in F# minor", "F# minor"),
        ("in the key of E flat major", "Eb major"),
        ("C sharp minor", "C# minor"),
        ("Bb major", "Bb major"),
        ("in G-major", "G major"),
        ("A minor", ""),
        ("a minor detail", ""),
        ("A major key change is heard", ""),
        ("in A minor", "A minor"),
        ("The key is A major", "A major"),
        ("F♯ minor, then B♭ major", "F# minor"),
        ("A♭ major", "Ab major"),
        ("no key", ""),
    ],
)
def test_key(caption: str, key: str) -> None:
    assert key_of(caption) == key


def test_the_longest_whole_term_counts_under_one_name() -> None:
    facts = facts_in(
        "Drum 'n' bass meets HIP-HOP and hip hop: synths, a synthesizer, an electric guitar; rocking, moody."
    )
    assert facts.genres == ("drum and bass", "hip hop")
    assert facts.instruments == ("synth", "electric guitar")
    assert facts.moods == ("moody",)


def test_negated_terms_are_left_out() -> None:
    facts = facts_in("A calm piece without drums or guitar, not aggressive; no vocals. A flute plays.")
    assert (facts.instruments, facts.moods) == (("flute",), ("calm",))
