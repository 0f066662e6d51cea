"""What was captioned into its sidecar: apart from captioning, so that another machine may have done that."""

from __future__ import annotations

from dataclasses import replace

from musicflamingo_cli.errors import TrackError, kind_of
from musicflamingo_cli.sidecars.merge import merge_sidecar
from musicflamingo_cli.types import Failure, Outcome


def save_outcome(outcome: Outcome) -> Outcome:
    """Merge ``outcome.keys`` into the track's sidecar; return the outcome as saved, or with the reason why not."""
    if not outcome.keys:
        return outcome
    track = outcome.track
    try:
        merge_sidecar(track.sidecar, outcome.keys, track.within)
    except TrackError as error:
        return _not_saved(outcome, Failure.for_track(error))
    except OSError as error:
        return _not_saved(outcome, operating_system_failure(error))
    return replace(outcome, saved=True, keys={})


def _not_saved(outcome: Outcome, failure: Failure) -> Outcome:
    return replace(outcome, failures=(*outcome.failures, failure), keys={})


def operating_system_failure(error: OSError) -> Failure:
    """Return the failure of a track for which the system refused something."""
    where = f" ({error.filename})" if error.filename else ""
    return Failure(
        preset="",
        kind=kind_of(error),
        reason=f"{error.strerror or error}{where}",
        hint="check the disk's space and permissions, then run it again",
    )
