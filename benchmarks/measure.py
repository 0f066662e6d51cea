"""How well and how fast tempo, key and loudness are measured: the figures of docs/measure.md.

    python benchmarks/measure.py accuracy                 songs of the synthesiser that nothing was tuned on
    python benchmarks/measure.py speed                    three minutes in four formats; the memory of 20 minutes
    python benchmarks/measure.py recordings DIR           real music: do the halves of a track agree?

Tuned on seeds from 3,000,000 (songs), 3,100,000 and 3,200,000 (variants). Everything goes through files.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from musicflamingo_cli.audio.decoding import open_source
from musicflamingo_cli.audio.key import relatives_of
from musicflamingo_cli.dataset.tracks import find_tracks
from musicflamingo_cli.errors import AudioError
from musicflamingo_cli.trust.measured import Measured
from musicflamingo_cli.trust.measuring import measure_track
from musicflamingo_cli.types import SAMPLE_RATE, Track
from tiny_flamingo import music
from tiny_flamingo.variants import Kind, random_variant, render_variant

Samples = NDArray[np.float32]
TOLERANCE = 0.04  # within which a tempo is right
OCTAVES = (1.0, 2.0, 0.5)
RELATED = (*OCTAVES, 3.0, 1 / 3, 1.5, 2 / 3)
LEAST_TEMPO, LEAST_KEY = 0.06, 0.10  # confidences from which a claim is contradicted (docs/measure.md)


@dataclass(frozen=True)
class Truth:
    """What is true of a song; None and nothing where there is no tempo or key."""

    bpm: float | None
    keys: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("accuracy", "speed", "recordings"))
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--songs", type=int, default=300)
    parser.add_argument("--variants", type=int, default=100)
    parser.add_argument("--first", type=int, default=4_000_000, help="the first seed")
    parser.add_argument("--minutes", type=float, default=3.0)
    options = parser.parse_args()
    if options.what == "accuracy":
        print_accuracy(options.songs, options.variants, options.first)
    elif options.what == "speed":
        print_speed(options.minutes)
    else:
        print_recordings(options.folder)


# -- accuracy -----------------------------------------------------------------------------------------


def print_accuracy(songs: int, variants: int, first: int) -> None:
    print("| songs | number | tempo right | or an octave | or 3, 3/2 | unknown | contradicted", end=" ")
    print("| key right | relative, parallel, fifth | unknown | contradicted |")
    print("|---|" + "---|" * 10)
    for name, number, made in sources(songs, variants, first):
        print(f"| {name} | {number} | {row(made)} |", flush=True)


def sources(songs: int, variants: int, first: int) -> Iterator[tuple[str, int, Iterator[tuple[Samples, Truth]]]]:
    """Name, number and content of each row of the table."""
    seeds, fewer = range(first, first + songs), range(first, first + variants)
    yield "4/4", songs, map(usual, seeds)
    for kind in Kind:
        yield kind, variants, map(partial(unusual, kind), fewer)
    yield "white noise", variants, (noise(seed) for seed in fewer)
    yield "silence", 10, ((np.zeros(seconds * SAMPLE_RATE, np.float32), Truth(None, ())) for seconds in range(1, 11))


def usual(seed: int) -> tuple[Samples, Truth]:
    song = music.random_song(seed)
    return music.render(song, music.random_recording(seed))[0], Truth(song.bpm, (f"{song.key} {song.mode}",))


def unusual(kind: Kind, seed: int) -> tuple[Samples, Truth]:
    variant = random_variant(kind, seed)
    return render_variant(variant, music.random_recording(seed)), Truth(variant.song.bpm, variant.keys)


def noise(seed: int) -> tuple[Samples, Truth]:
    random = np.random.default_rng(seed)
    level, seconds = 10 ** random.uniform(-2.5, -0.5), random.uniform(2, 40)
    return (level * random.standard_normal(int(seconds * SAMPLE_RATE))).astype(np.float32), Truth(None, ())


def row(songs: Iterator[tuple[Samples, Truth]]) -> str:
    """The shares of a row, as cells."""
    results = [(measured(samples), truth) for samples, truth in songs]
    has_tempo, has_key = results[0][1].bpm is not None, bool(results[0][1].keys)

    def share(is_so: Callable[[Measured, Truth], bool]) -> str:
        return f"{np.mean([is_so(*result) for result in results]):.1%}"

    tempi = [share(partial(fits, ratios=ratios)) for ratios in ((1.0,), OCTAVES, RELATED)]
    cells = tempi if has_tempo else ["-"] * 3
    cells += [share(lambda found, truth: found.tempo is None), share(contradicts_tempo) if has_tempo else "-"]
    keys = [share(has_right_key), share(has_related_key)]
    cells += keys if has_key else ["-"] * 2
    cells += [share(lambda found, truth: found.key is None), share(contradicts_key) if has_key else "-"]
    return " | ".join(cells)


def measured(samples: Samples, rate: int = SAMPLE_RATE) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "song.wav"
        soundfile.write(path, samples, rate)
        return measure_track(path)


def fits(found: Measured, truth: Truth, ratios: Sequence[float]) -> bool:
    """Whether the measured tempo is the true one times one of these ratios."""
    if found.tempo is None or truth.bpm is None:
        return False
    return any(abs(found.tempo.bpm / (truth.bpm * ratio) - 1) <= TOLERANCE for ratio in ratios)


def contradicts_tempo(found: Measured, truth: Truth) -> bool:
    """Whether a caption with the true tempo would be contradicted."""
    if found.tempo is None or found.tempo.confidence < LEAST_TEMPO:
        return False
    halves = (replace(found, tempo=replace(found.tempo, bpm=bpm)) for bpm in found.tempi if bpm)
    return not any(fits(each, truth, RELATED) for each in (found, *halves))


def has_right_key(found: Measured, truth: Truth) -> bool:
    return found.key is not None and found.key.name in truth.keys


def has_related_key(found: Measured, truth: Truth) -> bool:
    if found.key is None or has_right_key(found, truth):
        return False
    return any(found.key.name in relatives_of(key) for key in truth.keys)


def contradicts_key(found: Measured, truth: Truth) -> bool:
    """Whether a caption with the first true key would be contradicted."""
    if found.key is None or found.key.confidence < LEAST_KEY:
        return False
    return not {found.key.name, *found.key.relatives, *found.halves} & {truth.keys[0]}


# -- speed --------------------------------------------------------------------------------------------


def print_speed(minutes: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        song = music.random_song(1, seconds=(60 * minutes, 60 * minutes))
        mono = music.render(song, rate=44_100)[0]
        stereo = np.stack([mono, np.roll(mono, 300)], 1)
        print("| format | times real time, one core (best of 3) |\n|---|---|")
        for kind in ("wav", "flac", "ogg", "mp3"):
            path = write(Path(folder) / f"song.{kind}", stereo)
            measure_track(path)  # imports
            print(f"| {kind} | {60 * minutes / min(cpu_seconds(path) for _ in range(3)):.0f} |", flush=True)
        peaks = {}
        for length in (1, 20):
            path = Path(folder) / f"{length}.wav"
            with soundfile.SoundFile(path, "w", 44_100, 2) as file:
                for _ in range(length):
                    file.write(stereo[: 60 * 44_100])
            peaks[length] = peak_of(path)
        print(f"peak memory: {peaks[1]:.0f} MB for 1 minute, {peaks[20]:.0f} MB for 20")


def write(path: Path, samples: Samples) -> Path:
    """Write a file in blocks: libsndfile's Vorbis encoder overflows its stack with all at once."""
    with soundfile.SoundFile(path, "w", 44_100, 2) as file:
        for start in range(0, len(samples), 44_100):
            file.write(samples[start : start + 44_100])
    return path


def cpu_seconds(path: Path) -> float:
    started = time.process_time()
    measure_track(path)
    return time.process_time() - started


def peak_of(path: Path) -> float:
    """The peak memory in MB of a process that measures one file."""
    script = (
        "import re, sys; from pathlib import Path; from musicflamingo_cli.trust.measuring import measure_track;"
        "measure_track(Path(sys.argv[1])); status = Path('/proc/self/status').read_text();"
        "print(re.search(r'VmHWM:\\s+(\\d+)', status)[1])"
    )
    done = subprocess.run([sys.executable, "-c", script, path], stdout=subprocess.PIPE, check=True)
    return int(done.stdout) / 1024


# -- real music ---------------------------------------------------------------------------------------


def print_recordings(folder: Path) -> None:
    """Measure each track, and each half of those longer than 40 s, as files of their own."""
    whole: list[Measured] = []
    pairs: list[tuple[Measured, Measured]] = []
    for track in find_tracks(folder):
        if not isinstance(track, Track):
            continue
        try:
            whole.append(measure_track(track.audio))
        except AudioError as error:
            print(error)
            continue
        print(f"{track.audio.name}: {whole[-1]}", file=sys.stderr)
        if whole[-1].seconds > 40:
            pairs.append(halves_of(track.audio))
    unknown = [sum(getattr(found, name) is None for found in whole) for name in ("tempo", "key")]
    print(f"{len(whole)} recordings: tempo unknown in {unknown[0]}, key unknown in {unknown[1]}")
    both = [(first.tempo.bpm, second.tempo.bpm) for first, second in pairs if first.tempo and second.tempo]
    for name, ratios in (("tempo", (1.0,)), ("tempo up to octaves", OCTAVES), ("tempo up to 3 and 3/2", RELATED)):
        same = sum(any(abs(a / (b * ratio) - 1) <= TOLERANCE for ratio in ratios) for a, b in both)
        print(f"halves with the same {name}: {same} of {len(both)} (of {len(pairs)} pairs)")
    keys = [(first.key.name, second.key.name) for first, second in pairs if first.key and second.key]
    print(f"halves with the same key: {sum(a == b for a, b in keys)} of {len(keys)} (of {len(pairs)} pairs)")
    print(f"... or a related one: {sum(a == b or a in relatives_of(b) for a, b in keys)} of {len(keys)}")


def halves_of(audio: Path) -> tuple[Measured, Measured]:
    with open_source(audio) as source:
        samples = np.concatenate([block.mean(axis=1) for block in source.blocks])
        rate = source.rate
    middle = len(samples) // 2
    return measured(samples[:middle], rate), measured(samples[middle:], rate)


if __name__ == "__main__":
    main()
