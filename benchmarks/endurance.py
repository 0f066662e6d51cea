"""What a night does to a batch, at length: 200 x kill -9 with a reader and foreign keys, and a library of 100,000.

    python benchmarks/endurance.py                   minutes; prints what was counted

The kills are those of tests/captioning/test_overnight.py, which `make test` runs a few of.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from overhead import make_library

ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--library", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_library(Path(folder), options.library)
        for words in (["status", "--json"], ["batch", "--dry-run"]):
            seconds, peak, said = measured([words[0], folder, *words[1:], "--model", "tiny"])
            print(f"{' '.join(words)} over {options.library} tracks: {seconds:.1f} s, {peak:.0f} MiB: {said[:100]}")
    started = time.perf_counter()
    words = [sys.executable, "-m", "pytest", "-q", "--timeout", "0", "tests/captioning/test_overnight.py"]
    words += ["-k", "kills_at_any_moment"]
    environment = {**os.environ, "MUSICFLAMINGO_KILLS": str(options.kills), "MUSICFLAMINGO_REQUIRE_REAL": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, check=False)
    verdict = "nothing lost" if done.returncode == 0 else "FAILED"
    print(f"{options.kills} kills in {time.perf_counter() - started:.0f} s: {verdict}")
    sys.exit(done.returncode)


def measured(words: list[str]) -> tuple[float, float, str]:
    """Seconds, peak memory in MiB, and what was said first."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "musicflamingo_cli", *words]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert child.stdout
    said = child.stdout.read()
    _, _, usage = os.wait4(child.pid, 0)
    peak = usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return time.perf_counter() - started, peak, said.splitlines()[0]


if __name__ == "__main__":
    main()
