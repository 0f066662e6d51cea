"""A worker of `listen` that dies or hangs at a caption, for the tests of what restarts it.

Captions: `die` ends it, `hang` sends nothing for a minute, `die in a batch` ends it unless it is alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import soundfile

from musicflamingo_cli.engines.messages import Ready
from musicflamingo_cli.listening.messages import BatchRequest, Made, Step


def main() -> None:
    """Answer requests until one asks for the end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--connection", type=int)
    parser.add_argument("--folder")
    options = parser.parse_args()
    if message := Path(options.folder, "broken").exists() and Path(options.folder, "broken").read_text():
        sys.stderr.write(message)
        sys.exit(1)
    connection = Connection(options.connection)
    connection.send(Ready())
    while True:
        request: BatchRequest = connection.recv()
        texts = [order.text for order in request.orders]
        connection.send(Step(0, 0.5, len(texts)))
        if "die" in texts or ("die in a batch" in texts and len(texts) > 1):
            os._exit(9)
        if "hang" in texts:
            time.sleep(60)
        for order in request.orders:
            soundfile.write(order.target, np.zeros(100), 32_000)
            connection.send(Made(0, order.number, samples=100, rate=32_000, channels=len(texts)))


if __name__ == "__main__":
    main()
