"""Rows of throughput.py that run a checkpoint in transformers: as its documentation shows, and as our engine does.

    python benchmarks/throughput.py --checkpoint small                 random weights in the real proportion
    python benchmarks/throughput.py --checkpoint nvidia/music-flamingo-2601-hf --seconds 180

Each row runs in a process of its own (this file's command line), whose memory is sampled: the largest sum of the
resident memory of that process and its children, and what a GPU's memory in use grew by.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

PLAIN = "plain transformers"
ENGINE = "transformers"
ROWS = f"{PLAIN},{ENGINE} 1,{ENGINE} 2"
_SAMPLE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds from start to end, and the peak of memory in bytes."""

    seconds: float
    memory: int
    gpu_memory: int


def is_transformers(row: str) -> bool:
    """Whether a row is one of this file's."""
    return row == PLAIN or row.partition(" ")[0] == ENGINE


def find_checkpoint(name: str, folder: Path) -> str:
    """The checkpoint that `--checkpoint` means: the name of a size is written into ``folder`` with random weights."""
    from tiny_flamingo.random_checkpoint import SIZES, write_random_checkpoint

    if name not in SIZES:
        return name
    write_random_checkpoint(folder / f"random-{name}", "musicflamingo", size=name)
    return str(folder / f"random-{name}")


def measure(row: str, checkpoint: str, tracks: Sequence[Path], tokens: int, threads: int) -> Measured:
    """Run a row about these tracks in a process of its own. Raises CalledProcessError where it fails."""
    command = [sys.executable, __file__, row, checkpoint, "--tokens", str(tokens), "--threads", str(threads)]
    gpu_before, memory, gpu_memory, started = _gpu_memory(), 0, 0, time.perf_counter()
    with subprocess.Popen([*command, "--tracks", *map(str, tracks)], stdout=sys.stderr) as child:
        while child.poll() is None:
            memory = max(memory, _memory(child.pid))
            gpu_memory = max(gpu_memory, _gpu_memory() - gpu_before)
            time.sleep(_SAMPLE_SECONDS)
    seconds = time.perf_counter() - started
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return Measured(seconds, memory, gpu_memory)


def _memory(pid: int) -> int:
    """The resident memory of a process and its children, in bytes."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
    return total


def _gpu_memory() -> int:
    """The memory in use on the first NVIDIA GPU, in bytes; 0 where there is none."""
    if not shutil.which("nvidia-smi"):
        return 0
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True)
    return int(done.stdout.split()[0]) * 2**20 if done.returncode == 0 else 0


def ask_plainly(checkpoint: str, tracks: Sequence[Path], questions: Sequence[str], tokens: int, threads: int) -> None:
    """What the models' documentation shows: one question after another, each with the whole audio."""
    import soundfile
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoProcessor

    torch.set_num_threads(threads)
    processor = AutoProcessor.from_pretrained(checkpoint)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint).to(device)
    for track in tracks:
        samples, _ = soundfile.read(track, dtype="float32")
        for question in questions:
            content = [{"type": "text", "text": question}, {"type": "audio", "audio": samples}]
            inputs = processor.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=True, add_generation_prompt=True, return_dict=True
            ).to(model.device, model.dtype)
            outputs = model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
            assert outputs.shape[1] == inputs.input_ids.shape[1] + tokens
            processor.batch_decode(outputs[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)


def run_engine(checkpoint: str, tracks: list[Path], slots: int | None, tokens: int, threads: int) -> None:
    """What `batch` does with engine `transformers`, whose worker goes on to the last token of each answer."""
    from workload import batch, presets_of

    from musicflamingo_cli.choices import EngineName
    from musicflamingo_cli.config import Settings
    from musicflamingo_cli.engines.transformers import engine
    from musicflamingo_cli.models.resolve import resolve_model

    engine.WORKER = (*engine.WORKER, "--ignore-end")
    settings = Settings(
        engine=EngineName(ENGINE), model=checkpoint, slots=slots, threads=threads, temperature=0.0, retries=0
    )
    batch(resolve_model(settings), settings, presets_of(tokens), tracks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row")
    parser.add_argument("checkpoint")
    parser.add_argument("--tracks", type=Path, nargs="+", required=True)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=psutil.cpu_count(logical=False) or 1)
    options = parser.parse_args()
    if options.row == PLAIN:
        from workload import presets_of

        questions = [preset.prompt for preset in presets_of(options.tokens)]
        ask_plainly(options.checkpoint, options.tracks, questions, options.tokens, options.threads)
    else:
        slots = options.row.partition(" ")[2]
        run_engine(options.checkpoint, options.tracks, int(slots) if slots else None, options.tokens, options.threads)


if __name__ == "__main__":
    main()
