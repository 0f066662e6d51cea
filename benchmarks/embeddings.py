"""How far the audio embeddings of a llama.cpp build are from those of the published processor and encoder.

    python benchmarks/embeddings.py --llama-dir DIR

For songs of several lengths and levels, given to llama.cpp whole, as its own tools do: the difference of each token's
embedding from that of the same weights in transformers, in float32, relative to the latter's length. This is what an
answer can differ by before the language model has read it. The tiny model; its projector is in 16 bits.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from agreement import FIRST_SEED, QUIET, songs
from numpy.typing import NDArray

from musicflamingo_cli.engines.native.engine import environment
from musicflamingo_cli.engines.native.model import Model
from musicflamingo_cli.engines.native.worker import options_of
from musicflamingo_cli.llamacpp import binaries
from musicflamingo_cli.models.model import TINY, ModelPair
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.models.tiny_checkpoint import write_checkpoint
from musicflamingo_cli.types import SAMPLE_RATE, TOKENS_PER_WINDOW, WINDOW_SAMPLES
from tiny_flamingo.in_transformers import InTransformers

Samples = NDArray[np.float32]
SECONDS = (0.5, 3, 10, 29.98, 30, 31, 45, 60.01)
LEVELS = ("as recorded", "quiet", "loud, then quiet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-dir", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    binary = binaries.find(binaries.SERVER, options.llama_dir)
    os.environ |= environment(binary.resolve().parent)
    pair = resolve(TINY, Path())
    assert isinstance(pair, ModelPair)
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(pair.language_model, pair.projector, Path(folder) / "checkpoint")
        reference = InTransformers(Path(folder) / "checkpoint", options.threads)
    files = ["--model", str(pair.language_model), "--mmproj", str(pair.projector)]
    sizes = ["--threads", str(options.threads), "--context", "256", "--slots", "1", "--gpu-layers", "0"]
    model = Model(options_of([*files, *sizes]))
    print(f"llama.cpp {binaries.version(binary)}, relative difference of embeddings")
    print("| seconds | level | tokens, reference's | median | largest |\n|---|---|---|---|---|")
    for seconds in SECONDS:
        for level in LEVELS if seconds * SAMPLE_RATE > WINDOW_SAMPLES else LEVELS[:2]:
            samples = make_samples(seconds, level)
            ours, count = embeddings(model, samples)
            theirs = reference.embeddings(samples)
            error = np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1)
            print(f"| {seconds} | {level} | {count}, {len(theirs)} | {np.median(error):.2%} | {error.max():.2%} |")


def make_samples(seconds: float, level: str) -> Samples:
    length = round(seconds * SAMPLE_RATE)
    samples = np.concatenate(list(songs(FIRST_SEED, length)))[:length]
    if level != LEVELS[0]:
        samples[WINDOW_SAMPLES if level == LEVELS[2] else 0 :] *= QUIET
    return np.ascontiguousarray(samples)


def embeddings(model: Model, samples: Samples) -> tuple[NDArray[np.float32], int]:
    """The embeddings of what is audio, shape (tokens, width), and how many llama.cpp makes in all."""
    chunks = list(windows(model, samples))
    positions = -(-len(samples) // (2 * 160))  # of the encoder: two frames of 160 samples each
    kept = [min(TOKENS_PER_WINDOW, positions // 2 - number * TOKENS_PER_WINDOW) for number in range(len(chunks))]
    parts = [chunk[: max(0, count)] for chunk, count in zip(chunks, kept, strict=True)]
    return np.concatenate(parts), sum(map(len, chunks))


def windows(model: Model, samples: Samples) -> Iterator[NDArray[np.float32]]:
    """The embeddings of each of llama.cpp's windows."""
    encoder: Any = model.audio_encoder
    mtmd = model.libraries.mtmd
    chunks = encoder._tokenize(samples, "")
    for index in range(mtmd.mtmd_input_chunks_size(chunks)):
        chunk = mtmd.mtmd_input_chunks_get(chunks, index)
        if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_AUDIO:
            assert mtmd.mtmd_encode_chunk(encoder._encoder, chunk) == 0
            shape = mtmd.mtmd_input_chunk_get_n_tokens(chunk), encoder._width
            yield np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(encoder._encoder), shape).copy()
    mtmd.mtmd_input_chunks_free(chunks)


if __name__ == "__main__":
    main()
