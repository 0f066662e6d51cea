"""What is true of a song, in sentences: for each preset of the product, and for plain questions.

A sentence is drawn from several of the same meaning, so that the model learns to say things, not one line. Genre and
mood are functions of what is heard (drums, lead, tempo, mode), never labels of their own that nothing sounds like.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from tiny_flamingo.music import Song

_LEADS = {
    "flute": ("a soft flute", "breathy and round"),
    "organ": ("an organ", "full and steady"),
    "bells": ("bells", "metallic and ringing"),
    "guitar": ("a plucked guitar", "bright at first and quickly fading"),
    "square": ("a square-wave synth", "hollow and buzzing"),
    "brass": ("a brass-like synth", "broad and swelling"),
}
_BASSES = {
    "sub": ("a deep sub bass", "smooth and dark"),
    "synth": ("a synth bass", "rough and sustained"),
    "plucked": ("a plucked bass", "short and woody"),
}
_DRUMS = {
    "none": ("no drums", "there are no drums"),
    "four-on-the-floor": ("a four-on-the-floor kick", "the kick drum sounds on every beat"),
    "backbeat": ("drums with a backbeat", "the snare answers on two and four"),
    "half-time": ("half-time drums", "the snare falls on three, in half time"),
    "breakbeat": ("a breakbeat", "the drums play a syncopated breakbeat"),
}
_STRUCTURES = {
    "steady": ("It stays the same from beginning to end.", "All parts play throughout, without a break."),
    "build-up": (
        "It builds up: the lead begins, then the other parts enter.",
        "It starts sparse and adds parts until all play.",
    ),
    "break": (
        "In the middle it breaks down to the lead, then all parts return.",
        "Bass and drums drop out in the middle and come back.",
    ),
}
_IN_SHORT = {"steady": "steady throughout", "build-up": "building up", "break": "a break in the middle"}
# What captions speak of. Dynamics the encoder tells too seldom (0.8 of three), so nothing is said of them.
NAMED = ("tempo", "key", "mode", "lead", "bass", "drums", "structure")


def genre(song: Song) -> str:
    match song.drums:
        case "four-on-the-floor":
            return "trance" if song.tempo >= 140 else "house" if song.tempo >= 110 else "disco"
        case "backbeat":
            return {"guitar": "rock", "brass": "funk", "square": "chiptune", "organ": "soul"}.get(song.lead, "pop")
        case "half-time":
            return "dubstep" if song.tempo >= 130 else "downtempo"
        case "breakbeat":
            return "drum and bass" if song.tempo >= 140 else "breakbeat"
    return "folk" if song.lead == "guitar" else "ambient"


def mood(song: Song) -> str:
    if song.mode == "major":
        return "bright and energetic" if song.tempo >= 110 else "calm and warm"
    return "dark and driving" if song.tempo >= 110 else "slow and melancholic"


def caption(song: Song, preset: str, random: random.Random) -> str:
    """One answer to one preset's question, or to a plain question (``QUESTIONS``)."""
    return _ANSWERS[preset](song, random)


def _article(words: str) -> str:
    return f"An {words}" if words[0] in "aeiou" else f"A {words}"


def _key(song: Song) -> str:
    return f"{song.key} {song.mode}"


def _full(song: Song, draw: random.Random) -> str:
    lead, bass, drums = _LEADS[song.lead][0], _BASSES[song.bass][0], _DRUMS[song.drums][0]
    first = draw.choice(
        (
            f"{_article(genre(song))} track at {song.tempo} BPM in {_key(song)}.",
            f"This is {genre(song)} in {_key(song)} at a tempo of {song.tempo} BPM.",
            f"{_article(genre(song))} piece in the key of {_key(song)}, at about {song.tempo} BPM.",
        )
    )
    second = draw.choice(
        (
            f"The melody is played by {lead} over {bass}, with {drums}.",
            f"It features {lead} and {bass}, with {drums}.",
            f"One hears {lead}, {bass} and {drums}.",
        )
    )
    third = draw.choice((f"The mood is {mood(song)}.", f"It feels {mood(song)}.", f"Overall it sounds {mood(song)}."))
    return " ".join((first, second, third))


def _technical(song: Song, draw: random.Random) -> str:
    return draw.choice(
        (
            f"The tempo is {song.tempo} BPM and the key is {_key(song)}.",
            f"It runs at {song.tempo} BPM in {_key(song)}.",
            f"Tempo: {song.tempo} BPM. Key: {_key(song)}.",
        )
    )


def _genre_mood(song: Song, draw: random.Random) -> str:
    return draw.choice(
        (
            f"{genre(song).capitalize()}. The mood is {mood(song)}.",
            f"The genre is {genre(song)}, and it feels {mood(song)}.",
            f"This is {genre(song)} with a {mood(song)} mood.",
        )
    )


def _instrumentation(song: Song, draw: random.Random) -> str:
    (lead, lead_sound), (bass, bass_sound), (drums, _) = _LEADS[song.lead], _BASSES[song.bass], _DRUMS[song.drums]
    return draw.choice(
        (
            f"The lead is {lead}, {lead_sound}. Below it is {bass}, {bass_sound}. There are {drums}.",
            f"One hears {lead}, {lead_sound}; {bass}, {bass_sound}; and {drums}.",
        )
    ).replace("There are a ", "There is a ")


def _structure(song: Song, draw: random.Random) -> str:
    drums = _DRUMS[song.drums][1]
    return f"{draw.choice(_STRUCTURES[song.structure])} {drums[0].upper()}{drums[1:]}."


def _brief(song: Song, draw: random.Random) -> str:
    lead = _LEADS[song.lead][0]
    return f"{_article(mood(song))} {genre(song)} track at {song.tempo} BPM in {_key(song)}. It features {lead}."


def _very_brief(song: Song, draw: random.Random) -> str:
    return f"{_article(mood(song))} {genre(song)} track with {_LEADS[song.lead][0]}."


_ANSWERS: dict[str, Callable[[Song, random.Random], str]] = {
    "full": _full,
    "technical": _technical,
    "genre_mood": _genre_mood,
    "instrumentation": _instrumentation,
    "structure": _structure,
    "brief": _brief,
    "very_brief": _very_brief,
    "tempo": lambda song, draw: f"The tempo is {song.tempo} BPM.",
    "key": lambda song, draw: f"The key is {_key(song)}.",
    "lead": lambda song, draw: f"The melody is played by {_LEADS[song.lead][0]}.",
    "bass": lambda song, draw: f"The bass is {_BASSES[song.bass][0]}.",
    "drums": lambda song, draw: f"One hears {_DRUMS[song.drums][0]}.",
    "sections": lambda song, draw: draw.choice(_STRUCTURES[song.structure]),
}
# Questions besides the presets' own, so that a user's edited prompt finds its answer, too.
QUESTIONS = {
    "full": (
        "Describe this track.",
        "Describe this music in full detail.",
        "Write a caption for this track.",
        "Write a rich caption that blends the technical details with how the song feels.",
        "Tell me everything about this music: genre, tempo, key, instruments and mood.",
    ),
    "technical": (
        "What are the tempo and the key of this track?",
        "Give the tempo and the key.",
        "Analyze the technical side of this music.",
    ),
    "genre_mood": (
        "What genre is this, and what is its mood?",
        "Name the genre and the mood of this music.",
        "Describe the genre and the feeling of this track.",
    ),
    "instrumentation": (
        "Which instruments are played?",
        "List the instruments of this track.",
        "What instruments and sounds are heard here?",
    ),
    "structure": (
        "How is this track structured?",
        "Describe the structure and the energy of this music.",
        "What are the sections of this track?",
    ),
    "brief": ("Describe this music briefly.", "Describe this track in a few words."),
    "very_brief": ("Describe this track in one sentence.",),
    "tempo": ("What is the tempo?", "How fast is this track?", "What is the tempo of this track in BPM?"),
    "key": ("What is the key?", "In which key is this track?", "What key is this music in?"),
    "lead": ("Which instrument plays the melody?", "What is the lead instrument?"),
    "bass": ("What bass is played?", "Which instrument plays the bass?"),
    "drums": ("What do the drums play?", "Describe the drums of this track."),
    "sections": ("Does this track build up, break down or stay the same?", "Is there a break or a build-up?"),
}


def truth(song: Song) -> dict[str, str]:
    """What is true of a song, in the words that an answer has for it; the structure in short."""
    return {
        "tempo": f"{song.tempo} BPM",
        "key": _key(song),
        "lead": _LEADS[song.lead][0],
        "bass": _BASSES[song.bass][0],
        "drums": _DRUMS[song.drums][0],
        "structure": _IN_SHORT[song.structure],
    }


def heard(text: str) -> dict[str, str]:
    """The labels that an answer names: how answers are scored. What it does not name is left out."""
    found: dict[str, str] = {}
    if match := re.search(r"\b(\d{2,3}) BPM", text):
        found["tempo"] = match[1]
    if match := re.search(r"\b([A-G][#b]?) (major|minor)\b", text):
        found["key"], found["mode"] = match[1], match[2]
    for label, phrases in (
        ("lead", _LEADS),
        ("bass", _BASSES),
        ("drums", _DRUMS),
        ("structure", _STRUCTURES),
    ):
        for value, said in phrases.items():
            if any(phrase.lower() in text.lower() for phrase in said):
                found[label] = value
    return found
