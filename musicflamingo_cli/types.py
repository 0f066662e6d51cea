"""The values that flow from a folder to a summary: Track, Clip, Prompt, Answer, Caption, Failure, Outcome."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

INTERRUPTED = "interrupted"  # the kind of failure that says nothing about a track
KEY_PREFIX = "music_flamingo_"  # the only keys of a sidecar that are ours

# What the model's encoder hears (whisper's): 16 kHz mono in windows of 30 s, 750 tokens each.
SAMPLE_RATE = 16_000  # Hz
WINDOW_SECONDS = 30
WINDOW_SAMPLES = SAMPLE_RATE * WINDOW_SECONDS  # 480 000
TOKENS_PER_WINDOW = 750  # 25 a second


@dataclass(frozen=True, slots=True)
class Track:
    """An audio file and the sidecar that it belongs to."""

    audio: Path
    sidecar: Path


@dataclass(frozen=True, slots=True)
class Skipped:
    """An audio file that is not captioned, and why. ``failed`` where somebody should look at it."""

    path: Path
    reason: str
    failed: bool = False
    kind: str = "skipped"


@dataclass(frozen=True, slots=True)
class Clip:
    """What an engine hears: a mono 16 kHz WAV file of ours.

    ``samples`` counts 16 kHz samples; ``source_seconds`` is the length of the whole track, or None where
    that is not known because reading stopped at the limit. ``start``: where in the track it begins, in seconds.
    """

    path: Path
    samples: int
    source_seconds: float | None
    was_cut: bool
    start: float = 0.0

    @property
    def seconds(self) -> float:
        return self.samples / SAMPLE_RATE

    @property
    def audio_tokens(self) -> int:
        """The tokens that the encoder makes of it: 750 for every window begun."""
        return -(-self.samples // WINDOW_SAMPLES) * TOKENS_PER_WINDOW


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question with its variables filled in. ``template_hash`` names the text before they were."""

    preset: str
    text: str
    max_tokens: int
    system: str = ""
    min_words: int = 3
    lines: bool = False  # an answer in lines (lyrics), whose repetition is no loop
    template_hash: str = ""


_RETRY_REPEAT_PENALTY = 1.1


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn; names and meanings are llama.cpp's."""

    temperature: float = 0.7
    top_p: float = 0.9
    repeat_penalty: float = 1.05  # 1 to 2 % of answers loop without one
    seed: int = 42

    def again(self, attempt: int) -> Sampling:
        """How a refused answer is asked for the ``attempt``-th time again (0: not yet).

        Another seed cures most loops, a higher penalty those at temperature 0, where a seed changes nothing.
        """
        if attempt == 0:
            return self
        return replace(self, seed=self.seed + attempt, repeat_penalty=max(self.repeat_penalty, _RETRY_REPEAT_PENALTY))


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine is opened for. ``at_once``: no more tracks than that will be asked about together."""

    tracks: int
    prompts: int  # about each
    at_once: int = 1

    @property
    def is_single(self) -> bool:
        return self.tracks == 1 and self.prompts == 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said to one prompt.

    ``hit_limit``: it stopped because of ``max_tokens``, not because it was done. ``audio_tokens`` is what
    the engine's own log says was heard, None where it does not say.
    """

    prompt: Prompt
    text: str
    hit_limit: bool
    audio_tokens: int | None
    seconds: float
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Caption:
    """An answer that was cleaned and accepted."""

    preset: str
    text: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class Failure:
    """No caption for a preset (or, where ``preset`` is empty, for the whole track): why, and what to do."""

    preset: str
    kind: str
    reason: str
    hint: str = ""


COMPLETE = "complete"  # why a track was skipped that has all its captions


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a track. ``saved``: its captions are in the sidecar on disk."""

    track: Track
    captions: tuple[Caption, ...] = ()
    failures: tuple[Failure, ...] = ()
    skipped: str = ""
    notes: tuple[str, ...] = ()
    audio_seconds: float = 0.0
    seconds: float = 0.0
    saved: bool = False

    @property
    def was_interrupted(self) -> bool:
        """Whether nothing else is wrong with it than that the run was stopped."""
        return bool(self.failures) and all(failure.kind == INTERRUPTED for failure in self.failures)


@dataclass(slots=True)
class Summary:
    """Counts over a batch; the one mutable type, since it grows with every outcome."""

    captioned: int = 0
    complete: int = 0
    failed: int = 0
    skipped: int = 0
    interrupted: int = 0  # in work when the run was; what was answered is saved
    audio_seconds: float = 0.0
    failures: list[tuple[Path, Failure]] = field(default_factory=list)
    failures_unlisted: int = 0
