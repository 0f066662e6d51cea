"""A pool of two real servers of one thread each against one of them, with the tiny model, on two cores.

Beside it what the machine allows: two programs that know nothing of one another, each with a server of its own.

python benchmarks/pool.py [--clips 24] [--seconds 60] [--llama-dir DIR]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import soundfile

from musicflamingo_cli.audio.clip import prepared
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.contract import Engine
from musicflamingo_cli.engines.pool.engine import PoolEngine
from musicflamingo_cli.engines.pool.member import Member
from musicflamingo_cli.engines.server.server import ServerEngine, llama_server
from musicflamingo_cli.models.model import ModelPair
from musicflamingo_cli.models.resolve import resolve_model
from musicflamingo_cli.types import Answer, Prompt, Sampling

PROMPTS = [Prompt(preset=name, text=f"{name}?", max_tokens=64) for name in ("full", "brief")]


def seconds_for(members: int, tracks: list[Path], settings: Settings) -> float:
    """Return how long a pool of so many servers takes; the first clip of each, for which it loads, is left out."""
    model = resolve_model(settings)
    assert isinstance(model, ModelPair)
    opened = partial(ServerEngine, llama_server(settings), settings, model)
    workers: list[Member[Engine]] = [Member(f"s{number}", opened) for number in range(members)]
    pool = PoolEngine(workers, 600)

    def ask(track: Path) -> None:
        with prepared(track) as clip:
            results = list(pool.describe(clip, PROMPTS, Sampling(temperature=0.0)))
        assert all(isinstance(result, Answer) for result in results)

    with ThreadPoolExecutor(members) as threads:
        list(threads.map(ask, tracks[: 2 * members]))
        started = time.monotonic()
        list(threads.map(ask, tracks))
        took = time.monotonic() - started
    pool.close()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=60.0, help="of audio in a clip")
    parser.add_argument("--llama-dir", type=Path)
    given = parser.parse_args()
    settings = Settings(model="tiny", threads=1, llama_dir=given.llama_dir)
    with tempfile.TemporaryDirectory() as folder:
        tracks = [Path(folder) / f"{number}.wav" for number in range(given.clips)]
        for number, track in enumerate(tracks):
            times = np.arange(int(given.seconds * 16_000)) / 16_000
            soundfile.write(track, 0.4 * np.sin(2 * np.pi * (200 + 20 * number) * times), 16_000)
        alone = seconds_for(1, tracks, settings)
        together = seconds_for(2, tracks, settings)
        with ProcessPoolExecutor(2, get_context("spawn")) as programs:
            apart = list(programs.map(partial(seconds_for, 1), [tracks] * 2, [settings] * 2))
    print(f"one server {alone:.1f} s, two {together:.1f} s: {alone / together:.2f} times as fast")
    allowed = 2 * alone / max(apart)
    print(f"two programs apart, all tracks each: {max(apart):.1f} s: the machine allows {allowed:.2f} times")
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
