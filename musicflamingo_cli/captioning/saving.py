"""What was captioned into its sidecar: apart from captioning, so that another machine may have done that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from musicflamingo_cli.errors import FailureKind, TrackError, kind_of
from musicflamingo_cli.sidecars.captions import caption_key, without_changed, without_edited
from musicflamingo_cli.sidecars.merge import update_sidecar
from musicflamingo_cli.types import KEY_PREFIX, Failure, Outcome


def save_outcome(outcome: Outcome, before: Mapping[str, Any] | None = None) -> Outcome:
    """Merge ``outcome.keys`` into the track's sidecar; return the outcome as saved, or with the reason why not.

    ``before``: see keys_to_save.
    """
    if not outcome.keys:
        return outcome
    track = outcome.track
    saved: Mapping[str, Any] = {}

    def keys(now: Mapping[str, Any]) -> Mapping[str, Any]:
        nonlocal saved
        saved = keys_to_save(outcome, now, before)
        return saved

    try:
        update_sidecar(track.sidecar, keys, track.within)
    except TrackError as error:
        return _not_saved(outcome, Failure.for_track(error))
    except OSError as error:
        return _not_saved(outcome, operating_system_failure(error))
    return as_saved(outcome, saved)


def as_saved(outcome: Outcome, saved: Mapping[str, Any]) -> Outcome:
    """Return the outcome without those captions in whose place a sidecar kept what was written meanwhile.

    ``saved``: those of its keys that were merged.
    """
    kept = [key for each in outcome.captions if (key := caption_key(each.preset)) in outcome.keys and key not in saved]
    if not kept:
        return replace(outcome, saved=True, keys={})
    names = ", ".join(key.removeprefix(KEY_PREFIX) for key in kept)
    captions = tuple(each for each in outcome.captions if caption_key(each.preset) not in kept)
    reason = f"edited or captioned meanwhile, and kept: {names}"
    if not (saved or outcome.failures):
        return replace(outcome, captions=captions, keys={}, skipped=reason)
    return replace(outcome, captions=captions, saved=bool(saved), keys={}, notes=(*outcome.notes, reason))


def keys_to_save(
    outcome: Outcome, now: Mapping[str, Any], before: Mapping[str, Any] | None = None
) -> Mapping[str, Any]:
    """Return what to merge into a sidecar that holds ``now``: a person may have edited captions since it was read.

    ``before``: what the sidecar held when it was read, where another process may have captioned the track since,
    because this one was taken for dead. Captions that have changed stay.
    """
    keys = outcome.keys if outcome.replaces_edited else without_edited(outcome.keys, now)
    return keys if before is None else without_changed(keys, before, now)


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


def bug_failure(error: Exception) -> Failure:
    """Return the failure of a track for which the program, or a decoder, did something that it never should."""
    reason = f"{type(error).__name__}: {error}"
    return Failure(preset="", kind=FailureKind.BUG, reason=reason, hint="this is a bug: report it with this file")
