"""Engines for pools: they wait instead of computing, and die, hang or come back on command."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from musicflamingo_cli.engines.observer import UNOBSERVED, Observer
from musicflamingo_cli.errors import EngineError, StoppedError
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling

PROMPTS = [Prompt(preset=name, text=name, max_tokens=9) for name in ("full", "brief")]


def clip(number: int) -> Clip:
    return Clip(path=Path(f"/clips/{number}.wav"), samples=16_000, source_seconds=1.0, was_cut=False)


class WaitingEngine:
    """Waits ``seconds`` for each clip. ``fault(clip)`` may raise, or hang by waiting for ``closed``."""

    name = "waiting"
    provenance: ClassVar[dict[str, str]] = {}

    def __init__(
        self, seconds: float = 0.0, slots: int = 1, fault: Callable[[WaitingEngine, Clip], None] | None = None
    ) -> None:
        self.seconds = seconds
        self.slots = slots
        self.fault = fault
        self.closed = threading.Event()
        self.answered: Counter[str] = Counter()  # clips
        self.most = self._now = 0  # clips at once
        self._lock = threading.Lock()

    def expected_audio_tokens(self, clip: Clip) -> int:
        return clip.padded_tokens

    def describe(
        self,
        clip: Clip,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        observer: Observer = UNOBSERVED,
    ) -> Iterator[Answer | Failure]:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            for number, prompt in enumerate(prompts):
                if number == len(prompts) - 1 and self.fault:
                    self.fault(self, clip)
                if self.closed.wait(self.seconds / len(prompts)):
                    raise StoppedError("stopped")
                yield Answer(
                    prompt=prompt,
                    text="A warm track with soft drums. It moves slowly.",
                    hit_limit=False,
                    audio_tokens=clip.padded_tokens,
                    seconds=self.seconds,
                    sampling=sampling,
                )
            self.answered[clip.path.name] += 1
        finally:
            with self._lock:
                self._now -= 1

    def close(self) -> None:
        self.closed.set()


class PingedEngine(WaitingEngine):
    """Its ping fails while ``is_down``, and so does each clip."""

    def __init__(self, seconds: float = 0.0, slots: int = 1) -> None:
        super().__init__(seconds, slots, fault=PingedEngine._refuse)
        self.is_down = False
        self.pings: list[float] = []

    @staticmethod
    def _refuse(engine: WaitingEngine, clip: Clip) -> None:
        if isinstance(engine, PingedEngine) and engine.is_down:
            raise EngineError("connection refused")

    def ping(self) -> None:
        self.pings.append(time.monotonic())
        if self.is_down:
            raise EngineError("connection refused")
