"""The command line with a worker of engine `native` that answers up to the last token, so that it can be stopped."""

from __future__ import annotations

import sys
from pathlib import Path

from musicflamingo_cli.__main__ import main
from musicflamingo_cli.engines.native import engine

WORKER = Path(__file__).parents[2] / "benchmarks" / "never_ending_worker.py"

if __name__ == "__main__":
    engine.WORKER = (sys.executable, str(WORKER))
    main()
