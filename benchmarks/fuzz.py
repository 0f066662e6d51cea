"""Mutated inputs: audio headers, sidecars, GGUF headers, prompts, settings and answers.

Each must end well or in one of the program's own errors. Seeds of complete runs so far: none, 2811, 29nov, 29nov-b and
29nov-c.

    python benchmarks/fuzz.py                          20,000 cases of all kinds
    python benchmarks/fuzz.py --cases 600 --kinds gguf,settings
    python benchmarks/fuzz.py --seed tuesday           20,000 others; each case follows from seed, kind and number
    python benchmarks/fuzz.py --kinds gguf --only 17   one case again

A worker runs the cases with a memory limit of 2 GB. It is replaced where it crashes or a case takes over 20 seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import select
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from musicflamingo_cli.errors import MusicFlamingoError

_MEMORY, _SECONDS, _TO_START = 2 << 30, 20.0, 120.0
_INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**64 - 1)
_TOKENS = [b"&a ", b"*a", b"<<: *a", b"[" * 99, b"{", b"}", b'"', b"\\", b"\x00", b"\xff", b"1e400", b"9" * 5000]
_TOKENS += [
    b"null",
    b".nan",
    b"-1",
    b"0x" + b"f" * 5000,
    b"2001-02-31",
    b"!!python/none",
    b"\xed\xa0\x80",
    b"\n",
    b": ",
]
_SIDECAR = b"""{"title": "x", "music_flamingo_full": "A calm piece.", "music_flamingo_approved": true,
 "music_flamingo_provenance": {"full": {"model": "m", "audio_seconds": 12.5, "seed": 7, "temperature": 0.7}}}"""
_CHECKED = b"""{"bpm": "120", "key": "A minor", "year": 1999, "lyrics": "la",
 "music_flamingo_full": "At 120 BPM in A minor.",
 "music_flamingo_short": "Short.", "music_flamingo_fields": {"tempo_bpm": 120, "genres": ["folk"]},
 "music_flamingo_measured": {"version": 1, "tempo": {"bpm": 120.0, "confidence": 0.4, "alternatives": [60.0]},
  "key": {"name": "A minor", "confidence": 0.3, "relatives": ["C major"]}, "lufs": -14.0, "seconds": 9.0,
  "silence": 0.1, "width": 0.2, "halves": ["A minor"], "audio": {"size": 1, "hash": "a", "modified": 2}},
 "music_flamingo_samples": {"full": {"samples": 3, "agreement": 0.9}},
 "music_flamingo_check": {"score": 0.5, "reasons": ["x"], "contradicted": ["full"], "basis": {"version": 1}},
 "music_flamingo_provenance": {"full": {"model": "m", "run": "r", "number": 3, "edited": false,
  "audio": {"size": 1, "hash": "a", "modified": 2}}, "short": {"made_from": {"full": "x"}}}}"""
_SETTINGS = b"model: auto\nengine: server\ntemperature: 0.7\nslots: 2\nmax_seconds: 300\nllama_dir: build\nseed: 7\n"


def mutated(seed: bytes, dice: random.Random, reach: int) -> bytes:
    """Return the seed with one to eight changes within its first ``reach`` bytes."""
    data = bytearray(seed)
    for _ in range(dice.randint(1, dice.choice((1, 2, 8)))):  # a single change gets deeper
        place = dice.randrange(max(1, min(reach, len(data))))
        match dice.randrange(6):
            case 0 if data:
                data[place % len(data)] ^= 1 << dice.randrange(8)
            case 1:
                width = dice.choice((1, 2, 4, 8))
                value = dice.choice(_INTERESTING) & (256**width - 1)
                data[place : place + width] = value.to_bytes(width, dice.choice(("little", "big")))
            case 2:
                del data[place : place + dice.randint(1, 40)]
            case 3:
                data[place:place] = data[place : place + dice.randint(1, 200)] * dice.randint(1, 8)
            case 4:
                data[place:place] = dice.choice(_TOKENS)
            case _:
                data[place : place + 4] = dice.randbytes(4)
    return bytes(data[: dice.randrange(len(data) + 1)] if dice.random() < 0.1 else data)


def audio_seeds(folder: Path) -> list[tuple[str, bytes]]:
    """Return short audio files of several formats: ending and bytes."""
    import numpy as np
    import soundfile

    sound = 0.3 * np.sin(np.arange(16000) / 7.0)
    seeds = []
    for ending in ("wav", "flac", "ogg", "mp3", "aiff"):
        soundfile.write(folder / f"seed.{ending}", sound, 16000)
        seeds.append((ending, (folder / f"seed.{ending}").read_bytes()))
    for ending, codec in (("m4a", "aac"), ("aac", "aac"), ("mka", "libopus"), ("opus", "libopus")):
        encode(folder / f"seed.{ending}", codec, sound)
        seeds.append((ending, (folder / f"seed.{ending}").read_bytes()))
    joined = [(ending, b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + 2 * data) for ending, data in seeds if ending != "wav"]
    return seeds + joined


def encode(path: Path, codec: str, samples: Any) -> None:
    """Write mono samples at 16 kHz with one of FFmpeg's encoders."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=16000, layout="mono")
        assert isinstance(stream, av.AudioStream)
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=16000)
        frame = av.AudioFrame.from_ndarray(samples[None].astype("float32"), format="fltp", layout="mono")
        frame.sample_rate = 16000
        for piece in [*resampler.resample(frame), None]:
            container.mux(stream.encode(piece))


def read_audio(file: Path) -> None:
    """Decode the file, read its tags, and draw it."""
    from musicflamingo_cli.audio import tags
    from musicflamingo_cli.audio.clip import measure, prepared
    from musicflamingo_cli.audio.thumbnail import thumbnail
    from musicflamingo_cli.review.pictures import picture

    tags.describe(file, {}, 1.0)
    thumbnail(file)
    with contextlib.suppress(MusicFlamingoError):
        picture(file)
    with contextlib.suppress(MusicFlamingoError):
        measure(file)
    with prepared(file):
        pass


def read_sidecar_of(file: Path) -> None:
    """Read all that commands take from a sidecar, and merge a caption into it."""
    from musicflamingo_cli.audio import tags
    from musicflamingo_cli.exports.trusted import music_fields
    from musicflamingo_cli.prompts import Preset
    from musicflamingo_cli.review.doubts import doubt_of, reasons_of
    from musicflamingo_cli.sidecars.captions import provenance_of, real_captions
    from musicflamingo_cli.sidecars.checks import basis_of, check_result, has_outdated_short
    from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar
    from musicflamingo_cli.sidecars.staleness import CaptionSettings, EarlierRuns, state_of
    from musicflamingo_cli.trust.measured import measured_of, prompt_values, stated_by_others

    info = read_sidecar(file)
    provenance_of(info, "full")
    real_captions(info, ["full"])
    EarlierRuns().add(info)
    state_of(info, Preset("full", "What is it?"), CaptionSettings(model="m", max_seconds=60.0, version="1"), file)
    basis_of(info), check_result(info), has_outdated_short(info), doubt_of(info), reasons_of(info)
    measured_of(info, file), prompt_values(info, file), stated_by_others(info), music_fields(info, file)
    tags.describe(file, info, 1.0)
    merge_sidecar(file, {"music_flamingo_brief": "A caption."})
    read_sidecar(file)


def read_gguf(file: Path) -> None:
    """Read the header, and what is computed from it."""
    from musicflamingo_cli.models.gguf import read_header

    os.truncate(file, 1 << 24)  # sparse, and as large as the header says
    header = read_header(file)
    _ = header.kv_bytes_per_token, header.context_length, header.projector_type, header.is_tiny, header.is_projector


def read_prompts(file: Path) -> None:
    """Read the presets, and fill in their variables."""
    from musicflamingo_cli.prompts import read_presets

    for preset in read_presets(file).values():
        preset.render({"title": "x"})


def read_settings(file: Path) -> None:
    """Read the settings of a person."""
    from musicflamingo_cli.config import load_settings

    load_settings({}, file)


def read_answer(file: Path) -> None:
    """Judge an answer."""
    from musicflamingo_cli.text.cleaning import judge, normalize_text

    text = judge(file.read_bytes().decode("utf-8", "replace"), hit_limit=True).text
    assert normalize_text(text) == text, "not idempotent"


def kinds(folder: Path) -> dict[str, tuple[Callable[[Path], None], list[tuple[str, bytes]], int]]:
    """Return for each kind: how it is read, its seeds (ending and bytes), and how many first bytes change."""
    from musicflamingo_cli.models.resolve import tiny_language_model
    from musicflamingo_cli.paths import built_in_prompts

    answer = "**Tempo**: ~120 BPM - F\u266f minor. I cannot hear 10\u00b2 files &amp; \u66f2, no audio was provided."
    return {
        "audio": (read_audio, audio_seeds(folder), 300),
        "sidecar": (read_sidecar_of, [("INFO", _SIDECAR), ("INFO", _CHECKED)], 10_000),
        "gguf": (read_gguf, [("gguf", tiny_language_model().read_bytes()[:600_000])], 3000),
        "prompts": (read_prompts, [("yaml", built_in_prompts().read_bytes())], 10_000),
        "settings": (read_settings, [("yaml", _SETTINGS)], 10_000),
        "answers": (read_answer, [("txt", answer.encode() * 3)], 10_000),
    }


def work(kind: str, first: int, end: int, folder: Path, run: str) -> None:
    """Run cases in this process; print each number when it begins, and a line for each that ends in a bug."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    read, seeds, reach = kinds(folder)[kind]
    for number in range(first, end):
        print("case", number, flush=True)
        dice = random.Random(f"{run}{kind} {number}")
        ending, seed = seeds[number % len(seeds)]
        file = folder / f"{number}.{ending}"
        file.write_bytes(mutated(seed, dice, reach))
        try:
            read(file)
        except MusicFlamingoError:
            pass
        except BaseException as error:  # MemoryError, too
            where = traceback.extract_tb(error.__traceback__)[-1]
            print("bug", number, f"{type(error).__name__}: {error!s:.200} ({where.name}, {where.lineno})", flush=True)
        file.unlink(missing_ok=True)


def supervise(kind: str, first: int, end: int, run: str) -> list[str]:
    """Run cases in workers, and return a line for each bug, crash and hang."""
    failures = []
    while first < end:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            command = [sys.executable, __file__, "--work", kind, str(first), str(end), folder, run]
            worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            assert worker.stdout
            number, is_hung, rest = first - 1, False, b""
            seconds = _TO_START
            while True:
                if not select.select([worker.stdout], [], [], seconds)[0]:
                    is_hung = True
                    worker.kill()
                    break
                if not (read := os.read(worker.stdout.fileno(), 1 << 16)):
                    break
                *lines, rest = (rest + read).split(b"\n")
                seconds = _SECONDS
                for line in lines:
                    word, at, *text = line.decode(errors="replace").split(" ", 2)
                    number = int(at)
                    if word == "bug":
                        failures.append(f"{kind} {number}: {text[0]}")
            code = worker.wait()
            worker.stdout.close()
        if not is_hung and code == 0:
            return failures
        if number < first:
            sys.exit(f"{kind}: the worker does not start; try: {' '.join(command[1:])}")
        failures.append(f"{kind} {number}: {f'over {_SECONDS:g} s' if is_hung else f'exit code {code}'}")
        first = number + 1
    return failures


def main() -> None:
    """Run the cases, and exit with 1 where one ended badly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000, help="in all")
    parser.add_argument("--kinds", default="audio,sidecar,gguf,prompts,settings,answers")
    parser.add_argument("--only", type=int, help="the number of one case")
    parser.add_argument("--seed", default="", help="any text")
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        kind, first, end, folder, run = options.work
        return work(kind, int(first), int(end), Path(folder), run)
    chosen = options.kinds.split(",")
    failures: list[str] = []
    for kind in chosen:
        first = options.only or 0
        end = first + 1 if options.only is not None else -(-options.cases // len(chosen))
        found = supervise(kind, first, end, options.seed)
        failures += found
        print(f"{kind}: {end - first} cases, {len(found)} ended badly", flush=True)
    print("\n".join(failures))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
