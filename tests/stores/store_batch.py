"""A process that captions a dataset in a store with an engine that waits: `store_batch.py FOLDER LEASE`.

Prints the key of each track that it saved.
"""

from __future__ import annotations

import sys

from musicflamingo_cli.captioning.captioner import Captioner, Policy
from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.stores.batch import StoreBatch
from musicflamingo_cli.stores.store import S3Store
from musicflamingo_cli.types import Outcome
from tests.fakes.engines import REAL_PAIR
from tests.fakes.pool import WaitingEngine


def main() -> None:
    folder, lease = sys.argv[1], float(sys.argv[2])

    def done(outcome: Outcome) -> None:
        assert not outcome.failures, outcome.failures
        if outcome.saved:
            print(outcome.track.audio, flush=True)

    captioner = Captioner(WaitingEngine(0.05, slots=2), REAL_PAIR, Policy(retries=0))
    presets = [Preset("full", "Describe it.")]
    StoreBatch(S3Store(), captioner, presets, Selection(), space=1 << 30, lease=lease).run(folder, done)


if __name__ == "__main__":
    main()
