"""What we cost beside the engine: start-up, our own milliseconds a track, resuming over a finished library.

    python benchmarks/overhead.py                   all three; the engine is the tiny model on one slot
    python benchmarks/overhead.py --finished 1000   a smaller library

A track's own cost is what is left of its time when the engine's answers and the decoding of its audio are taken
out: scanning, tags, prompts, temporary files, judging, and the sidecar, synced to disk.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from musicflamingo_cli.audio import clip as audio
from musicflamingo_cli.captioning.batch import Dataset, Task, claim_and_caption, count, run_batch, scan
from musicflamingo_cli.captioning.captioner import Captioner, Policy
from musicflamingo_cli.choices import EngineName, Wanted
from musicflamingo_cli.config import Settings
from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.engines import Engine, open_engine
from musicflamingo_cli.engines.observer import UNOBSERVED, Observer
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.paths import built_in_prompts
from musicflamingo_cli.prompts import choose, load_presets
from musicflamingo_cli.types import Answer, Clip, Failure, Outcome, Prompt, Sampling, Summary, Workload

BARE = "import typer; app = typer.Typer(); app.command()(lambda: None); app()"
CAPTION = "A warm, slow track in A minor with a soft piano, brushed drums and an upright bass. " * 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-dir", type=Path)
    parser.add_argument("--tracks", type=int, default=100)
    parser.add_argument("--finished", type=int, default=100_000)
    options = parser.parse_args()
    start_up()
    with tempfile.TemporaryDirectory() as folder:
        own_cost(Path(folder), options.tracks, options.llama_dir)
    with tempfile.TemporaryDirectory() as folder:
        resume(Path(folder), options.finished)


# -- start-up -------------------------------------------------------------------------------------------


def start_up() -> None:
    commands = {
        "a bare Typer program": [sys.executable, "-c", BARE],
        "musicflamingo --version": [sys.executable, "-m", "musicflamingo_cli", "--version"],
        "musicflamingo --help": [sys.executable, "-m", "musicflamingo_cli", "--help"],
    }
    seconds: dict[str, float] = dict.fromkeys(commands, float("inf"))
    for _ in range(10):  # in turns, since the machine's mood changes
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    for name, best in seconds.items():
        print(f"{name}: {best:.2f} s ({best / seconds['a bare Typer program']:.2f} of a bare one)")


# -- own cost -------------------------------------------------------------------------------------------


@dataclass
class TimedEngine:
    """An engine, and the seconds that were spent in it."""

    engine: Engine
    seconds: float = 0.0

    @property
    def name(self) -> str:
        return self.engine.name

    @property
    def provenance(self) -> Mapping[str, str]:
        return self.engine.provenance

    @property
    def slots(self) -> int:
        return self.engine.slots

    def expected_audio_tokens(self, clip: Clip) -> int:
        return self.engine.expected_audio_tokens(clip)

    def describe(
        self,
        clip: Clip,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        observer: Observer = UNOBSERVED,
    ) -> Iterator[Answer | Failure]:
        answers = iter(self.engine.describe(clip, prompts, sampling, observer))
        while True:
            started = time.perf_counter()
            answer = next(answers, None)
            self.seconds += time.perf_counter() - started
            if answer is None:
                return
            yield answer

    def close(self) -> None:
        self.engine.close()


def own_cost(folder: Path, number: int, llama_dir: Path | None) -> None:
    """One track after another, so that nothing hides behind anything."""
    random = np.random.default_rng(1)
    (folder / "music").mkdir()
    for index in range(number):
        soundfile.write(folder / "music" / f"{index:04}.flac", 0.3 * random.uniform(-1, 1, (44_100 * 5, 2)), 44_100)
    model = resolve("tiny", folder / "models")
    presets = choose(load_presets([built_in_prompts()]), [])
    settings = Settings(engine=EngineName.SERVER, slots=1, llama_dir=llama_dir)
    engine = TimedEngine(open_engine(settings, model, Workload(number, len(presets)))[0])
    captioner = Captioner(engine, model, Policy(retries=0))
    decoding = 0.0
    write_clip = audio.write_clip

    def timed_write_clip(*arguments: object, **options: object) -> Clip:
        nonlocal decoding
        started = time.perf_counter()
        clip = write_clip(*arguments, **options)  # type: ignore[arg-type]
        decoding += time.perf_counter() - started
        return clip

    def ask(task: Task) -> Outcome:
        return claim_and_caption(
            lambda task: captioner.caption(task.track, task.presets, task.info, save=True),
            task,
            Selection(wanted=Wanted.ALL),
        )

    audio.write_clip = timed_write_clip
    tasks = [item for item in scan([Dataset(folder / "music", presets)], Selection()) if isinstance(item, Task)]
    captioner.caption(tasks[0].track, presets, {}, save=True)  # the server's start is not a track's cost
    engine.seconds = decoding = 0.0
    summary = Summary()
    started = time.perf_counter()
    for task in scan([Dataset(folder / "music", presets)], Selection(wanted=Wanted.ALL)):
        # One at a time: with two slots of our own they would overlap.
        run_batch([task], ask, lambda: 1, engine.close, lambda outcome: count(summary, outcome))
    total = time.perf_counter() - started
    engine.close()
    audio.write_clip = write_clip
    each, asking, reading = (1000 * seconds / number for seconds in (total, engine.seconds, decoding))
    print(f"{number} tracks of 5 s: {each:.1f} ms each, {asking:.1f} the engine's, {reading:.1f} decoding,", end=" ")
    print(f"{each - asking - reading:.1f} our own ({summary.captioned} whole, {summary.failed} with a refused answer)")


# -- resume ---------------------------------------------------------------------------------------------


def make_library(folder: Path, count: int) -> None:
    """Finished tracks: empty audio files, which nobody opens, and whole sidecars."""
    presets = choose(load_presets([built_in_prompts()]), [])
    info = {f"music_flamingo_{preset.name}": CAPTION for preset in presets} | {"bpm": 120.0, "genres": ["House"]}
    data = json.dumps(info, indent=2)
    for index in range(count):
        artist = folder / f"artist{index // 100:05}"
        if index % 100 == 0:
            artist.mkdir()
        (artist / f"{index:06}.flac").touch()
        (artist / f"{index:06}.INFO").write_text(data)


def resume(folder: Path, count: int) -> None:
    make_library(folder, count)
    command = [sys.executable, "-m", "musicflamingo_cli", "batch", str(folder), "--model", "tiny"]
    started = time.perf_counter()
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert child.stderr
    said = child.stderr.read().strip().splitlines()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    peak = usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)  # Linux counts KiB, macOS bytes
    print(f"resume over {count} finished tracks: {seconds:.1f} s, {peak:.0f} MiB, exit {status >> 8}: {said[-1]}")


if __name__ == "__main__":
    main()
