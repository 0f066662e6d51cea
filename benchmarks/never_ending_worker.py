"""The worker of engine `native`, told to go on to the last token: for throughput.py, whose answers are noise."""

from __future__ import annotations

from typing import Any

from musicflamingo_cli.engines.native import model as native_model
from musicflamingo_cli.engines.native import worker as native_worker


def never(model: native_model.Model, token: int) -> bool:
    return False


if __name__ == "__main__":
    ending: Any = native_model.Model
    ending.is_end = never
    native_worker.main()
