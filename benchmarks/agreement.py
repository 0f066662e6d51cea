"""How often each engine gives the answer that the published processor and model give in transformers.

    python benchmarks/agreement.py                          200 clips of 1 to 100 s, three questions each
    python benchmarks/agreement.py --unpatched-dir DIR      also a llama.cpp that was built with --no-patches

The tiny model answers, greedily, one question at a time. The reference is the same weights in float32, asked as the
documentation of Music Flamingo shows. The clips are songs that it was not trained on, one after another; in every third
clip, windows of 30 s are loud and quiet (-40 dB) by turns. For each answer that differs, its last column is the gap
between the logits of the two candidates where the answers first differ, in the reference: a small one is a near-tie,
which another order of sums decides.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from musicflamingo_cli.audio.clip import write_clip
from musicflamingo_cli.choices import EngineName
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines import Engine, open_engine
from musicflamingo_cli.llamacpp import binaries
from musicflamingo_cli.models.model import TINY, Model, ModelPair
from musicflamingo_cli.models.resolve import resolve, resolve_model
from musicflamingo_cli.models.tiny_checkpoint import write_checkpoint
from musicflamingo_cli.paths import built_in_prompts
from musicflamingo_cli.prompts import read_presets
from musicflamingo_cli.types import SAMPLE_RATE, WINDOW_SAMPLES, Answer, Clip, Prompt, Sampling, Workload
from tiny_flamingo import music
from tiny_flamingo.in_transformers import InTransformers

GREEDY = Sampling(temperature=0.0, repeat_penalty=1.0)
QUESTIONS = ("technical", "instrumentation", "structure")
LLAMA_CPP = ("mtmd-cli", "server", "native")
ROWS = (*LLAMA_CPP, "embedded", "transformers")
UNPATCHED = "unpatched "
FIRST_SEED = 3_000_000  # songs before ten million were not trained on
SHORTEST, LONGEST = 1.0, 100.0  # seconds
QUIET = 0.01  # -40 dB


@dataclass(frozen=True, slots=True)
class Difference:
    """An answer that differs from the reference's; ``gap``: see InTransformers.gap."""

    clip: Clip
    question: str
    reference: str
    answer: str
    gap: float


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pair = resolve(TINY, Path())
        assert isinstance(pair, ModelPair)
        if options.float32:
            pair = widened(pair, folder, options.llama_dir)
        write_checkpoint(pair.language_model, pair.projector, folder / "checkpoint")
        reference = InTransformers(folder / "checkpoint", options.threads)
        prompts = questions(options.tokens)
        differences: dict[str, list[Difference]] = {}
        with contextlib.ExitStack() as stack:
            engines = {
                row: stack.enter_context(contextlib.closing(opened(row, options, pair, folder / "checkpoint")))
                for row in options.rows
            }
            for number in range(options.first, options.first + options.clips):
                clip = make_clip(folder, number)
                for row, difference in compare(reference, engines, clip, prompts):
                    differences.setdefault(row, []).append(difference)
                    print(shown(row, number, difference), flush=True)
    report(options, differences)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the number of the first clip")
    parser.add_argument("--tokens", type=int, default=200, help="of an answer, at most")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--float32", action="store_true", help="the language model's weights in float32, not in 8 bits")
    parser.add_argument("--llama-dir", type=Path, help="the build of the rows mtmd-cli, server and native")
    parser.add_argument("--unpatched-dir", type=Path, help="another build: a second row for each of them")
    parser.add_argument("--rows", help=f"the default: {','.join(ROWS)}, and with --unpatched-dir what it adds")
    options = parser.parse_args()
    unpatched = [UNPATCHED + row for row in LLAMA_CPP] if options.unpatched_dir else []
    options.rows = options.rows.split(",") if options.rows else [*ROWS, *unpatched]
    return options


def widened(pair: ModelPair, folder: Path, llama_dir: Path | None) -> ModelPair:
    """The pair with its language model in float32: the same values, but llama.cpp rounds nothing to 8 bits."""
    quantize = binaries.find("llama-quantize", llama_dir)
    model = folder / "float32.gguf"
    command = [str(quantize), "--allow-requantize", str(pair.language_model), str(model), "F32"]
    subprocess.run(command, check=True, capture_output=True)
    pair = resolve(str(model), folder, pair.projector)
    assert isinstance(pair, ModelPair)
    return pair


def questions(tokens: int) -> list[Prompt]:
    presets = read_presets(built_in_prompts())
    return [replace(presets[name].render({}), max_tokens=tokens) for name in QUESTIONS]


def opened(row: str, options: argparse.Namespace, pair: Model, checkpoint: Path) -> Engine:
    """The engine of a row."""
    name = EngineName(row.removeprefix(UNPATCHED))
    llama_dir = options.unpatched_dir if row.startswith(UNPATCHED) else options.llama_dir
    settings = Settings(engine=name, llama_dir=llama_dir, threads=options.threads, model=str(checkpoint))
    model = resolve_model(settings) if name == EngineName.TRANSFORMERS else pair
    engine, _ = open_engine(settings, model, Workload(options.clips, len(QUESTIONS)))
    return engine


def make_clip(folder: Path, number: int) -> Clip:
    """Songs one after another, as long as this clip's number says: anything from 1 to 100 s."""
    random = np.random.default_rng((FIRST_SEED, number))
    length = int(random.uniform(SHORTEST, LONGEST) * SAMPLE_RATE)
    samples = np.concatenate(list(songs(FIRST_SEED + 10 * number, length)))[:length]
    if number % 3 == 2:
        for start in range(WINDOW_SAMPLES * (number % 2), length, 2 * WINDOW_SAMPLES):
            samples[start : start + WINDOW_SAMPLES] *= QUIET
    soundfile.write(folder / "track.wav", samples, SAMPLE_RATE, subtype="FLOAT")
    return write_clip(folder / "track.wav", folder / "clip.wav")


def songs(seed: int, length: int) -> Iterator[NDArray[np.float32]]:
    """The samples of one song after another, until they are as many as ``length``."""
    while length > 0:
        samples, _ = music.render(music.random_song(seed), music.random_recording(seed), SAMPLE_RATE)
        yield samples.astype(np.float32)
        seed, length = seed + 1, length - len(samples)


def compare(
    reference: InTransformers, engines: dict[str, Engine], clip: Clip, prompts: list[Prompt]
) -> Iterator[tuple[str, Difference]]:
    """Yield each answer about a clip that differs from the reference's, with the row that gave it."""
    samples, _ = soundfile.read(clip.path, dtype="float32")
    for prompt in prompts:
        expected = reference.answer(samples, prompt.text, prompt.max_tokens).strip()
        for row, engine in engines.items():
            (result,) = engine.describe(clip, [prompt], GREEDY)
            assert isinstance(result, Answer), result
            if (answer := result.text.strip()) != expected:
                gap = reference.gap(samples, prompt.text, expected, answer)
                difference = Difference(clip=clip, question=prompt.preset, reference=expected, answer=answer, gap=gap)
                yield row, difference


def shown(row: str, number: int, difference: Difference) -> str:
    """One line: where an answer differs, in what words, and how close the two were."""
    ours, theirs = difference.answer.split(), difference.reference.split()
    same = next((at for at, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), len(ours))
    words = [" ".join(text[same : same + 3]) for text in (ours, theirs)]
    return (
        f"{row}: clip {number} ({difference.clip.seconds:.2f} s), {difference.question}:"
        f" {words[0]!r}, reference {words[1]!r}, gap {difference.gap:.3f}"
    )


def report(options: argparse.Namespace, differences: dict[str, list[Difference]]) -> None:
    count = options.clips * len(QUESTIONS)
    print(f"\n{options.clips} clips of {SHORTEST:g} to {LONGEST:g} s, {count} greedy answers of the tiny model")
    print("| engine | equal to the reference | median gap of the others | largest gap |\n|---|---|---|---|")
    for row in options.rows:
        gaps = [difference.gap for difference in differences.get(row, [])]
        equal = f"{count - len(gaps)} ({1 - len(gaps) / count:.1%})"
        print(f"| {row} | {equal} | {statistics.median(gaps or [0]):.3f} | {max(gaps, default=0):.3f} |")


if __name__ == "__main__":
    main()
