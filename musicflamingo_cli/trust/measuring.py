"""Measuring tracks: one in a single pass over its audio, many in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from musicflamingo_cli.audio.blocks import even
from musicflamingo_cli.audio.clip import resampled
from musicflamingo_cli.audio.decoding import open_source
from musicflamingo_cli.audio.key import Tonality
from musicflamingo_cli.audio.loudness import Levels, Loudness
from musicflamingo_cli.audio.mixing import Mixer
from musicflamingo_cli.audio.second_opinion import second_opinion
from musicflamingo_cli.audio.tempo import Rhythm
from musicflamingo_cli.errors import FailureKind, SidecarError, TrackError, kind_of
from musicflamingo_cli.sidecars.captions import MEASURED_KEY
from musicflamingo_cli.sidecars.file import obstacle
from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar
from musicflamingo_cli.system.identity import file_identity
from musicflamingo_cli.trust.measured import Measured, Stated, as_json, is_current, measured_of, stated_by_others
from musicflamingo_cli.types import Failure, Track

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

_CRASHED = "the process that measured it crashed"


@dataclass(frozen=True, slots=True)
class Measurement:
    """The result for one track: ``measured``, or why not.

    ``is_new``: measured now and saved, not found in the sidecar. ``stated``: what other tools wrote into the sidecar.
    ``seconds`` that it took, 0 where nothing was tried.
    """

    track: Track
    measured: Measured | None = None
    failure: Failure | None = None
    is_new: bool = False
    stated: Stated | None = None
    seconds: float = 0.0


def measure_track(audio: Path) -> Measured:
    """Measure an audio file in one pass; memory does not grow with its length. Raises AudioError."""
    identity = file_identity(audio)  # before it is read: a file that is replaced meanwhile must not pass for it
    mixer = Mixer()
    found = _measure(audio, mixer)
    if mixer.louder_channel is not None:  # the channels cancel out; rare enough to decode such a file twice
        found = _measure(audio, Mixer(mixer.louder_channel))
    rhythm, tonality, loudness, levels, seconds = found
    return Measured(
        tempo=rhythm.tempo(),
        key=tonality.key(),
        lufs=loudness.lufs(),
        seconds=round(seconds, 3),
        silence=levels.silence,
        width=levels.width,
        halves=tonality.halves(),
        tempi=rhythm.halves(),
        audio=identity,
        essentia=second_opinion(audio),
    )


def _measure(audio: Path, mixer: Mixer) -> tuple[Rhythm, Tonality, Loudness, Levels, float]:
    """Decode a file once; return what collected its samples, and its length in seconds."""
    rhythm, tonality = Rhythm(), Tonality()
    with open_source(audio) as source:
        loudness, levels, frames = Loudness(source.rate), Levels(source.rate), 0

        def blocks() -> Iterator[Samples]:
            nonlocal frames
            for block in even(source.blocks):
                frames += len(block)
                loudness.add(block)
                levels.add(block)
                yield block

        for samples in resampled(mixer.mono(blocks()), source.rate):
            rhythm.add(samples)
            tonality.add(samples)
        return rhythm, tonality, loudness, levels, frames / source.rate


def measure_tracks(
    tracks: Iterable[Track], workers: int | None = None, overwrite: bool = False
) -> Iterator[Measurement]:
    """Measure tracks in ``workers`` processes (default: one for each core); save each and yield it as it is done.

    Tracks whose sidecar holds a measurement of the same audio by this version are not measured again, unless
    ``overwrite`` is set. ``tracks`` may be endless: no more are taken than there are workers, and one more. Nothing
    about one track raises. Leaving the loop early waits for the tracks in progress.
    """
    with _Workers(workers or cores()) as pool:
        for track in tracks:
            if (known := known_result(track, overwrite)) is not None:
                yield known
                continue
            pool.start(track)
            while pool.is_full:
                yield from pool.finished()
        while pool.is_busy:
            yield from pool.finished()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def known_result(track: Track, overwrite: bool) -> Measurement | None:
    """Return the result for a track that needs no measuring, or cannot be saved; None where it has to be measured."""
    try:
        info = read_sidecar(track.sidecar)
    except SidecarError as error:
        return Measurement(track, failure=Failure.for_track(error))
    if not overwrite and is_current(info, track.audio):
        return Measurement(track, measured_of(info, track.audio), stated=stated_by_others(info))
    failure = obstacle(track.sidecar, track.within)
    return Measurement(track, failure=failure) if failure else None


def _measure_and_save(track: Track) -> Measurement:
    """Measure a track and merge the result into its sidecar. Runs in a worker."""
    started = time.monotonic()
    return replace(_attempt(track), seconds=time.monotonic() - started)


def _attempt(track: Track) -> Measurement:
    try:
        measured = measure_track(track.audio)
        merge_sidecar(track.sidecar, {MEASURED_KEY: as_json(measured)}, track.within)
        stated = stated_by_others(read_sidecar(track.sidecar))
    except TrackError as error:
        return Measurement(track, failure=Failure.for_track(error))
    except OSError as error:
        return Measurement(track, failure=_failure(kind_of(error), error.strerror or str(error)))
    except Exception as error:  # a bug, ours or a decoder's: one bad file must not end the run
        return Measurement(track, failure=_failure(FailureKind.BUG, f"{type(error).__name__}: {error}"))
    return Measurement(track, measured, is_new=True, stated=stated)


_WORK = _measure_and_save  # replaced in tests by work that crashes


def _failure(kind: FailureKind, reason: str) -> Failure:
    return Failure(preset="", kind=kind, reason=reason)


class _Workers:
    """Processes that measure tracks, each at its own pace; one that crashes costs the track that it measured."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._running: dict[Future[Measurement], Track] = {}
        self._processes = _processes(count)

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.shutdown(wait=True, cancel_futures=True)

    @property
    def is_busy(self) -> bool:
        """Whether anything is in progress."""
        return bool(self._running)

    @property
    def is_full(self) -> bool:
        """Whether no more should be started."""
        return len(self._running) > self._count

    def start(self, track: Track) -> None:
        """Begin to measure a track."""
        try:
            future = self._processes.submit(_WORK, track)
        except BrokenProcessPool:  # since the last result was taken
            future = Future()
            future.set_exception(BrokenProcessPool())
        self._running[future] = track

    def finished(self) -> Iterator[Measurement]:
        """Wait for a result; yield all that there are."""
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        for future in done:
            if isinstance(future.exception(), BrokenProcessPool):
                yield from self._each_alone()
                return
            del self._running[future]
            yield future.result()

    def _each_alone(self) -> Iterator[Measurement]:
        """Measure what was in progress when a process crashed, one by one: so the track that crashes it is known."""
        self._processes.shutdown()
        tracks, self._running = list(self._running.values()), {}
        for track in tracks:
            with _processes(1) as process:
                try:
                    yield process.submit(_WORK, track).result()
                except BrokenProcessPool:
                    yield Measurement(track, failure=_failure(FailureKind.UNREADABLE_AUDIO, _CRASHED))
        self._processes = _processes(self._count)


def _processes(count: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that other threads hold
    return ProcessPoolExecutor(count, context, initializer=begin_worker)


def begin_worker() -> None:
    """Leave Ctrl-C to the parent, die with it, and use one core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # numpy is imported later
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
