"""What many members cost: the real batch and pool over simulated engines, which wait instead of computing.

    python benchmarks/scale.py [--members 10 100 1000] [--tracks 100] [--seconds 4] [--losses 0.01] [--slow 0.1]

Efficiency is the time that the members would need without losses and without waiting for one another, divided by the
time that it took. Clips take different times (--spread), as tracks have different lengths. A tenth of the members
(--slow) is half as fast; each clip makes its member fail with the probability --losses, half way through, and is done
again by another one.
"""

from __future__ import annotations

import argparse
import logging
import random
import resource
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from musicflamingo_cli.captioning.batch import Dataset
from musicflamingo_cli.captioning.retries import RetryingBatch
from musicflamingo_cli.captioning.worker_pool import SlotGate
from musicflamingo_cli.choices import Wanted
from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.engines.contract import Engine
from musicflamingo_cli.engines.observer import UNOBSERVED, Observer
from musicflamingo_cli.engines.pool.engine import PoolEngine
from musicflamingo_cli.engines.pool.member import Member
from musicflamingo_cli.errors import EngineError
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.types import Answer, Caption, Clip, Failure, Outcome, Prompt, Sampling, Track

PROMPT = Prompt(preset="full", text="x", max_tokens=9)


@dataclass(frozen=True, slots=True)
class Simulation:
    """``tracks``: for each member. ``seconds``: of a clip, for a member of full speed. ``losses``, ``slow``: shares.

    ``spread``: by which share of ``seconds`` a clip may take more or less.
    """

    members: int
    tracks: int
    seconds: float
    losses: float = 0.0
    slow: float = 0.0
    spread: float = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """``cost``: processor time of the program for each track, in seconds; ``grown``: peak memory, in bytes."""

    done: Counter[str]
    failed: int
    seconds: float
    efficiency: float
    cost: float
    grown: int


class SimulatedEngine:
    """Takes ``seconds`` for a clip, more or less by the share ``spread``; loses some."""

    name = "simulated"
    provenance: ClassVar[dict[str, str]] = {}
    slots = 1

    def __init__(self, seconds: float, losses: float, spread: float, seed: int) -> None:
        self._seconds = seconds
        self._spread = spread
        self._losses = losses
        self._random = random.Random(seed)
        self._closed = threading.Event()

    def expected_audio_tokens(self, clip: Clip) -> int:
        return clip.padded_tokens

    def describe(
        self,
        clip: Clip,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        observer: Observer = UNOBSERVED,
    ) -> Iterator[Answer | Failure]:
        seconds = self._seconds * self._random.uniform(1 - self._spread, 1 + self._spread)
        if self._random.random() < self._losses:
            self._closed.wait(seconds / 2)
            raise EngineError("simulated loss")
        self._closed.wait(seconds)
        for prompt in prompts:
            yield Answer(
                prompt=prompt,
                text="A warm track.",
                hit_limit=False,
                audio_tokens=clip.padded_tokens,
                seconds=seconds,
                sampling=sampling,
            )

    def close(self) -> None:
        self._closed.set()


class SimulatedCaptioner:
    """What a batch needs of a captioner, without audio: see ``retries.TrackCaptioner``."""

    def __init__(self, pool: PoolEngine) -> None:
        self._pool = pool
        self._gate = SlotGate(lambda: pool.slots)

    @property
    def slots(self) -> int:
        return self._pool.slots

    def caption(
        self,
        track: Track,
        presets: Sequence[Preset],
        info: Mapping[str, Any],
        *,
        save: bool,
        observer: Observer = UNOBSERVED,
    ) -> Outcome:
        clip = Clip(path=track.audio, samples=16_000, source_seconds=1.0, was_cut=False)
        try:
            with self._gate:
                results = list(self._pool.describe(clip, [PROMPT], Sampling()))
        except EngineError as error:
            return Outcome(track, failures=(Failure.for_track(error),))
        captions = tuple(Caption(each.prompt.preset, each.text, each) for each in results if isinstance(each, Answer))
        return Outcome(track, captions, tuple(each for each in results if isinstance(each, Failure)))

    def close(self) -> None:
        self._pool.close()


class Counting:
    """Follows a batch; counts what is settled."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.failed = 0

    def starting(self, audio: Path) -> Observer:
        return UNOBSERVED

    def ended(self, audio: Path) -> None:
        """Nothing to show."""

    def settled(self, outcome: Outcome) -> None:
        self.done[outcome.track.audio.name] += 1
        self.failed += bool(outcome.failures)


def simulate(given: Simulation, folder: Path) -> Result:
    """Run a batch over empty files in ``folder``."""
    tracks = given.members * given.tracks
    for number in range(tracks):
        (folder / f"{number:07}.wav").touch()
    slow = round(given.members * given.slow)
    seconds = [given.seconds * (2 if number < slow else 1) for number in range(given.members)]
    engines = [SimulatedEngine(each, given.losses, given.spread, seed) for seed, each in enumerate(seconds)]
    members: list[Member[Engine]] = [Member(f"m{n}", lambda: engines[0], each) for n, each in enumerate(engines)]
    captioner = SimulatedCaptioner(PoolEngine(members, 600.0))
    watcher = Counting()
    batch = RetryingBatch([Dataset(folder, (Preset("full", "x"),))], captioner, watcher, keep_going=True)
    before, started, cpu = _peak(), time.monotonic(), time.process_time()
    batch.run(Selection(wanted=Wanted.ALL, save=False))
    took, used = time.monotonic() - started, time.process_time() - cpu
    captioner.close()
    ideal = tracks / sum(1 / each for each in seconds)
    return Result(
        done=watcher.done,
        failed=watcher.failed,
        seconds=took,
        efficiency=ideal / took,
        cost=used / tracks,
        grown=_peak() - before,
    )


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--tracks", type=int, default=100, help="for each member")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a clip; 3.6: 1,000 an hour")
    parser.add_argument("--losses", type=float, default=0.01)
    parser.add_argument("--slow", type=float, default=0.1)
    parser.add_argument("--spread", type=float, default=0.3)
    given = parser.parse_args()
    logging.disable(logging.WARNING)  # a line for each loss
    print("| members | tracks | time | efficiency | failed | own processor time a track | memory grew by |")
    print("|---|---|---|---|---|---|---|")
    for count in given.members:
        simulation = Simulation(count, given.tracks, given.seconds, given.losses, given.slow, given.spread)
        with tempfile.TemporaryDirectory() as folder:
            found = simulate(simulation, Path(folder))
        assert set(found.done.values()) == {1}
        assert len(found.done) == count * given.tracks
        print(
            f"| {count} | {len(found.done)} | {found.seconds:.0f} s | {found.efficiency:.3f} | {found.failed} |"
            f" {found.cost * 1000:.2f} ms | {found.grown >> 20} MiB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
