"""The values that flow from a folder to a summary: Track, Clip, Prompt, Answer, Caption, Failure, Outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from musicflamingo_cli.errors import FailureKind, TrackError

KEY_PREFIX = "music_flamingo_"  # the only keys of a sidecar that are ours
REASONING_SUFFIX = "_reasoning"  # of the key beside a caption's, with what a model that thinks wrote before it

# What the model's encoder takes (whisper's): 16 kHz mono in windows of 30 s, 750 tokens each.
SAMPLE_RATE = 16_000  # Hz
WINDOW_SECONDS = 30
WINDOW_SAMPLES = SAMPLE_RATE * WINDOW_SECONDS  # 480 000
TOKENS_PER_WINDOW = 750  # 25 a second
MAX_SECONDS = 1200.0  # 20 minutes: the longest audio that Music Flamingo was trained on
LONGEST_SECONDS = 1800.0  # 30 minutes: that of any model (Audio Flamingo Next)
MIN_SECONDS = 0.5
_SAMPLES_PER_FRAME = 160  # of the mel spectrogram: 10 ms


@dataclass(frozen=True, slots=True)
class Track:
    """An audio file and the sidecar that it belongs to.

    ``within``: the folder that a sidecar which is a link must lead into; None: the sidecar's own.
    """

    audio: Path
    sidecar: Path
    within: Path | None = field(default=None, compare=False)

    def absolute(self) -> Track:
        """Return the track with absolute paths, which mean the same in every process."""
        within = None if self.within is None else self.within.absolute()
        return Track(self.audio.absolute(), self.sidecar.absolute(), within)


@dataclass(frozen=True, slots=True)
class Skipped:
    """An audio file that is not captioned, and the reason. ``failed``: somebody should look at it."""

    path: Path
    reason: str
    failed: bool = False
    kind: FailureKind = FailureKind.SKIPPED


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Which part of a track the model gets: after ``start`` s, ``fraction`` of the rest, at most ``max_seconds``.

    Tracks shorter than ``min_seconds`` are refused.
    """

    start: float = 0.0
    fraction: float = 1.0
    max_seconds: float = MAX_SECONDS
    min_seconds: float = MIN_SECONDS

    @property
    def needs_length(self) -> bool:
        """Whether the track's length must be known before reading it."""
        return self.fraction < 1 or self.start + self.max_seconds < self.min_seconds

    def samples(self, source_seconds: float | None) -> tuple[int, int]:
        """Return how many 16 kHz samples to skip first, and how many to keep at most.

        ``source_seconds`` is the track's length; one that is not known counts as very long.
        """
        left = max(0.0, source_seconds - self.start) if source_seconds else self.max_seconds / self.fraction
        seconds = min(self.max_seconds, left * self.fraction if self.fraction < 1 else self.max_seconds)
        return int(self.start * SAMPLE_RATE), int(seconds * SAMPLE_RATE)


class Windows(StrEnum):
    """How an engine treats a clip's last window of 30 s, which its audio rarely fills.

    PADDED: the rest is silence that makes tokens, too (llama.cpp as released). TRIMMED: only audio makes tokens (the
    published processor, and llama.cpp with our patch).
    """

    PADDED = "padded"
    TRIMMED = "trimmed"


@dataclass(frozen=True, slots=True)
class Clip:
    """What an engine gets: a temporary mono 16 kHz WAV file.

    ``samples`` counts 16 kHz samples. ``source_seconds`` is the length of the whole track, None where it is not known
    because reading stopped at the limit. ``start`` is where in the track the clip begins, in seconds. ``channel``: the
    only channel in it, counted from 1, where all together cancel out; else None. ``source``: the identity of the audio
    file (see ``system.identity``). ``also``: clips that the model gets after this one, in the same prompt (a
    conversation about several tracks).
    """

    path: Path
    samples: int
    source_seconds: float | None
    was_cut: bool
    start: float = 0.0
    channel: int | None = None
    source: Mapping[str, Any] | None = None
    also: tuple[Clip, ...] = ()

    @property
    def all(self) -> tuple[Clip, ...]:
        """This clip and those after it; none where there is no audio."""
        return (self, *self.also) if self.samples else ()

    @property
    def seconds(self) -> float:
        """The clip's length in seconds."""
        return self.samples / SAMPLE_RATE

    def audio_tokens(self, windows: Windows) -> int:
        """Return how many audio tokens all clips make in an engine that treats windows so."""
        return self.trimmed_tokens if windows == Windows.TRIMMED else self.padded_tokens

    @property
    def padded_tokens(self) -> int:
        """With padded windows: 750 for every window begun, in all clips."""
        return sum(-(-clip.samples // WINDOW_SAMPLES) * TOKENS_PER_WINDOW for clip in self.all)

    @property
    def trimmed_tokens(self) -> int:
        """With trimmed windows: 25 for every second, in all clips."""
        return sum(trimmed_tokens(clip.samples) for clip in self.all)


NO_AUDIO = Clip(path=Path(), samples=0, source_seconds=None, was_cut=False)  # of a conversation in words only


def trimmed_tokens(samples: int) -> int:
    """Return the audio tokens of so many samples with trimmed windows.

    The sum over the windows of what the encoder's second convolution and its pooling leave of the mel frames.

    Source: AudioFlamingo3Processor, which expands the audio placeholder by as many tokens.
    """
    whole, rest = divmod(samples, WINDOW_SAMPLES)
    frames = -(-rest // _SAMPLES_PER_FRAME)
    return whole * TOKENS_PER_WINDOW + ((((frames - 1) // 2 + 1) - 2) // 2 + 1 if rest else 0)


@dataclass(frozen=True, slots=True)
class Turn:
    """A question of a conversation that was answered. ``answer_tokens``: see Answer."""

    question: str
    answer: str
    answer_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question with its variables filled in. ``template_hash`` identifies the text before they were.

    ``history``: what was asked and answered before it, in a conversation about the same audio. ``room``: the tokens
    after the audio that such a conversation may need, for an engine whose context cannot grow without a restart.
    ``schema``: a JSON schema (see ``text.schema``), as JSON, that the answer is to follow; empty: an answer in prose.
    """

    preset: str
    text: str
    max_tokens: int
    system: str = ""
    min_words: int = 3
    lines: bool = False  # an answer in lines (lyrics), where repetition is no fault
    template_hash: str = ""
    history: tuple[Turn, ...] = ()
    room: int = 0
    schema: str = ""


_RETRY_REPEAT_PENALTY = 1.1


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are sampled; names and meanings are llama.cpp's."""

    temperature: float = 0.7
    top_p: float = 0.9
    repeat_penalty: float = 1.05  # 1 to 2 % of answers loop without one
    seed: int = 42

    def for_retry(self, attempt: int) -> Sampling:
        """Return the sampling of the ``attempt``-th retry of a refused answer (0: the first try).

        Another seed cures most loops, a higher penalty those at temperature 0, where a seed changes nothing.
        """
        if attempt == 0:
            return self
        return replace(self, seed=self.seed + attempt, repeat_penalty=max(self.repeat_penalty, _RETRY_REPEAT_PENALTY))


@dataclass(frozen=True, slots=True)
class Workload:
    """What an engine is opened for: how many tracks, how many prompts each, how many tracks at once at most.

    ``is_conversation``: later prompts follow up on earlier ones.
    """

    tracks: int
    prompts: int
    at_once: int = 1
    is_conversation: bool = False

    @property
    def is_single(self) -> bool:
        """Whether it is one prompt about one track, where nothing can be shared."""
        return self.tracks == 1 and self.prompts == 1


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's answer to one prompt.

    ``hit_limit``: it ended at ``max_tokens``, not by itself. ``audio_tokens``: how many the engine says that it
    decoded, None where it does not say. ``answer_tokens``: how many tokens the answer has, None where the engine does
    not say.

    Where one engine stands for several (a pool, an endpoint), ``provenance`` says which of them made it, and
    ``expected_audio_tokens`` how many tokens that one makes of the clip.
    """

    prompt: Prompt
    text: str
    hit_limit: bool
    audio_tokens: int | None
    seconds: float
    sampling: Sampling
    answer_tokens: int | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    expected_audio_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Caption:
    """An answer that was cleaned and accepted. ``reasoning``: what a model that thinks wrote before its answer."""

    preset: str
    text: str
    answer: Answer
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no caption for a preset (or, where ``preset`` is empty, for the whole track), and what to do."""

    preset: str
    kind: FailureKind
    reason: str
    hint: str = ""

    @classmethod
    def for_track(cls, error: TrackError) -> Failure:
        """Return the failure of a whole track."""
        return cls.for_preset("", error)

    @classmethod
    def for_preset(cls, preset: str, error: TrackError) -> Failure:
        """Return the failure of one preset."""
        return cls(preset=preset, kind=error.kind, reason=str(error), hint=error.hint)

    def line(self, audio: Path) -> str:
        """Return one line for a person: file, preset, reason, hint.

        Bytes of the name that are not UTF-8 are replaced, so that any log handler can write the line.
        """
        preset = f" [{self.preset}]" if self.preset else ""
        line = f"{audio}{preset}: {self.reason}" + (f" - {self.hint}" if self.hint else "")
        return line.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


# Why a track is skipped.
COMPLETE = "complete"  # it has all its captions
OTHER_AUDIO = "its captions are of an earlier audio file"  # a note: it is complete all the same
TOO_SHORT = "too short"  # counted, not listed
OTHER_SEGMENTS = "its segments are of an earlier audio file (cut it again with --stale)"
WOULD_BE_LOST = "cutting it again would lose the captions of its segments for"
CUT_OTHERWISE = "it has segments that were cut in another way (cut them again with --stale)"


@dataclass(frozen=True, slots=True)
class CaptionedSegment:
    """A segment of a track, from ``start`` to ``end`` (seconds), and the captions that it got."""

    start: float
    end: float
    captions: tuple[Caption, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result for one track. ``saved``: its captions are in the sidecar on disk.

    ``segments``: those that were captioned, where a run captions segments instead of whole tracks.
    ``keys``: what is still to be merged into the sidecar; ``replaces_edited``: also over what a person edited.
    """

    track: Track
    captions: tuple[Caption, ...] = ()
    failures: tuple[Failure, ...] = ()
    skipped: str = ""
    notes: tuple[str, ...] = ()
    audio_seconds: float = 0.0
    seconds: float = 0.0
    saved: bool = False
    keys: Mapping[str, Any] = field(default_factory=dict, repr=False)
    replaces_edited: bool = False
    segments: tuple[CaptionedSegment, ...] = ()

    @property
    def presets(self) -> list[str]:
        """The presets that have got captions, of the track or of one of its segments."""
        found = [*self.captions, *(caption for segment in self.segments for caption in segment.captions)]
        return list(dict.fromkeys(caption.preset for caption in found))

    @property
    def was_interrupted(self) -> bool:
        """Whether the only thing wrong with it is that the run was stopped."""
        return bool(self.failures) and all(failure.kind == FailureKind.INTERRUPTED for failure in self.failures)


@dataclass(slots=True)
class Summary:
    """Counts over a batch; the one mutable type, since it grows with every outcome."""

    captioned: int = 0
    complete: int = 0
    failed: int = 0
    skipped: int = 0
    too_short: int = 0  # of those skipped
    interrupted: int = 0  # in progress when the run was interrupted; finished answers are saved
    audio_seconds: float = 0.0
    failures: list[tuple[Path, Failure]] = field(default_factory=list)
    failures_unlisted: int = 0
