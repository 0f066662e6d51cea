"""How long an answer in one slot of `native` waits for other tracks' audio, and what a track costs, for 2 and 4 slots.

    python benchmarks/latency.py                        SmolLM2-135M with a small random encoder, 8 tracks of 59 s

Each track is asked five questions together, which gives the seconds per track; then all tracks are asked one streamed
question as long as those five. A gap is the time between two of its pieces: the longest one of the run is how long a
reader waits while other tracks are heard.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from throughput import make_tracks, smol_pair

from musicflamingo_cli.audio.clip import write_clip
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.native import engine as native
from musicflamingo_cli.engines.observer import TextObserver
from musicflamingo_cli.types import Clip, Prompt, Sampling

GREEDY = Sampling(temperature=0.0, repeat_penalty=1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-dir", type=Path)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=59.0)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--slots", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    native.WORKER = (sys.executable, str(Path(__file__).with_name("never_ending_worker.py")))
    prompts = [Prompt(preset=f"p{n}", text=f"Question {n}?", max_tokens=options.tokens) for n in range(5)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pair = smol_pair(folder)
        tracks = make_tracks(folder, options.files, options.seconds)
        clips = [write_clip(track, track.with_suffix(".clip.wav")) for track in tracks]
        settings = Settings(llama_dir=options.llama_dir, threads=options.threads)
        print("| slots | s per track | median gap, s | longest gap, s |\n|---|---|---|---|")
        for slots in options.slots:
            engine = native.NativeEngine(replace(settings, slots=slots), pair, at_once=slots)
            try:
                list(engine.describe(clips[0], prompts, GREEDY))  # starts the worker
                print(row(engine, clips[1:], prompts, slots), flush=True)
            finally:
                engine.close()


def row(engine: native.NativeEngine, clips: list[Clip], prompts: list[Prompt], slots: int) -> str:
    started = time.monotonic()
    with ThreadPoolExecutor(slots) as pool:
        list(pool.map(lambda clip: list(engine.describe(clip, prompts, GREEDY)), clips))
    seconds = (time.monotonic() - started) / len(clips)
    long = replace(prompts[0], max_tokens=len(prompts) * prompts[0].max_tokens)
    with ThreadPoolExecutor(slots) as pool:
        gaps = [gap for each in pool.map(lambda clip: gaps_of(engine, clip, long), reversed(clips)) for gap in each]
    return f"| {slots} | {seconds:.2f} | {statistics.median(gaps):.2f} | {max(gaps):.2f} |"


def gaps_of(engine: native.NativeEngine, clip: Clip, prompt: Prompt) -> list[float]:
    times: list[float] = []
    observer = TextObserver(lambda piece: times.append(time.monotonic()))
    list(engine.describe(clip, [prompt], GREEDY, observer))
    return [later - earlier for earlier, later in itertools.pairwise(times)]


if __name__ == "__main__":
    main()
