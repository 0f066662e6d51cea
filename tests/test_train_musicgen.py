"""docs/train-musicgen.md from a folder of music to a trained model, with a small random MusicGen."""

from __future__ import annotations

import json
import math
import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from musicflamingo_cli.audio.segments import Cutting, spans_of
from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar
from musicflamingo_cli.sidecars.segments import Segment, keys_with
from tests.test_docs import ROOT, _blocks
from tiny_flamingo import captions, music
from tiny_flamingo.random_musicgen import CODEBOOK

PAGE = ROOT / "docs" / "train-musicgen.md"
SETTINGS = 'MODEL = "facebook/musicgen-small"\nSTEPS, BATCH, LEARNING_RATE, UNCONDITIONAL = 500, 4, 1e-5, 0.1\n'
SONGS, SECONDS, CUTTING = 6, 20.0, Cutting(10.0, 10.0)


def write_songs(folder: Path) -> None:
    """Songs of the synthesiser; their segments have captions of what is true of them."""
    folder.mkdir()
    for number in range(SONGS):
        song = music.random_song(6_100_000 + number, seconds=(SECONDS, SECONDS), steady=True)
        audio = folder / f"song {number}.flac"
        soundfile.write(audio, music.render(song, music.Recording(), 32_000)[0], 32_000)
        spans = spans_of(0.0, SECONDS, CUTTING)
        for span in spans:
            text = captions.caption(song, "full", random.Random(f"{number} {span}"))
            segment = Segment(span, {"full": text}, {"full": {"model": "music-flamingo-hf.Q6_K.gguf"}})
            sidecar = audio.with_suffix(".INFO")
            merge_sidecar(sidecar, keys_with(read_sidecar(sidecar), spans, segment, CUTTING.as_json()))


@pytest.mark.slow
def test_the_page_trains_a_model(tmp_path: Path, generators: Path) -> None:
    write_songs(tmp_path / "music")
    commands = [line for block in _blocks(PAGE, "bash") for line in block.splitlines()]
    (code,) = _blocks(PAGE, "python")
    assert SETTINGS in code
    smaller = f"torch.manual_seed(1)\nrandom.seed(1)\nMODEL = {str(generators / 'mono')!r}\n"
    smaller += "STEPS, BATCH, LEARNING_RATE, UNCONDITIONAL = 80, 4, 5e-3, 0.1\n"
    (tmp_path / "train.py").write_text(code.replace(SETTINGS, smaller))
    assert [shlex.split(command)[:2] for command in commands] == [
        ["musicflamingo", "batch"],
        ["musicflamingo", "export"],
        ["python", "train.py"],
    ]
    outputs = []
    for command in commands:
        program, *words = shlex.split(command)
        start = [sys.executable, "-m", "musicflamingo_cli"] if program == "musicflamingo" else [sys.executable]
        done = subprocess.run(
            [*start, *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout + done.stderr)
    assert "0 tracks to caption, 6 complete" in outputs[0]
    assert "12 segments exported as audiocraft" in outputs[1]
    manifests = {
        split: (tmp_path / "train-set" / split / "data.jsonl").read_text().splitlines()
        for split in ("train", "validation")
    }
    assert all(json.loads(line)["duration"] == 10.0 for lines in manifests.values() for line in lines)
    losses = [float(loss) for loss in re.findall(r"^step \d+ ([\d.]+)$", outputs[2], re.MULTILINE)]
    before, after = (float(loss) for loss in re.findall(r"^validation ([\d.]+)$", outputs[2], re.MULTILINE))
    assert len(losses) == 80
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert after < 0.8 * math.log(CODEBOOK) < before  # of a model that knows nothing of these songs: log(CODEBOOK)
    assert (tmp_path / "fine-tuned" / "model.safetensors").is_file()
