"""How long `musicflamingo check` takes: 10,000 tracks with five captions, a measurement and another tool's keys each.

python benchmarks/check.py                 twice: the first run writes every sidecar, the second none
python benchmarks/check.py --tracks 1000
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

KEYS = ("C major", "A minor", "F# minor", "Eb major", "G minor")
CAPTIONS = {
    "full": "This energetic Eurodance anthem at {bpm} BPM in {key} combines bright synth arpeggios with a punchy"
    " four-on-the-floor beat. A female vocalist sings English lyrics over layered pads, and track number {number} ends"
    " with a euphoric chorus. There are no guitars.",
    "technical": "The tempo is {bpm} BPM in 4/4, the key is {key}. The harmony moves through the I-vi-IV-V family, and"
    " the dynamics of track {number} build from a sparse verse to a dense chorus before they fall again.",
    "genre_mood": "Eurodance with touches of trance and dance-pop, number {number}. The mood is uplifting, bright and"
    " energetic, with a nostalgic edge.",
    "instrumentation": "Synth lead, pads, a synth bass, a kick drum, claps and hi-hats; number {number} has a female"
    " lead vocal and backing vocals.",
    "structure": "It opens with a filtered intro, adds drums after eight bars, and reaches its first chorus at 0:45."
    " A breakdown without drums follows; the last chorus of track {number} is the loudest part.",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder), options.tracks)
        for name in ("first run", "second run, nothing to write"):
            started = time.perf_counter()
            command = [sys.executable, "-m", "musicflamingo_cli", "check", folder, "-q"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - started
            print(f"{name}: {options.tracks} sidecars in {seconds:.1f} s, {os.cpu_count()} cores")


def write_dataset(root: Path, tracks: int) -> None:
    """Write folders of 100 tracks; the audio is one file under many names."""
    source = root / ".source.flac"
    soundfile.write(source, np.zeros(16_000), 16_000)
    draw = random.Random(1)
    for number in range(tracks):
        folder = root / f"{number // 100:04d}"
        folder.mkdir(exist_ok=True)
        os.link(source, folder / f"{number:06d}.flac")
        bpm, key = draw.randrange(70, 180), draw.choice(KEYS)
        info: dict[str, object] = {f"feature_{name}": draw.random() for name in range(97)}
        info |= {"genres": ["Eurodance", "Trance"], "release_year": 1998}
        for preset, text in CAPTIONS.items():
            info[f"music_flamingo_{preset}"] = text.format(bpm=bpm, key=key, number=number)
        info["music_flamingo_measured"] = {
            "version": 1,
            "tempo": {"bpm": float(draw.randrange(70, 180)), "confidence": 0.3, "alternatives": []},
            "key": {"name": draw.choice(KEYS), "confidence": 0.2, "relatives": []},
            "lufs": -12.0,
            "seconds": 1.0,
            "silence": 0.0,
            "width": 0.2,
            "halves": [],
            "audio": None,
        }
        (folder / f"{number:06d}.INFO").write_text(json.dumps(info, indent=2))


if __name__ == "__main__":
    main()
