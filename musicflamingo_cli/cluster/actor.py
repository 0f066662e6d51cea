"""What runs on a node: an actor that holds a captioner. Imported by Ray there, and by the driver to send it."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from musicflamingo_cli.captioning.captioner import Captioner, open_captioner
from musicflamingo_cli.captioning.saving import save_outcome
from musicflamingo_cli.cluster.plan import Facts, Work, facts_of
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.pool.gpus import vulkan_numbers
from musicflamingo_cli.llamacpp.gpus import VULKAN_VARIABLE
from musicflamingo_cli.models.resolve import resolve_model
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.system.log_relay import RecordCollector
from musicflamingo_cli.system.temporary import folder_prefix
from musicflamingo_cli.types import Outcome, Track, Workload

CONTROL = "control"  # the group of calls that are answered while tracks are in progress


@dataclass(frozen=True, slots=True)
class SentTrack:
    """A track whose file the node does not see. ``modified``: in nanoseconds."""

    audio: bytes
    modified: int


@dataclass(frozen=True, slots=True)
class Status:
    """What an actor says of itself. ``sees``: whether it sees the datasets' folders."""

    node: str
    slots: int
    engine: str
    facts: Facts
    sees: bool
    records: list[logging.LogRecord]


@dataclass(frozen=True, slots=True)
class Reply:
    """The outcome of a track, and what was logged on the way."""

    outcome: Outcome
    records: list[logging.LogRecord]


class CaptionActor:
    """Holds a captioner, which is opened by the first call: errors of a constructor would arrive as text only."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._opening = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._captioner: Captioner | None = None
        self._logs = RecordCollector(logging.DEBUG if work.verbose else logging.INFO)
        self._logs.install()

    def status(self) -> Status:
        """Open the captioner, where it is not open, and say what there is. Raises ModelError and ToolMissingError."""
        captioner = self._open()
        return Status(
            node=os.uname().nodename,
            slots=captioner.slots,
            engine=captioner.engine.name,
            facts=facts_of(captioner.model.files),
            sees=all(map(os.path.exists, self._work.probes)),
            records=self._logs.drain(),
        )

    def process(self) -> int:
        """Return the number of this process."""
        return os.getpid()

    def caption(
        self,
        track: Track,
        presets: Sequence[Preset],
        info: Mapping[str, Any],
        writes: bool,
        sent: SentTrack | None = None,
    ) -> Reply:
        """Caption a track; with ``writes`` into its sidecar, else the outcome says what is to be written.

        ``info``: the sidecar's data. What has been written since, because this actor was given up, stays.
        """
        captioner = self._open()
        with _local(track, sent) as own:
            outcome = captioner.answer(own, presets, info)
        outcome = replace(outcome, track=track)
        return Reply(save_outcome(outcome, info) if writes else outcome, self._logs.drain())

    def stop(self) -> None:
        """End all tracks in progress, whose finished answers are returned; then end the engine and remove its files."""
        with self._opening:
            if self._captioner is not None:
                self._captioner.close()
            self._stack.close()

    def _open(self) -> Captioner:
        with self._opening:
            if self._captioner is None:
                settings = self._work.settings
                _choose_vulkan_gpus(settings)
                workload = Workload(1000, self._work.prompts, at_once=settings.slots or 64)
                model = resolve_model(settings)
                opened = open_captioner(
                    settings, workload, model, self._work.overwrite, self._work.improve, self._work.replace_edited
                )
                self._captioner = self._stack.enter_context(opened)
            return self._captioner


def _choose_vulkan_gpus(settings: Settings) -> None:
    """Have an engine on Vulkan use the GPUs of this actor: Ray names them for CUDA and HIP only."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES") or os.environ.get("HIP_VISIBLE_DEVICES")
    if chosen and VULKAN_VARIABLE not in os.environ and (numbers := vulkan_numbers(settings, chosen)):
        os.environ[VULKAN_VARIABLE] = numbers


def node_facts(files: Sequence[Path]) -> tuple[str, Facts]:
    """Return a node's name and its facts; a task of Ray."""
    return os.uname().nodename, facts_of(files)


@contextlib.contextmanager
def _local(track: Track, sent: SentTrack | None) -> Iterator[Track]:
    """The track where it is, or as a file of this machine, of the same name and time."""
    if sent is None:
        yield track
        return
    with tempfile.TemporaryDirectory(prefix=folder_prefix(), ignore_cleanup_errors=True) as folder:
        audio = Path(folder) / track.audio.name
        audio.write_bytes(sent.audio)
        os.utime(audio, ns=(sent.modified, sent.modified))
        yield Track(audio, audio.with_suffix(".INFO"))
