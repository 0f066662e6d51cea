"""Captions, tempo and key into the audio files' own tags, and back: the old values are kept in the sidecar.

A file is never changed in place: a copy is tagged, its audio is compared with the file's, and then it replaces it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from musicflamingo_cli.audio import tags
from musicflamingo_cli.dataset.tracks import find_tracks
from musicflamingo_cli.errors import AudioError, StorageError, TrackError
from musicflamingo_cli.exports.file_tags import TagField, TaggedFile, audio_digest
from musicflamingo_cli.sidecars.captions import (
    APPROVED_KEY,
    EXCLUDED_KEY,
    MEASURED_KEY,
    PROVENANCE_KEY,
    SEGMENTS_KEY,
    real_captions,
)
from musicflamingo_cli.sidecars.leftovers import lock_now, temporary_name
from musicflamingo_cli.sidecars.merge import REMOVED, merge_sidecar, read_sidecar, update_sidecar
from musicflamingo_cli.sidecars.segments import segments_with_audio
from musicflamingo_cli.system.identity import file_identity
from musicflamingo_cli.text.facts import key_of, tempo_of
from musicflamingo_cli.trust.measured import measured_of
from musicflamingo_cli.trust.verdicts import sure_of
from musicflamingo_cli.types import Skipped, Track

Values = Mapping[TagField, Sequence[str]]


@dataclass(frozen=True, slots=True)
class TagOptions:
    """What is written. ``field``: where captions go. ``follow_links``: also into files that links lead out to."""

    presets: Sequence[str]
    field: TagField = TagField.COMMENT
    bpm: bool = False
    key: bool = False
    only_approved: bool = False
    follow_links: bool = False


@dataclass(frozen=True, slots=True)
class Tagged:
    """The result for one track: the values of each field before and after. ``reason``: why nothing was changed."""

    track: Track
    before: Values = field(default_factory=dict)
    after: Values = field(default_factory=dict)
    reason: str = ""
    failed: bool = False


def tag_all(root: Path, options: TagOptions, dry_run: bool) -> Iterator[Tagged]:
    """Write the tags of every track, or with ``dry_run`` only tell what would be written."""
    for track in _tracks(root, options):
        yield _attempt(track, lambda each: _tag(each, root, options, dry_run))


def undo_all(root: Path, options: TagOptions, dry_run: bool) -> Iterator[Tagged]:
    """Give every track the tags back that were replaced; a field that was changed since stays as it is."""
    for track in _tracks(root, options):
        yield _attempt(track, lambda each: _undo(each, root, options, dry_run))


def _tracks(root: Path, options: TagOptions) -> Iterator[Track]:
    for item in find_tracks(root, follow_links=options.follow_links):
        if not isinstance(item, Skipped):
            yield item


def _attempt(track: Track, work: Any) -> Tagged:
    try:
        result: Tagged = work(track)
        return result
    except TrackError as error:
        return Tagged(track, reason=f"{error} - {error.hint}", failed=True)
    except OSError as error:
        return Tagged(track, reason=str(error.strerror or error), failed=True)


def _tag(track: Track, root: Path, options: TagOptions, dry_run: bool) -> Tagged:
    info = read_sidecar(track.sidecar)
    if info.get(EXCLUDED_KEY) is True:
        return Tagged(track, reason="excluded in the review")
    if options.only_approved and info.get(APPROVED_KEY) is not True:
        return Tagged(track, reason="not approved")
    wanted = _wanted(track, info, options)
    if not wanted:
        return Tagged(track, reason="no caption")
    audio = _require_own_file(track, root, options)
    now = TaggedFile(audio)
    before = {name: now.get(name) for name in wanted}
    changes = {name: values for name, values in wanted.items() if list(values) != before[name]}
    if not changes:
        return Tagged(track, reason="tagged already")
    if not dry_run:
        backup = _backup_of(info)
        kept, written = backup.get("fields", {}), backup.get("written", {})
        # What is there now is ours, or what another program has written since.
        fields = {
            str(name): kept[name] if name in kept and before[name] == written.get(name) else before[name]
            for name in changes
        }
        record = {
            "fields": {**kept, **fields},
            "written": {**written, **{str(name): list(values) for name, values in changes.items()}},
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        _replace(track, audio, changes, record)
    return Tagged(track, before={name: before[name] for name in changes}, after=changes)


def _undo(track: Track, root: Path, options: TagOptions, dry_run: bool) -> Tagged:
    info = read_sidecar(track.sidecar)
    backup = _backup_of(info)
    fields, written = backup.get("fields", {}), backup.get("written", {})
    if not fields:
        return Tagged(track, reason="not tagged by this program")
    audio = _require_own_file(track, root, options)
    now = TaggedFile(audio)
    before = {name: now.get(name) for name in TagField if name in fields}
    ours = {name: list(fields[name]) for name in before if before[name] == written.get(name)}
    changed_since = [str(name) for name in before if name not in ours and before[name] != list(fields[name])]
    if not dry_run and ours:
        _replace(track, audio, ours, REMOVED)
    elif not dry_run:
        merge_sidecar(track.sidecar, {tags.TAGS_KEY: REMOVED}, track.within)
    reason = f"changed since, and left as they are: {', '.join(changed_since)}" if changed_since else ""
    return Tagged(track, before={name: before[name] for name in ours}, after=ours, reason=reason)


def _wanted(track: Track, info: Mapping[str, Any], options: TagOptions) -> dict[TagField, list[str]]:
    """Return what a track's tags should be: tempo and key of other tools before measured before claimed ones."""
    captions = real_captions(info, options.presets)
    if not captions:
        return {}
    text = " ".join(captions.values())
    wanted = {options.field: ["\n\n".join(captions.values())]}
    known, measured = tags.stated(track.audio, info), measured_of(info, track.audio)
    tempo, key = sure_of(measured) if measured else (None, None)
    if options.bpm and (bpm := known.get("bpm") or (tempo and tempo.bpm) or tempo_of(text)):
        wanted[TagField.BPM] = [str(round(float(bpm)))]
    if options.key and (name := known.get("key") or (key and key.name) or key_of(text)):
        wanted[TagField.KEY] = [name]
    return wanted


def _backup_of(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the backup in a sidecar's data; empty where there is none, or one that nobody could have written."""
    backup = info.get(tags.TAGS_KEY)
    if not isinstance(backup, dict):
        return {}
    parts = {name: backup.get(name) for name in ("fields", "written")}
    is_valid = all(
        isinstance(part, dict)
        and all(isinstance(values, list) and all(isinstance(each, str) for each in values) for values in part.values())
        for part in parts.values()
    )
    return parts if is_valid else {}


def _require_own_file(track: Track, root: Path, options: TagOptions) -> Path:
    """Return the file to write. Raises AudioError where that is not the dataset's alone, or not writable."""
    audio = Path(os.path.realpath(track.audio))
    if not options.follow_links and not audio.is_relative_to(track.within or root.resolve()):
        raise AudioError(f"{track.audio.name} is a link that leads out of the dataset", "tag it with --follow-links")
    if audio.stat().st_nlink > 1:
        raise AudioError(f"{audio.name} has several names (hard links)", f"give it a file of its own: cp '{audio}' x")
    if not os.access(audio, os.W_OK):
        raise AudioError(f"{audio.name} is write-protected", f"to allow it: chmod u+w '{audio}'")
    return audio


def _replace(track: Track, audio: Path, changes: Values, record: Any) -> None:
    """Replace a file by a tagged copy with the same audio; the sidecar is first, so that the backup is never missing.

    Raises AudioError where the audio would change, SidecarError, and OSError; then the file is as it was.
    """
    name = temporary_name(audio)
    try:
        with name.open("xb") as lock:
            lock_now(lock.fileno())  # until it has its name: a sweep removes only what is not locked
            shutil.copyfile(audio, name)
            shutil.copystat(audio, name)
            tagged = TaggedFile(name, audio)
            for field_name, values in changes.items():
                tagged.set(field_name, values)
            try:
                tagged.save()
            except Exception as error:  # mutagen raises many types
                raise AudioError(f"the tags of {audio.name} cannot be written: {error}", "exclude it") from error
            if audio_digest(name) != audio_digest(audio):
                raise AudioError(
                    f"tags cannot be written into {audio.name} without a change of its audio", "exclude it"
                )
            status = audio.stat()
            with contextlib.suppress(OSError):
                os.chown(name, status.st_uid, status.st_gid)
            os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fsync(lock.fileno())
            old, new = file_identity(audio), file_identity(name)

            def keys(info: Mapping[str, Any]) -> Mapping[str, Any]:  # of the sidecar as it is by now
                return {**_with_identity(info, old, new), tags.TAGS_KEY: record}

            update_sidecar(track.sidecar, keys, track.within)
            os.replace(name, audio)
    except OSError as error:
        raise StorageError(f"cannot write {audio.name}: {error.strerror}", "check the disk's space", error) from error
    finally:
        with contextlib.suppress(OSError):
            name.unlink()


def _with_identity(
    info: Mapping[str, Any], was: Mapping[str, Any] | None, now: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the keys that say of what is recorded about the old file that it holds for the new one.

    Else every caption would be outdated, as the audio file has changed.
    """
    keys: dict[str, Any] = {}
    made = info.get(PROVENANCE_KEY)
    if isinstance(made, dict):
        keys[PROVENANCE_KEY] = {preset: {**each, "audio": now} for preset, each in made.items() if _is_of(each, was)}
    if was is not None and now is not None and (segments := segments_with_audio(info, was, now)):
        keys[SEGMENTS_KEY] = segments
    measured = info.get(MEASURED_KEY)
    if _is_of(measured, was):
        keys[MEASURED_KEY] = {**measured, "audio": now}  # type: ignore[dict-item]
    return {key: value for key, value in keys.items() if value}


def _is_of(made: Any, identity: Mapping[str, Any] | None) -> bool:
    recorded = made.get("audio") if isinstance(made, dict) else None
    return isinstance(recorded, dict) and identity is not None and recorded.get("hash") == identity["hash"]
