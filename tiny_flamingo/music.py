"""Labelled music: a small band of numpy oscillators whose every attribute is known.

A ``Song`` is the score (what is true of the music), ``render`` plays it, and ``Recording`` says how it was
captured (level, noise, reverb, tilt): nothing that a caption may speak of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve, lfilter

Samples = NDArray[np.float32]

TRAIN_SEEDS = 10_000_000  # training songs have seeds from here on, held-out ones below
RUN_SEEDS = 1_000_000  # and each run its own million of them
TEMPI = tuple(range(70, 170, 10))  # beats per minute; a song's own lies within 2 of one of them
KEYS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
MODES = ("major", "minor")
LEADS = ("flute", "organ", "bells", "guitar", "square", "brass")
BASSES = ("sub", "synth", "plucked")
DRUMS = ("none", "four-on-the-floor", "backbeat", "half-time", "breakbeat")
STRUCTURES = ("steady", "build-up", "break")
DYNAMICS = ("even", "crescendo", "fade")
ATTRIBUTES: Mapping[str, Sequence[int] | Sequence[str]] = {
    "tempo": TEMPI,
    "key": KEYS,
    "mode": MODES,
    "lead": LEADS,
    "bass": BASSES,
    "drums": DRUMS,
    "structure": STRUCTURES,
    "dynamics": DYNAMICS,
}

_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
# Scale degrees of four bars. The tonic has at least two of them, so that a song has one key, not also its
# relative's.
_PROGRESSIONS = ((0, 3, 0, 4), (0, 0, 3, 4), (0, 4, 0, 3), (0, 0, 4, 0), (0, 3, 4, 0))
_ARPEGGIOS = (
    (0, 1, 2, 3, 2, 1, 0, 1),
    (0, 2, 1, 2, 3, 2, 1, 2),
    (3, 2, 1, 0, 3, 2, 1, 0),
    (0, 1, 0, 2, 1, 3, 2, 1),
    (2, 1, 0, 1, 2, 3, 2, 0),
    (0, 0, 1, 1, 2, 2, 1, 3),
)
# Sixteenths of a bar at which kick, snare and hat sound.
_EIGHTHS = tuple(range(0, 16, 2))
_GROOVES = {
    "none": (((), (), ()),),
    "four-on-the-floor": (
        ((0, 4, 8, 12), (), (2, 6, 10, 14)),
        ((0, 4, 8, 12), (4, 12), (2, 6, 10, 14)),
    ),
    "backbeat": (
        ((0, 8), (4, 12), _EIGHTHS),
        ((0, 8, 10), (4, 12), _EIGHTHS),
        ((0, 6, 8), (4, 12), _EIGHTHS),
    ),
    "half-time": (((0,), (8,), _EIGHTHS), ((0, 6), (8,), _EIGHTHS), ((0, 10), (8,), _EIGHTHS)),
    "breakbeat": (
        ((0, 2, 10, 11), (4, 7, 9, 12, 15), _EIGHTHS),
        ((0, 3, 10), (4, 7, 12, 15), _EIGHTHS),
    ),
}
_BASSLINES = ((0, 4, 8, 12), (0, 2, 4, 6, 8, 10, 12, 14), (0, 6, 8, 14), (0, 3, 8, 11))
_LEAD_LOWEST = {"flute": 72, "organ": 64, "bells": 76, "guitar": 62, "square": 64, "brass": 62}  # MIDI
_LEAD_LEVEL = {"flute": 0.5, "organ": 0.25, "bells": 0.4, "guitar": 0.45, "square": 0.25, "brass": 0.28}


@dataclass(frozen=True, slots=True)
class Song:
    """What is true of the music: the labels, and the choices below them that no caption names."""

    tempo: int
    key: str
    mode: str
    lead: str
    bass: str
    drums: str
    structure: str = "steady"
    dynamics: str = "even"
    seconds: float = 30.0
    bpm: float = 0.0  # the exact tempo
    seed: int = 0  # of the choices that no label names: progression, arpeggio, groove, levels

    def labels(self) -> dict[str, str]:
        return {name: str(getattr(self, name)) for name in ATTRIBUTES}


@dataclass(frozen=True, slots=True)
class Recording:
    """How a song was captured."""

    gain_db: float = -6.0
    noise_db: float = -90.0  # of white noise, against full scale before the gain
    reverb: float = 0.0  # share of the wet sound
    tilt: float = 0.0  # coefficient of a one-pole tilt: above 0 darker, below brighter
    cents: float = 0.0  # mistuning


@dataclass(slots=True)
class Score:
    """Frame-level truth at ``FRAME_RATE``: what sounds when; the encoder's first layers learn from it."""

    lead: NDArray[np.float32]  # (frames, 12): pitch class of the lead
    chord: NDArray[np.float32]  # (frames, 12): pitch classes of the chord
    hits: NDArray[np.float32]  # (frames, 5): kick, snare, hat, lead onset, beat
    beats: list[float] = field(default_factory=list)


FRAME_RATE = 50


def random_song(seed: int, *, seconds: tuple[float, float] = (12.0, 29.9), steady: bool = False) -> Song:
    """The song of this seed: every label drawn evenly."""
    random = np.random.default_rng(seed)
    picked: dict[str, Any] = {name: values[int(random.integers(len(values)))] for name, values in ATTRIBUTES.items()}
    if steady:
        picked |= {"structure": "steady", "dynamics": "even"}
    return Song(
        **picked,
        seconds=float(random.uniform(*seconds)),
        bpm=float(picked["tempo"] + random.uniform(-2, 2)),
        seed=int(random.integers(2**31)),
    )


def random_recording(seed: int) -> Recording:
    """How a song of this seed is captured: from clean and loud to quiet, noisy and reverberant."""
    random = np.random.default_rng((seed, 1))
    return Recording(
        gain_db=float(random.uniform(-30, 0)),
        noise_db=float(random.uniform(-90, -40)),
        reverb=float(random.uniform(0.1, 0.4)) if random.random() < 0.3 else 0.0,
        tilt=float(random.uniform(-0.4, 0.6)) if random.random() < 0.5 else 0.0,
        cents=float(random.uniform(-12, 12)),
    )


def render(song: Song, recording: Recording | None = None, rate: int = 16000) -> tuple[Samples, Score]:
    """Play a song: mono samples within -1..1 at ``rate``, and what sounds when."""
    recording = recording or Recording()
    band = Band(song, recording, rate)
    band.play()
    return capture(band.mix, song, recording, rate), band.score


class Band:
    """Plays one song, bar by bar, onto one buffer and one score."""

    def __init__(self, song: Song, recording: Recording, rate: int) -> None:
        self.song, self.rate = song, rate
        self.random = np.random.default_rng(song.seed)
        self.tuning = 2 ** (recording.cents / 1200)
        self.mix = np.zeros(round(song.seconds * rate), np.float32)
        frames = round(song.seconds * FRAME_RATE)
        lead, chord, hits = (np.zeros((frames, columns), np.float32) for columns in (12, 12, 5))
        self.score = Score(lead, chord, hits)
        self.sixteenth = 15.0 / (song.bpm or song.tempo)
        self.steps = 16  # sixteenths of a bar
        self.notes: dict[tuple[str, int, float], Samples] = {}

    def play(self) -> None:
        song, random = self.song, self.random
        self.root = KEYS.index(song.key)
        self.scale = _SCALES[song.mode]
        progression = _PROGRESSIONS[random.integers(len(_PROGRESSIONS))]
        self.arpeggios: list[Sequence[int]] = [_ARPEGGIOS[i] for i in random.integers(len(_ARPEGGIOS), size=2)]
        grooves = _GROOVES[song.drums]
        self.groove: Sequence[Sequence[int]] = grooves[random.integers(len(grooves))]
        self.bassline: Sequence[int] = _BASSLINES[random.integers(len(_BASSLINES))]
        self.rests = random.uniform(0.0, 0.15)
        self.levels = {
            "lead": random.uniform(0.7, 1.2),
            "pad": random.uniform(0.3, 1.0) if random.random() < 0.6 else 0.0,
            "bass": random.uniform(0.6, 1.2),
            "drums": random.uniform(0.6, 1.3),
        }
        self.drum_kit = _drum_kit(random, self.rate)
        self._play_bars(progression, float(random.uniform(0, 1)))

    def _play_bars(self, progression: Sequence[int], phase: float) -> None:
        """Play the progression over and over; a recording begins anywhere (``phase``, from 0 to 1) in its four bars."""
        bar = self.steps * self.sixteenth
        first = -phase * 4 * bar
        for index in range(int((self.song.seconds - first) / bar) + 1):
            self._play_bar(first + index * bar, progression[index % 4], index)

    def _play_bar(self, start: float, degree: int, index: int) -> None:
        chord = [self._pitch_class(degree + step) for step in (0, 2, 4)]
        self._mark(self.score.chord, chord, start, self.steps * self.sixteenth)
        if self.levels["pad"]:
            self._play_pad(chord, start)
        self._play_lead(chord, start, self.arpeggios[index // 2 % 2])
        for step in self.bassline:
            if self._sounds("bass", start + step * self.sixteenth):
                self._play_bass(chord[0], start + step * self.sixteenth)
        self._play_drums(start)
        for beat in range(self.steps // 4):
            self._hit(4, start + 4 * beat * self.sixteenth)

    def _pitch_class(self, degree: int) -> int:
        return (self.root + self.scale[degree % 7]) % 12

    def _play_lead(self, chord: list[int], start: float, arpeggio: Sequence[int]) -> None:
        song, lowest = self.song, _LEAD_LOWEST[self.song.lead]
        pitches = [lowest + (pc - lowest) % 12 for pc in chord]
        pitches = [pitches[0], *(p + 12 * (p < pitches[0]) for p in pitches[1:])]
        pitches.append(pitches[0] + 12)
        for i, rest in enumerate(self.random.random(self.steps // 2)):
            if rest < self.rests and i:
                continue
            at, pitch = start + 2 * i * self.sixteenth, pitches[arpeggio[i]]
            note = self._note(song.lead, pitch, 2 * self.sixteenth)
            self._add(note, at, _LEAD_LEVEL[song.lead] * self.levels["lead"])
            self._mark(self.score.lead, [pitch % 12], at, 2 * self.sixteenth)
            self._hit(3, at)

    def _play_pad(self, chord: list[int], start: float) -> None:
        for pc in chord:
            pitch = 55 + (pc - 55) % 12
            self._add(self._note("pad", pitch, self.steps * self.sixteenth), start, 0.08 * self.levels["pad"])

    def _play_bass(self, pitch_class: int, at: float) -> None:
        pitch = 36 + (pitch_class - 36) % 12
        self._add(self._note(f"{self.song.bass} bass", pitch, 2 * self.sixteenth), at, 0.4 * self.levels["bass"])

    def _play_drums(self, start: float) -> None:
        for kind, (sound, steps) in enumerate(zip(self.drum_kit, self.groove, strict=True)):
            for step in steps:
                at = start + step * self.sixteenth
                if self._sounds("drums", at):
                    self._add(sound, at, self.levels["drums"])
                    self._hit(kind, at)

    def _sounds(self, part: str, at: float) -> bool:
        """Whether a part plays at this time: a build-up adds them one by one, a break takes them away."""
        third = 3 * at / self.song.seconds
        match self.song.structure:
            case "build-up":
                return third >= (1.0 if part == "bass" else 2.0)
            case "break":
                return not 1.0 <= third < 2.0
        return True

    def _note(self, voice: str, pitch: int, seconds: float) -> Samples:
        key = (voice, pitch, seconds)
        if key not in self.notes:
            hertz = 440.0 * 2 ** ((pitch - 69) / 12) * self.tuning
            self.notes[key] = _VOICES[voice](hertz, seconds, self.rate)
        return self.notes[key]

    def _add(self, sound: Samples, at: float, level: float) -> None:
        first = round(self.heard_at(at) * self.rate)
        skipped = max(0, -first)
        part = sound[skipped : skipped + max(0, len(self.mix) - first - skipped)]
        if len(part):
            self.mix[first + skipped : first + skipped + len(part)] += level * part

    def heard_at(self, at: float) -> float:
        """When the band plays what the score puts at this time, in seconds."""
        return at

    def _mark(self, roll: NDArray[np.float32], classes: list[int], at: float, seconds: float) -> None:
        first, last = (max(0, round(t * FRAME_RATE)) for t in (at, at + seconds))
        roll[first:last, classes] = 1.0

    def _hit(self, kind: int, at: float) -> None:
        frame = round(at * FRAME_RATE)
        if 0 <= frame < len(self.score.hits):
            self.score.hits[frame : frame + 2, kind] = 1.0
            if kind == 4:
                self.score.beats.append(at)


def capture(mix: Samples, song: Song, recording: Recording, rate: int) -> Samples:
    """Return what a recording of the song's mix holds: its dynamics, reverb, tilt, noise and level."""
    random = np.random.default_rng((song.seed, 2))
    out = mix * _envelope(song, len(mix))
    if recording.reverb:
        tail = np.arange(int(0.6 * rate)) / rate
        impulse = (random.standard_normal(len(tail)) * np.exp(-tail / 0.15)).astype(np.float32)
        impulse /= np.sqrt(np.sum(impulse**2))
        wet = fftconvolve(out, impulse)[: len(out)].astype(np.float32)
        out = (1 - recording.reverb) * out + recording.reverb * wet
    if recording.tilt > 0:
        out = lfilter([1 - recording.tilt], [1, -recording.tilt], out).astype(np.float32)
    elif recording.tilt < 0:
        out = lfilter([1, recording.tilt], [1], out).astype(np.float32)
    out = out / max(1e-6, float(np.max(np.abs(out))))
    out = out + 10 ** (recording.noise_db / 20) * random.standard_normal(len(out)).astype(np.float32)
    return (np.clip(out, -1, 1) * 10 ** (recording.gain_db / 20)).astype(np.float32)


def _envelope(song: Song, samples: int) -> Samples | float:
    """18 dB from one end to the other, or none."""
    if song.dynamics == "even":
        return 1.0
    ramp = np.linspace(-18, 0, samples, dtype=np.float32)
    return (10 ** ((ramp if song.dynamics == "crescendo" else ramp[::-1]) / 20)).astype(np.float32)


def _partials(hertz: float, seconds: float, rate: int, table: Sequence[tuple[float, float, float]]) -> Samples:
    """Sines of (multiple, level, decay in 1/s), those above hearing or half the rate left out."""
    t = np.arange(int(seconds * rate), dtype=np.float32) / rate
    out = np.zeros_like(t)
    for multiple, level, decay in table:
        if multiple * hertz < min(rate / 2, 16000) * 0.95:
            partial = level * np.sin((2 * np.pi * multiple * hertz) * t)
            out += partial * np.exp(-decay * t) if decay else partial
    return np.asarray(out, np.float32)


def _shape(sound: Samples, rate: int, attack: float, release: float = 0.02) -> Samples:
    """Fade in over ``attack`` and out over ``release`` seconds, so that no note clicks."""
    rise, fall = (min(len(sound), max(1, int(s * rate))) for s in (attack, release))
    sound[:rise] *= np.linspace(0, 1, rise, dtype=np.float32)
    sound[-fall:] *= np.linspace(1, 0, fall, dtype=np.float32)
    return sound


def _flute(hertz: float, seconds: float, rate: int) -> Samples:
    return _shape(_partials(hertz, seconds, rate, [(1, 1, 0), (2, 0.2, 0), (3, 0.06, 0)]), rate, 0.05, 0.03)


def _organ(hertz: float, seconds: float, rate: int) -> Samples:
    bars = [(0.5, 0.5, 0.0), (1, 1, 0), (2, 0.8, 0), (3, 0.5, 0), (4, 0.6, 0), (6, 0.35, 0), (8, 0.4, 0)]
    return _shape(_partials(hertz, seconds, rate, bars), rate, 0.005)


def _bells(hertz: float, seconds: float, rate: int) -> Samples:
    tones = [(1, 1, 2.5), (2.76, 0.5, 6.0), (5.4, 0.3, 12.0), (8.93, 0.15, 20.0)]
    return _shape(_partials(hertz, 3 * seconds, rate, tones), rate, 0.002)  # rings on past its step


def _guitar(hertz: float, seconds: float, rate: int) -> Samples:
    strings = [(k, 1 / k**0.8, 2.0 + 1.2 * k) for k in range(1, 13)]
    return _shape(_partials(hertz, 1.2 * seconds, rate, strings), rate, 0.002)


def _square(hertz: float, seconds: float, rate: int) -> Samples:
    return _shape(_partials(hertz, 0.9 * seconds, rate, [(k, 1 / k, 0) for k in range(1, 30, 2)]), rate, 0.003)


def _brass(hertz: float, seconds: float, rate: int) -> Samples:
    return _shape(_partials(hertz, seconds, rate, [(k, 1 / k, 0) for k in range(1, 16)]), rate, 0.06, 0.05)


def _pad(hertz: float, seconds: float, rate: int) -> Samples:
    return _shape(_partials(hertz, seconds, rate, [(k, 1 / k, 0) for k in range(1, 9)]), rate, 0.15, 0.1)


def _sub_bass(hertz: float, seconds: float, rate: int) -> Samples:
    return _shape(_partials(hertz, seconds, rate, [(1, 1, 0), (2, 0.15, 0)]), rate, 0.01, 0.03)


def _synth_bass(hertz: float, seconds: float, rate: int) -> Samples:
    return _shape(_partials(hertz, seconds, rate, [(k, 0.8 / k**0.7, 0) for k in range(1, 13)]), rate, 0.005)


def _plucked_bass(hertz: float, seconds: float, rate: int) -> Samples:
    strings = [(k, 1 / k**0.6, 3.0 + 3.0 * k) for k in range(1, 11)]
    return _shape(_partials(hertz, seconds, rate, strings), rate, 0.002)


_VOICES = {
    "flute": _flute,
    "organ": _organ,
    "bells": _bells,
    "guitar": _guitar,
    "square": _square,
    "brass": _brass,
    "pad": _pad,
    "sub bass": _sub_bass,
    "synth bass": _synth_bass,
    "plucked bass": _plucked_bass,
}


def _drum_kit(random: np.random.Generator, rate: int) -> tuple[Samples, Samples, Samples]:
    """Kick, snare and hat of one song, each a little other than the next song's."""
    t = np.arange(int(0.3 * rate), dtype=np.float32) / rate
    low, sweep = random.uniform(45, 60), random.uniform(60, 110)
    kick = np.sin(2 * np.pi * (low * t + sweep * 0.03 * (1 - np.exp(-t / 0.03)))) * np.exp(-t / 0.09)
    noise = random.standard_normal((2, len(t))).astype(np.float32)
    body = np.sin(2 * np.pi * random.uniform(170, 220) * t) * np.exp(-t / 0.06)
    snare = 0.35 * noise[0] * np.exp(-t / random.uniform(0.05, 0.09)) + 0.4 * body
    hat = lfilter([1, -0.95], [1], noise[1]) * np.exp(-t / random.uniform(0.015, 0.03))
    return (0.9 * kick).astype(np.float32), snare.astype(np.float32), (0.14 * hat).astype(np.float32)
