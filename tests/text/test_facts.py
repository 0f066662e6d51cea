"""Tempo, key and words that captions name."""

from __future__ import annotations

import pytest

from musicflamingo_cli.text.facts import key_of, tempo_of, words_of


@pytest.mark.parametrize(
    ("caption", "tempo"),
    [
        ("At 128 BPM, it drives.", 128.0),
        ("a 92-bpm groove", 92.0),
        ("around 174.5 BPM", 174.5),
        ("120 beats per minute", 120.0),
        ("a 1990 record, 12 BPM, then 90 BPM", 90.0),  # 12 is no tempo
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


def test_words_are_whole_the_longest_and_counted_as_one_kind() -> None:
    words = words_of(
        "Drum 'n' bass meets HIP-HOP and hip hop: synths, a synthesizer, an electric guitar; rocking, moody."
    )
    assert words.genres == ("drum and bass", "hip hop")
    assert words.instruments == ("synth", "electric guitar")
    assert words.moods == ("moody",)


def test_what_is_denied_is_not_named() -> None:
    words = words_of("A calm piece without drums or guitar, not aggressive; no vocals. A flute plays.")
    assert (words.instruments, words.moods) == (("flute",), ("calm",))
