"""The messages between ``Generator`` and its worker process, besides those of ``engines.messages``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from musicflamingo_cli.config import GenerationSettings


@dataclass(frozen=True, slots=True)
class ClipOrder:
    """A clip to make. ``text``: the caption; None: no condition at all. ``target``: the WAV file to write.

    ``start``: a WAV file at the model's rate that the clip begins with, of ``start_samples`` samples; empty: none.
    ``melody``: a mono WAV file at the model's rate whose melody the clip follows; empty: none.
    """

    number: int
    text: str | None
    target: str
    start: str = ""
    start_samples: int = 0
    melody: str = ""


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """Clips to make together. Their starts are of one length."""

    orders: Sequence[ClipOrder]
    settings: GenerationSettings
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """How far the clips in progress are: ``share`` from 0 to 1 of ``clips`` clips."""

    slot: int
    share: float
    clips: int


@dataclass(frozen=True, slots=True)
class Made:
    """A clip that was written, or in ``error`` why it was not.

    ``tokens``: of the caption. ``read``: the characters of the caption that the text encoder got. ``samples``: of the
    clip, a channel. ``rate``: in Hz.
    """

    slot: int
    number: int
    error: str = ""
    tokens: int = 0
    read: int = 0
    samples: int = 0
    rate: int = 0
    channels: int = 0
