"""Tempo, key, genres, instruments and moods that captions name."""

from __future__ import annotations

import time

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
        ("between 120 and 125 BPM", 122.5),
        ("130–132 BPM", 131.0),
        ("from 70 to 140 BPM", 70.0),  # no one tempo: the first
        ("70 BPM in half-time, felt as 140 BPM", 70.0),
        ("a pulse of roughly 104 beats a minute", 104.0),
        ("with a tempo of 76", 76.0),
        ("Tempo: ~90", 90.0),
        ("BPM: 92", 92.0),
        ("a tempo of 4/4, at 3:15", None),
        ("the 1990s at 45%, 88 BPM", 88.0),
        ("not 120 BPM but 96 BPM", 96.0),
        ("instead of the usual 120 BPM, 96 BPM", 96.0),
        ("no drums at 90 BPM", 90.0),
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
        ("E-flat major", "Eb major"),
        ("c-sharp Minor", "C# minor"),
        ("in the key of G.", "G"),
        ("the key of G minor", "G minor"),
        ("Key: F#m", "F# minor"),
        ("in Am, slowly", "A minor"),
        ("In A the song", ""),
        ("in A natural minor", "A minor"),
        ("in D Dorian", "D dorian"),
        ("E min, C maj", "E minor"),
        ("Cmaj7 and B major chords", ""),
        ("from A minor to F major; the key is C major", "C major"),
        ("not in A minor, but in C major", "C major"),
        ("An A-minor ballad", "A minor"),
        ("R&B major label", ""),
        ("no vocals in B minor", "B minor"),
    ],
)
def test_key(caption: str, key: str) -> None:
    assert key_of(caption) == key


# Sentences as the model writes them: tempo, key, genres, instruments.
CAPTIONS = {
    "This track is an energetic house tune at 128 BPM in F♯ minor, driven by a kick and bright synth pads.": (
        (128.0, "F# minor", "house", "kick drum, synth, pads")
    ),
    "A melancholic indie folk song at about 96 BPM in A minor with acoustic guitar and a soft male vocal.": (
        (96.0, "A minor", "folk", "acoustic guitar, vocals")
    ),
    "The tempo sits between 120 and 125 BPM, and the key is E-flat major.": (122.5, "Eb major", "", ""),
    "A slow blues at around 72 beats per minute in the key of G, with electric guitar, organ and drums.": (
        (72.0, "G", "blues", "electric guitar, organ, drums")
    ),
    "The tempo is approximately 174 BPM, typical of drum and bass, in the key of D♭ minor.": (
        (174.0, "Db minor", "drum and bass", "")
    ),
    "Tempo: 90 BPM. Key: C# minor. Genre: lo-fi hip-hop.": (90.0, "C# minor", "lo-fi, hip hop", ""),
    "An ambient piece without drums or vocals; slow synth pads drift over a drone.": (
        (None, "", "ambient, drone", "synth, pads")
    ),
    "There are no drums, but a piano and strings carry the melody in B-flat major.": (
        (None, "Bb major", "", "piano, strings")
    ),
    "There are no drums but a piano.": (None, "", "", "piano"),
    "It has no vocals. It is an instrumental jazz trio of piano, double bass and drums at 140 BPM.": (
        (140.0, "", "jazz", "piano, double bass, drums")
    ),
    "A techno track (130–132 BPM) in A-flat minor.": (131.0, "Ab minor", "techno", ""),
    "With a tempo of 76 and a key of E minor, this ballad features piano and cello.": (
        (76.0, "E minor", "", "piano, cello")
    ),
    "The drums play at 70 BPM in half-time, so the pulse can also be felt at 140 BPM.": (70.0, "", "", "drums"),
    "It lacks drums, bass, and vocals, relying on solo harp instead.": (None, "", "", "harp"),
    "This piece never uses drums, synths or vocals: only a choir in A major sings.": (None, "A major", "", "choir"),
    "Drums and bass are absent; a solo violin leads in D minor.": (None, "D minor", "", "violin"),
    "Drums, bass, and vocals are entirely absent.": (None, "", "", ""),
    "The piano leads, drums are missing.": (None, "", "", "piano"),
    "Vocals are not present, and neither is percussion; a marimba pattern repeats at 100 BPM.": (
        (100.0, "", "", "marimba")
    ),
    "The absence of percussion leaves space for flute and harp at roughly 66 BPM.": (66.0, "", "", "flute, harp"),
    "Unlike a rock song, it doesn't feature electric guitar; a banjo leads.": (None, "", "", "banjo"),
    "Not a rock song but a country ballad with fiddle, 88 bpm.": (88.0, "", "country", "fiddle"),
    "This is not only a trance track but also a showcase of strings.": (None, "", "trance", "strings"),
    "Without a doubt a disco track: strings, bass and hi-hats at 119 BPM.": (
        (119.0, "", "disco", "strings, bass, hi-hats")
    ),
    "Neither guitar nor piano is used, only a choir in F major.": (None, "F major", "", "choir"),
    "Instead of drums, handclaps and tambourine keep the time at 104 BPM.": (104.0, "", "", "claps, tambourine"),
    "There is no bass; however, the kick drum hits hard at 145 BPM.": (145.0, "", "", "kick drum"),
    "A rock song rather than a metal one, with bass guitar and drums in E major at 136 BPM.": (
        (136.0, "E major", "rock", "bass guitar, drums")
    ),
    "A drumless piece for celesta and pads at ~80 BPM, B major.": (80.0, "B major", "", "celesta, pads"),
    "Ambient and new age sounds, no discernible tempo or key.": (None, "", "ambient, new age", ""),
    "The chords move from A minor to F major and G major; the song is in the key of C major.": (
        (None, "C major", "", "")
    ),
    "In the key of F# minor, it modulates to A major in the bridge.": (None, "F# minor", "", ""),
    "A minor detail: the piano enters late, in C minor.": (None, "C minor", "", "piano"),
    "A reggae groove at 75bpm in Bb major with bass, organ and horns.": (
        (75.0, "Bb major", "reggae", "bass, organ, horns")
    ),
    "The piece is in 6/8 time at 60 beats per minute, in D Dorian.": (60.0, "D dorian", "", ""),
    "Recorded in the 1980s, this synthpop track runs at 118 BPM in E min.": (118.0, "E minor", "synth-pop", ""),
    "Hip hop beat, 85-90 BPM, Key: F#m, with a vinyl crackle and a sampled Rhodes.": (
        (87.5, "F# minor", "hip hop", "electric piano")
    ),
    "A death metal assault at 220 BPM in C♯ minor with growled vocals and distorted electric guitars.": (
        (220.0, "C# minor", "death metal", "vocals, electric guitar")
    ),
    "The tempo is not 120 BPM but 96 BPM.": (96.0, "", "", ""),
    "A waltz at 150 BPM in A natural minor for accordion and clarinet.": (
        (150.0, "A minor", "", "accordion, clarinet")
    ),
    "A K-pop song in G# minor, about 126 BPM, with sung vocals.": (126.0, "G# minor", "K-pop", "vocals"),
    "Orchestral soundtrack in E flat minor; brass and timpani swell, no guitars are heard.": (
        (None, "Eb minor", "orchestral, soundtrack", "brass, timpani")
    ),
    "It opens in 4/4 at 3:15 with a minor key and no clear tempo.": (None, "", "", ""),
    "The track accelerates from 70 to 140 BPM and is centred around B minor.": (70.0, "B minor", "", ""),
    "A trap beat at 140 BPM, which feels like 70 BPM, in G minor, with hi-hats.": (140.0, "G minor", "trap", "hi-hats"),
    "The track stays in C-sharp minor at a steady tempo of 122.5 BPM throughout.": (122.5, "C# minor", "", ""),
    "A chiptune in C major at 8-bit resolution and 160 BPM.": (160.0, "C major", "chiptune", ""),
    "In Am, at BPM 92, a gentle ukulele tune.": (92.0, "A minor", "", "ukulele"),
}


@pytest.mark.parametrize("caption", CAPTIONS)
def test_claims_of_realistic_captions(caption: str) -> None:
    facts = facts_in(caption)
    found = facts.tempo, facts.key, ", ".join(facts.genres), ", ".join(facts.instruments)
    assert found == CAPTIONS[caption]


def test_the_time_is_linear_in_the_length() -> None:
    """Some answers loop; expressions that go back over them again and again would take minutes."""
    for loop in ("no drums and bass, ", "drums are absent and bass ", "In A minor 120 to 125 BPM key tempo of "):
        began = time.monotonic()
        facts_in(loop * 2000)
        assert time.monotonic() - began < 2


def test_the_longest_whole_term_counts_under_one_name() -> None:
    facts = facts_in(
        "Drum 'n' bass meets HIP-HOP and hip hop: synths, a synthesizer, an electric guitar; rocking, moody."
    )
    assert facts.genres == ("drum and bass", "hip hop")
    assert facts.instruments == ("synth", "electric guitar")
    assert facts.moods == ("moody",)


def test_of_overlapping_terms_the_longest_counts() -> None:
    """`acoustic` is a genre, but not in an acoustic guitar; the bass of drum and bass is no instrument."""
    facts = facts_in("An acoustic guitar over drum and bass.")
    assert (facts.genres, facts.instruments) == (("drum and bass",), ("acoustic guitar",))


def test_negated_terms_are_left_out() -> None:
    facts = facts_in("A calm piece without drums or guitar, not aggressive; no vocals. A flute plays.")
    assert (facts.instruments, facts.moods) == (("flute",), ("calm",))
