"""`musicflamingo check` over a dataset: each track's captions are checked, and the result is saved in its sidecar."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from musicflamingo_cli.dataset.tracks import find_tracks
from musicflamingo_cli.errors import SidecarError
from musicflamingo_cli.sidecars.captions import CHECK_KEY
from musicflamingo_cli.sidecars.checks import basis_of, descriptions
from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar
from musicflamingo_cli.trust.check import TrackCheck, check_captions
from musicflamingo_cli.trust.claims import Field
from musicflamingo_cli.trust.habits import further_evidence
from musicflamingo_cli.trust.known import known_of
from musicflamingo_cli.trust.measuring import begin_worker, cores
from musicflamingo_cli.types import Failure, Skipped, Track

_CHUNK = 64  # tracks that a process gets at a time
_WRITERS = 8  # threads of a process that wait for the disk
_FEWEST_WORDS = 12  # a shorter caption may be the same by chance: "The tempo is 120 BPM."
_FEW = 200  # tracks for which starting processes takes longer than the work

_Digest = bytes
Shared = Mapping[_Digest, int]  # digest of a caption to the number of tracks that have it, where more than one has


@dataclass(frozen=True, slots=True)
class CheckedTrack:
    """The result for one track. ``check`` is None where it has no captions, or where ``failure`` says why."""

    track: Track
    check: TrackCheck | None = None
    failure: Failure | None = None


def check_dataset(
    root: Path, *, save: bool = True, follow_links: bool = False, processes: int | None = None
) -> Iterator[CheckedTrack]:
    """Check every track below ``root`` in a stable order; with ``save``, merge the results into the sidecars.

    ``processes``: default: the number of cores. Raises nothing for a single track.
    """
    tracks = [item for item in find_tracks(root, follow_links=follow_links) if not isinstance(item, Skipped)]
    shared = shared_captions(tracks)
    workers = processes or cores()
    if workers == 1 or len(tracks) < _FEW:
        for first in range(0, len(tracks), _CHUNK):
            yield from check_tracks(tracks[first : first + _CHUNK], shared, save)
        return
    context = get_context("spawn")  # fork would copy the locks of other threads
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare, initargs=(shared, save)) as pool:
        chunks = (tracks[first : first + _CHUNK] for first in range(0, len(tracks), _CHUNK))
        pending: deque[Future[list[CheckedTrack]]] = deque()
        try:
            for chunk in chunks:
                pending.append(pool.submit(_check_chunk, chunk))
                if len(pending) > 2 * workers:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def check_tracks(tracks: Sequence[Track], shared: Shared, save: bool) -> list[CheckedTrack]:
    """Check some tracks; see ``check_dataset``. Their sidecars are written side by side: each waits for the disk."""
    with ThreadPoolExecutor(_WRITERS) as pool:
        return [future.result() for future in [_check(track, shared, pool if save else None) for track in tracks]]


def _check(track: Track, shared: Shared, writers: Executor | None) -> Future[CheckedTrack]:
    """Check a track and begin to save the result; the future ends when it is saved."""
    done: Future[CheckedTrack] = Future()
    try:
        info = read_sidecar(track.sidecar)
        check = check_track(info, track.audio, shared)
    except SidecarError as error:
        done.set_result(CheckedTrack(track, failure=Failure.for_track(error)))
        return done
    result = CheckedTrack(track, check=check)
    if writers and check and info.get(CHECK_KEY) != (value := as_json(check, info)):
        return writers.submit(_save, result, value)
    done.set_result(result)
    return done


def _save(result: CheckedTrack, value: dict[str, Any]) -> CheckedTrack:
    try:
        merge_sidecar(result.track.sidecar, {CHECK_KEY: value}, result.track.within)
    except SidecarError as error:
        return CheckedTrack(result.track, failure=Failure.for_track(error))
    return result


def check_track(
    info: Mapping[str, Any], audio: Path, shared: Shared | None = None, also: Mapping[str, str] | None = None
) -> TrackCheck | None:
    """Return the check of the captions in a sidecar's data; None where there are none. ``audio``: the track's file.

    ``also``: further texts that are checked like captions, by name.
    """
    captions = descriptions(info) | dict(also or {})
    if not captions:
        return None
    known = known_of(info, audio, captions)
    counts = {preset: (shared or {}).get(_digest(preset, text), 1) - 1 for preset, text in captions.items()}
    more = further_evidence(info, captions)
    return check_captions(captions, known, more, shared={preset: number for preset, number in counts.items() if number})


def as_json(check: TrackCheck, info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of the sidecar's key: tempo and key always, other claims where something speaks to them."""
    captions: dict[str, list[dict[str, Any]]] = {}
    for each in check.claims:
        if each.evidence or each.claim.field in (Field.TEMPO, Field.KEY):
            captions.setdefault(each.preset, []).append(each.as_json())
    return {
        "score": check.score,
        "reasons": check.reasons,
        "contradicted": check.contradicted,
        "claims": captions,
        "basis": basis_of(info),
    }


def shared_captions(tracks: Iterable[Track]) -> dict[_Digest, int]:
    """Return the captions that several tracks have, as digests, with the number of tracks."""
    seen: Counter[_Digest] = Counter()
    for track in tracks:
        try:
            found = descriptions(read_sidecar(track.sidecar))
        except SidecarError:
            continue
        seen.update(_digest(preset, text) for preset, text in found.items() if len(text.split()) >= _FEWEST_WORDS)
    return {digest: number for digest, number in seen.items() if number > 1}


def _digest(preset: str, text: str) -> _Digest:
    """A hash of a caption that ignores case and white space."""
    return hashlib.sha256(f"{preset}\0{' '.join(text.lower().split())}".encode()).digest()[:12]


# -- in the worker processes ---------------------------------------------------------------------------

_job: dict[str, Any] = {}


def _prepare(shared: Shared, save: bool) -> None:
    begin_worker()
    _job.update(shared=shared, save=save)


def _check_chunk(tracks: list[Track]) -> list[CheckedTrack]:
    return check_tracks(tracks, _job["shared"], _job["save"])
