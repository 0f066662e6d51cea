"""What engine `native` spends on a clip, part by part: spectrogram, encoder, prefill, five answers.

    python benchmarks/native_parts.py --smol --seconds 10 31 59     SmolLM2-135M with a small random encoder

In seconds of processor time, which other programs on the machine change little. The spectrogram of the next clip is
made while others are answered; what doing the same with its encoding could save is the second column.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from throughput import make_tracks, smol_pair

from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.native.engine import environment, native_libraries
from musicflamingo_cli.engines.native.model import ActiveAnswer, Model
from musicflamingo_cli.engines.native.worker import options_of, read_clip
from musicflamingo_cli.models.model import TINY
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.types import Prompt, Sampling

PARTS = ("spectrogram", "encoder", "prefill", "answers")
ANSWERS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smol", action="store_true")
    parser.add_argument("--seconds", type=float, nargs="+", default=[10.0, 31.0, 59.0])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--llama-dir", type=Path)
    options = parser.parse_args()
    libraries, _ = native_libraries(Settings(llama_dir=options.llama_dir))
    os.environ.update(environment(libraries))
    print(f"| seconds | {' | '.join(PARTS)} |\n|---|{'---|' * len(PARTS)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pair = smol_pair(folder) if options.smol else resolve(TINY, Path())
        files = ["--model", str(pair.language_model), "--mmproj", str(pair.projector)]
        sizes = ["--threads", str(options.threads), "--context", str(pair.context_length), "--slots", "1"]
        model = Model(options_of([*files, *sizes]))
        for seconds in options.seconds:
            (track,) = make_tracks(folder, 1, seconds)
            spent = measured(model, track, options.tokens)
            total = sum(spent.values())
            cells = [f"{spent[part]:.2f} s ({spent[part] / total:.0%})" for part in PARTS]
            print(f"| {seconds:g} | {' | '.join(cells)} |", flush=True)


def measured(model: Model, track: Path, tokens: int) -> dict[str, float]:
    """Return the seconds of each part for one clip and its answers, all in one batch, as the worker does it."""
    spent = dict.fromkeys(PARTS, 0.0)
    prompt = Prompt(preset="parts", text="Describe it.", max_tokens=tokens)
    before, after = model.split(prompt)
    encoder = model.audio_encoder
    with counted(spent, "spectrogram"):
        prepared = encoder.prepare(before, [read_clip(str(track))])
    with counted(spent, "prefill"), encoder_counted(encoder, spent):
        position, audio_tokens = encoder.prefill(prepared, model.context, 0)
    spent["prefill"] -= spent["encoder"]
    encoder.free(prepared)
    answers = []
    for sequence in range(1, ANSWERS + 1):
        model.copy_sequence(0, sequence)
        answers.append(
            ActiveAnswer(
                prompt=prompt,
                slot=0,
                request=0,
                sequence=sequence,
                sampler=model.sampler(Sampling(temperature=0.0)),
                position=position,
                audio_tokens=audio_tokens,
                prefill_seconds=0.0,
                unread=model.tokens(after),
            )
        )
    with counted(spent, "answers"):
        for _ in range(tokens):
            model.step(answers)
    for sequence in range(ANSWERS + 1):
        model.clear_sequence(sequence)
    return spent


@contextmanager
def counted(spent: dict[str, float], part: str) -> Iterator[None]:
    started = time.process_time()
    yield
    spent[part] += time.process_time() - started


@contextmanager
def encoder_counted(encoder: Any, spent: dict[str, float]) -> Iterator[None]:
    """Count the time in the encoder, which `prefill` runs for each window."""
    library = encoder._mtmd

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(library, name)

        def mtmd_encode_chunk(self, *arguments: Any) -> Any:
            with counted(spent, "encoder"):
                return library.mtmd_encode_chunk(*arguments)

    encoder._mtmd = Counting()
    yield
    encoder._mtmd = library


if __name__ == "__main__":
    main()
