"""A batch as the live view sees it, without an engine: tracks with realistic times, on a clock of its own.

Run as a program, it draws one moment of a batch in the terminal: ``python -m tests.fakes.watched_batch MOMENT``.
"""

from __future__ import annotations

import heapq
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from musicflamingo_cli.cli.batch_view import BatchView, Heading
from musicflamingo_cli.cli.console import Console
from musicflamingo_cli.cli.live_area import LiveArea
from musicflamingo_cli.cli.symbols import symbols_for
from musicflamingo_cli.engines.observer import Observer, Stage
from musicflamingo_cli.engines.pool.member import MemberState, MemberStatus
from musicflamingo_cli.errors import FailureKind
from musicflamingo_cli.types import Answer, Caption, Failure, Outcome, Prompt, Sampling, Track

BYTES_PER_SECOND = 32_000
PRESETS = ("full", "technical", "genre_mood", "instrumentation", "structure")
ARTISTS = ("Anna & the Organs", "Братья Звук", "A Quartet With a Remarkably Long Name", "東京サウンド", "Nils")
SHORTEST = (
    "A melancholic indie folk song at about 96 BPM in A minor. Fingerpicked acoustic guitar and soft upright bass"
    " support an intimate male vocal; brushed drums and a string pad enter in the second chorus."
)
READY = "ready to go on"
MOMENTS = {"start": 12.0, "middle": 420.0, "late": 900.0, "pool": 420.0, "cluster": 420.0}  # seconds


@dataclass(frozen=True, slots=True)
class Times:
    """What a track costs: seconds before its audio is ready, then ``base + per_second * length``, more or less."""

    preparing: float = 2.0
    base: float = 10.0
    per_second: float = 0.1
    noise: float = 0.2


@dataclass(slots=True)
class WatchedBatch:
    """Tracks of ``lengths`` in seconds, in files of that size, on ``slots`` slots."""

    view: BatchView
    lengths: dict[Path, float]
    slots: int = 4
    times: Times = field(default_factory=Times)
    loading: float = 20.0
    places: Sequence[str] = ()
    now: float = 0.0
    seed: int = 1
    _waiting: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)  # what happens, and when
    _count: int = 0

    def run(self, until: float = float("inf"), on_finished: Callable[[], None] = lambda: None) -> None:
        """Go through what happens until then, on the view's clock."""
        if not self._waiting:
            self._plan_all()
        while self._waiting and self._waiting[0][0] <= until:
            self.now, _, act = heapq.heappop(self._waiting)
            act()
            on_finished()
        if until < float("inf"):
            self.now = until

    def _later(self, when: float, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._waiting, (when, self._count, act))

    def _plan_all(self) -> None:
        chance = random.Random(self.seed)
        free = [self.loading] * self.slots  # when each slot is free
        ends: list[float] = []
        for number, (audio, length) in enumerate(self.lengths.items()):
            slot = min(range(self.slots), key=lambda each: free[each])
            before = free[slot]
            cost = (self.times.base + self.times.per_second * length) * chance.uniform(
                1 - self.times.noise, 1 + self.times.noise
            )
            starts = sorted(ends)[number - self.slots - 1] if number > self.slots else 0.0  # one more than slots
            begins = max(before, starts + self.times.preparing)
            if audio.suffix == ".mp3":  # it cannot be read
                ends.append(starts + self.times.preparing)
                self._plan(audio, length, (starts, begins, ends[-1]), slot)
                continue
            free[slot] = begins + cost
            ends.append(free[slot])
            self._plan(audio, length, (starts, begins, free[slot]), slot)

    def _plan(self, audio: Path, length: float, when: tuple[float, float, float], slot: int) -> None:
        starts, begins, ends = when
        later = self._later
        observers: list[Observer] = []

        def start() -> None:
            observers.append(self.view.starting(audio))
            observers[0].reached(Stage.PREPARING)

        later(starts, start)
        if audio.suffix == ".mp3":
            later(ends, lambda: self._end(audio, 0.0, self.times.preparing))
            return

        def wait() -> None:
            observers[0].answered(0, len(PRESETS))
            observers[0].reached(Stage.WAITING)

        def begin() -> None:
            if self.places:
                observers[0].placed(self.places[slot % len(self.places)])
            observers[0].reached(Stage.HEARING)

        later(starts + self.times.preparing, wait)
        later(begins, begin)
        heard = begins + 0.4 * (ends - begins)
        later(heard, lambda: observers[0].reached(Stage.ANSWERING))
        for number in range(1, len(PRESETS)):
            answered = heard + (ends - heard) * number / len(PRESETS)
            later(answered, lambda number=number: observers[0].answered(number, len(PRESETS)))  # type: ignore[misc]
        later(ends, lambda: self._end(audio, length, ends - starts))

    def _end(self, audio: Path, length: float, seconds: float) -> None:
        captions = tuple(
            Caption(name, SHORTEST * (5 - number), _ANSWER) for number, name in enumerate(PRESETS) if length
        )
        failures = () if length else (Failure("", FailureKind.UNREADABLE_AUDIO, f"{audio.name} is not audio"),)
        self.view.ended(audio)
        self.view.finished(
            Outcome(Track(audio, audio), captions, failures, audio_seconds=length, seconds=seconds, saved=bool(length))
        )


_ANSWER = Answer(Prompt("full", "x", 9), SHORTEST, False, 750, 1.0, Sampling())


def write_tracks(folder: Path, count: int, broken: int = 0, seed: int = 1) -> dict[Path, float]:
    """Write files of the size of tracks between 10 s and 10 min long, and return their lengths in seconds.

    ``broken``: every so many tracks one that is no audio.
    """
    chance = random.Random(seed)
    lengths = {}
    for number in range(count):
        is_broken = broken and number % broken == broken - 1
        path = folder / ARTISTS[number % len(ARTISTS)] / f"{number:03} - A Song{'.mp3' if is_broken else '.wav'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        lengths[path] = chance.uniform(10, 600)
        with path.open("wb") as file:
            file.truncate(int(lengths[path] * BYTES_PER_SECOND))  # without taking space
    return lengths


def sizes_of(lengths: dict[Path, float]) -> dict[str, int]:
    """Return the bytes by file extension, as a plan counts them."""
    sizes: dict[str, int] = {}
    for path in lengths:
        sizes[path.suffix] = sizes.get(path.suffix, 0) + path.stat().st_size
    return sizes


def members_at(moment: str) -> list[MemberStatus]:
    """Return the members of a pool, or the actors of a cluster."""
    if moment == "pool":
        return [
            MemberStatus("GPU 0", MemberState.READY, 2, 2, 12, 41.3),
            MemberStatus("GPU 1", MemberState.RESTING, 0, 2, 3, 9.8),
        ]
    if moment == "cluster":
        nodes = ("rack-1", "rack-1", "rack-2", "rack-2")
        return [
            MemberStatus(f"{node} (actor {number})", MemberState.READY, 1, 1, 4 + number, 14.0)
            for number, node in enumerate(nodes, 1)
        ]
    return []


def main(moments: Sequence[str]) -> None:
    """Draw moments of a batch, each after a line from the terminal; `draw` instead of one draws the last one again."""
    symbols = symbols_for(sys.stderr)
    for moment in moments:
        with tempfile.TemporaryDirectory() as name:
            view, batch = batch_at(moment, Path(name))
            area = LiveArea(sys.stderr, Console().colour)
            console = Console()
            console.info("100 tracks to caption (full 100), 3 complete")
            with area.shown():
                batch.run(MOMENTS[moment] / 2)
                area.draw(view.lines(*area.size, symbols))
                console.warn("server died and is restarted; the end of its log:\nan assertion failed")
                view.device = "" if moment == "start" else "NVIDIA H100 80GB HBM3, 61.3 of 85.0 GB free"
                batch.run(MOMENTS[moment])
                for _ in range(2):  # the second time nothing has changed
                    area.draw(view.lines(*area.size, symbols))
                console.info(READY)
                while sys.stdin.readline() == "draw\n":
                    area.draw(view.lines(*area.size, symbols))
                    console.info(READY)


def batch_at(moment: str, root: Path) -> tuple[BatchView, WatchedBatch]:
    """Return a batch of 100 tracks that has not begun, and its view."""
    lengths = write_tracks(root, 100, broken=9)
    clock: list[WatchedBatch] = []
    view = BatchView(
        total=len(lengths),
        sizes=sizes_of(lengths),
        heading=Heading("server", "music-flamingo-hf.Q6_K.gguf", lambda: 4),
        members=lambda: members_at(moment),
        roots=[root],
        clock=lambda: clock[0].now if clock else 0.0,
    )
    batch = WatchedBatch(view, lengths, places={"pool": ("GPU 0",), "cluster": ("rack-1", "rack-2")}.get(moment, ()))
    clock.append(batch)
    return view, batch


if __name__ == "__main__":
    main(sys.argv[1:])
