"""The contract of an engine: one clip and all its prompts in, answers out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from musicflamingo_cli.engines.observer import UNOBSERVED, Observer
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling


class Engine(Protocol):
    """Answers all prompts about one clip, so that an engine that can process the audio only once does so."""

    @property
    def name(self) -> str:
        """The engine's name, for provenance."""
        ...

    @property
    def provenance(self) -> Mapping[str, str]:
        """What ran the model and how, for a caption's provenance: versions of libraries, the type of numbers, …"""
        ...

    @property
    def slots(self) -> int:
        """How many clips it works on at once; ``describe`` may be called from as many threads."""
        ...

    def expected_audio_tokens(self, clip: Clip) -> int:
        """The audio tokens that a clip makes here; fewer in an answer prove that the model did not get all of it."""
        ...

    def describe(
        self,
        clip: Clip,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        observer: Observer = UNOBSERVED,
    ) -> Iterator[Answer | Failure]:
        """Yield one result for each prompt, in any order, each as soon as it is known.

        A prompt that fails is a Failure among the others. ``observer`` learns, where the engine can say so, when the
        audio is being processed (HEARING) and when the first answer begins (ANSWERING); where it wants text, it gets
        the pieces of the answers as they are made. Raises EngineError for a fault that concerns all prompts.
        """
        ...

    def close(self) -> None:
        """Stop all work, from any thread: clips in progress raise StoppedError, and so does any later one."""
        ...
