"""The benchmarks run: what they print is quoted, so they must not rot."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from musicflamingo_cli.llamacpp import binaries
from musicflamingo_cli.models.gguf import read_header
from musicflamingo_cli.types import Windows

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SONGS = BENCHMARKS.parent / "models" / "tiny" / "songs"


def run(script: str, *words: object) -> str:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.real
def test_throughput_on_random_weights(real_llama_dir: Path, tmp_path: Path) -> None:
    model, projector = map(Path, run("random_model.py", tmp_path, "--shape", "small").split())
    assert read_header(model).is_tiny
    rows = "shell loop,mtmd-cli,server 1,native 1,embedded 2,unpatched native 1"
    words: list[object] = ["--files", 2, "--seconds", 2, "--tokens", 8, "--threads", 1, "--rows", rows]
    words += ["--llama-dir", real_llama_dir, "--unpatched-dir", real_llama_dir]  # the rows, not the builds, are tested
    printed = run("throughput.py", "--model", model, "--mmproj", projector, *words)
    names = ("shell loop", "mtmd-cli", "server 1", "limit", "native 1", "native limit", "embedded 2")
    for name in (*names, "unpatched native 1", "unpatched native limit"):
        assert f"| {name} |" in printed


@pytest.mark.real
def test_parts_of_native(real_llama_dir: Path) -> None:
    printed = run("native_parts.py", "--seconds", 2, 31, "--tokens", 4, "--llama-dir", real_llama_dir)
    rows = re.findall(r"^\| (\d+) \|" + r" ([\d.]+) s \(\d+%\) \|" * 4 + "$", printed, re.MULTILINE)
    assert [row[0] for row in rows] == ["2", "31"]
    assert all(float(longer) > float(shorter) for shorter, longer in zip(rows[0][2:4], rows[1][2:4], strict=True))


@pytest.mark.slow
def test_throughput_in_transformers() -> None:
    words = ("--checkpoint", "tiny", "--files", 1, "--seconds", 2, "--tokens", 8, "--threads", 1)
    printed = run("throughput.py", *words, "--rows", "plain transformers,transformers 1")
    assert re.search(r"\| plain transformers \| \d+\.\d \| 1\.0 \| 0\.[1-9] GB", printed)
    assert re.search(r"\| transformers 1 \| \d+\.\d \| \d+\.\d \| 0\.[1-9] GB", printed)


@pytest.mark.real
@pytest.mark.slow
def test_patched_embeddings_equal_those_of_transformers(real_llama_dir: Path) -> None:
    printed = run("embeddings.py", "--threads", 1, "--llama-dir", real_llama_dir)
    rows = re.findall(r"^\| [\d.]+ \| [a-z, ]+ \| (\d+), (\d+) \| ([\d.]+)% \| ([\d.]+)% \|$", printed, re.MULTILINE)
    assert len(rows) == 19
    if binaries.windows(real_llama_dir / binaries.MTMD_CLI) == Windows.TRIMMED:
        assert all(ours == theirs and float(largest) < 1 for ours, theirs, _, largest in rows)
    else:
        assert sum(float(largest) > 10 for *_, largest in rows) > 10


@pytest.mark.real
@pytest.mark.slow
def test_patched_engines_agree_with_transformers(real_llama_dir: Path) -> None:
    """Of three clips, the last one has loud and quiet windows. The wheel of `embedded` has no patch."""
    printed = run("agreement.py", "--clips", 3, "--threads", 1, "--llama-dir", real_llama_dir)
    equal = {row: int(count) for row, count in re.findall(r"^\| ([\w-]+) \| (\d+) \(", printed, re.MULTILINE)}
    assert list(equal) == ["mtmd-cli", "server", "native", "embedded", "transformers"]
    assert equal["transformers"] == 9
    assert equal["embedded"] < 9
    if binaries.windows(real_llama_dir / binaries.MTMD_CLI) == Windows.TRIMMED:
        assert min(equal[row] for row in ("mtmd-cli", "server", "native")) >= 8


@pytest.mark.real
def test_overhead_prints_its_three_figures(real_llama_dir: Path) -> None:
    printed = run("overhead.py", "--tracks", 3, "--finished", 200, "--llama-dir", real_llama_dir)
    assert "of a bare one" in printed
    assert "our own" in printed
    assert "resume over 200 finished tracks" in printed


def test_seven_billion_weights_have_the_published_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """6.2e9 bytes (5.8 GiB) for Q6_K, by arithmetic: 210 bytes for each 256 weights."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import random_model

    shape = random_model.SHAPES["7b"]
    kv_width = shape.width // shape.heads * shape.kv_heads
    layer = 2 * shape.width**2 + 2 * kv_width * shape.width + 3 * shape.width * shape.feed_forward
    weights = shape.layers * layer + 2 * shape.vocabulary * shape.width
    assert weights == pytest.approx(7.6e9, rel=0.01)
    assert weights * 210 / 256 == pytest.approx(6.2e9, rel=0.02)


def test_mutated_inputs_end_well_or_in_one_error() -> None:
    printed = run("fuzz.py", "--cases", 300)
    assert printed.count("50 cases, 0 ended badly") == 6


@pytest.mark.slow
def test_measuring() -> None:
    printed = run("measure.py", "accuracy", "--songs", 2, "--variants", 1)
    assert re.search(r"^\| 4/4 \| 2 \| \d+\.\d% \| 100\.0% ", printed, re.MULTILINE)
    assert re.search(r"^\| white noise \| 1 \| - \| - \| - \| 100\.0% ", printed, re.MULTILINE)
    assert "| mp3 |" in (speed := run("measure.py", "speed", "--minutes", 1.1))
    assert re.search(r"peak memory: \d+ MB for 1 minute, \d+ MB for 20", speed)
    assert "1 recordings: tempo unknown in 0" in run("measure.py", "recordings", SONGS / "house loop.mp3")


def test_the_speed_of_the_check() -> None:
    printed = run("check.py", "--tracks", 20)
    assert re.search(r"^first run: 20 sidecars in \d+\.\d s", printed)
    assert "second run, nothing to write: 20 sidecars" in printed


@pytest.mark.real
def test_wrong_numbers_that_the_check_finds(real_llama_dir: Path, tmp_path: Path) -> None:
    run("trust_songs.py", tmp_path / "songs", "--songs", 3, "--llama-dir", real_llama_dir)
    printed = run("trust.py", tmp_path / "songs")
    assert "3 songs, 6 captions" in printed
    assert printed.count("0 of 6 right ones marked") >= 1
    assert printed.count("tempo: ") == 4  # the model's own, and three shuffles


@pytest.mark.slow
def test_the_review_at_scale() -> None:
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        pytest.skip("NOT RUN in a browser: no Chromium on the PATH (apt-get install chromium)")
    printed = run("review.py", "--tracks", 100)
    for name in ("first paint, s", "search, words, s", "server at the end, MB", "worst of 4, s"):
        assert re.search(rf"{name} +\d+\.\d\d\n", printed)
