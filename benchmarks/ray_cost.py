"""What Ray costs: the real batch and the real driver over actors that answer at once.

    python benchmarks/ray_cost.py [--tracks 2000] [--actors 4]

Prints the time that a track takes beyond the (empty) work of its actor, and how much the driver's memory grows.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from musicflamingo_cli.captioning.batch import Task, run_batch
from musicflamingo_cli.choices import Writer
from musicflamingo_cli.cluster.actor import Reply, SentTrack, Status
from musicflamingo_cli.cluster.captioner import ClusterCaptioner
from musicflamingo_cli.cluster.plan import ClusterPlan, Facts, Work
from musicflamingo_cli.cluster.session import session
from musicflamingo_cli.cluster.worker import ActorWorker
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.pool.member import Member
from musicflamingo_cli.models.model import ModelPair
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.types import Answer, Caption, Outcome, Prompt, Sampling, Track

FACTS = Facts("0", "3", "none")
PRESETS = (Preset("full", "x"),)
TEXT = "A warm track with soft drums. " * 20


class EmptyActor:
    """Answers at once; see ``CaptionActor``."""

    def __init__(self, work: Work) -> None:
        """Nothing is loaded."""

    def status(self) -> Status:
        return Status(node="here", slots=1, engine="empty", facts=FACTS, sees=True, records=[])

    def process(self) -> int:
        return os.getpid()

    def caption(
        self,
        track: Track,
        presets: Sequence[Preset],
        info: Mapping[str, Any],
        writes: bool,
        sent: SentTrack | None = None,
    ) -> Reply:
        answer = Answer(
            prompt=Prompt(preset="full", text="x", max_tokens=9),
            text=TEXT,
            hit_limit=False,
            audio_tokens=750,
            seconds=0.0,
            sampling=Sampling(),
        )
        return Reply(Outcome(track, (Caption("full", TEXT, answer),)), [])

    def stop(self) -> None:
        """Nothing is in progress."""


def tasks(count: int) -> Iterator[Task]:
    for number in range(count):
        track = Track(Path(f"/music/{number}.wav"), Path(f"/music/{number}.INFO"))
        yield Task(track=track, presets=PRESETS, info={}, all_presets=PRESETS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=int, default=2000)
    parser.add_argument("--actors", type=int, default=4)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    work = Work(settings=Settings(), prompts=1, overwrite=False, probes=())
    model = ModelPair(language_model=Path("x"), projector=Path("y"), context_length=1, is_tiny=True)
    with session(ClusterPlan()) as ray:
        members = []
        for number in range(given.actors):
            worker = partial(ActorWorker, ray, work, {"num_cpus": 0, "num_gpus": 0}, FACTS, EmptyActor)
            member = Member(f"actor {number}", worker)
            member.start_later()
            members.append(member)
        captioner = ClusterCaptioner(members, model, Writer.DRIVER)
        captioner.wait_for_one()
        time.sleep(5)
        captions = 0

        def done(outcome: Outcome) -> None:
            nonlocal captions
            captions += len(outcome.captions)

        def caption(task: Task) -> Outcome:
            return captioner.caption(task.track, task.presets, task.info, save=False)

        run_batch(tasks(200), caption, lambda: captioner.slots, captioner.close, done)
        count = given.tracks // 4
        for part in range(4):  # memory that grows with the tracks would grow in each part
            before, started, cpu = _peak(), time.monotonic(), time.process_time()
            run_batch(tasks(count), caption, lambda: captioner.slots, captioner.close, done)
            took, used = (time.monotonic() - started) / count, (time.process_time() - cpu) / count
            print(
                f"part {part + 1}: {count} tracks, {took * 1000:.2f} ms a track"
                f" ({used * 1000:.2f} ms of the driver's processor time);"
                f" memory {_peak() >> 20} MiB, grew by {(_peak() - before) / (1 << 20):.1f} MiB",
                flush=True,
            )
        assert captions == 200 + 4 * count
        captioner.close()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


if __name__ == "__main__":
    main()
