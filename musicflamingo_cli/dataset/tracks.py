"""Which files of a folder are tracks, and which sidecar each belongs to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from musicflamingo_cli.errors import FailureKind
from musicflamingo_cli.sidecars.leftovers import SIDECAR_SUFFIX, may_be_leftover, sweep
from musicflamingo_cli.types import Skipped, Track

# In the order of preference where two files would share a sidecar: lossless first.
LOSSLESS = (".flac", ".wav", ".aiff", ".aif", ".aifc", ".alac", ".w64", ".caf", ".au", ".tta", ".wv", ".ape")
LOSSY = (".mp3", ".m4a", ".ogg", ".opus", ".aac", ".oga", ".mka", ".mp4", ".wma", ".webm", ".mp2", ".ac3")
EXTENSIONS = LOSSLESS + LOSSY
_RANK = {extension: rank for rank, extension in enumerate(EXTENSIONS)}

FULL_MIX = "full_mix"
STEMS = frozenset(["drums", "bass", "other", "vocals", "kick", "snare", "cymbals", "toms", "percussion"])


def track_for(audio: Path) -> Track:
    """Return the track of an audio file: `Song/full_mix.flac` owns `Song/Song.INFO`, any other its `name.INFO`."""
    if audio.stem == FULL_MIX:
        # The folder's real name: the path may have led there by `..` or through a symlink of another name.
        return Track(audio, audio.parent / f"{Path(os.path.realpath(audio.parent)).name}{SIDECAR_SUFFIX}")
    return Track(audio, audio.with_name(f"{audio.stem}{SIDECAR_SUFFIX}"))


class SidecarOwners:
    """Which audio file owns each sidecar: the first that claims it. Every other file of that sidecar is skipped.

    ``identity`` tells which sidecars are the same file; the default follows symlinks.
    """

    def __init__(self, identity: Callable[[Path], str] = os.path.realpath) -> None:
        self._identity = identity
        self._owners: dict[str, Path] = {}

    def claim(self, track: Track) -> Skipped | None:
        """Claim the track's sidecar for its audio file; return why it is skipped where another file owns it."""
        owner = self._owners.setdefault(self._identity(track.sidecar), track.audio)
        if owner.name == track.audio.name:
            return None
        return Skipped(track.audio, f"{owner.name} has the same sidecar, {track_for(owner).sidecar.name}")


def find_tracks(
    root: Path | str,
    visited: set[tuple[int, int]] | None = None,
    sweep_leftovers: bool = False,
    extensions: Sequence[str] = (),
) -> Iterator[Track | Skipped]:
    """Yield all tracks under ``root`` in a stable, sorted order, and what was skipped or could not be read.

    Hidden files and folders, and the stems beside a full mix, are ignored without a message. A folder that is
    reachable twice (symlinks) is visited once; ``visited`` carries that over several roots. A file as ``root`` is a
    track by itself. ``sweep_leftovers``: remove what killed processes left on the way. ``extensions`` (`flac`): where
    there are any, no other files count, not even for a shared sidecar.
    """
    root = Path(root)
    if root.is_file():
        yield track_for(root)
        return
    yield from _walk(root, set() if visited is None else visited, sweep_leftovers, extensions)


def _walk(
    folder: Path, visited: set[tuple[int, int]], sweep_leftovers: bool, extensions: Sequence[str]
) -> Iterator[Track | Skipped]:
    try:
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in visited:
            return
        visited.add(identity)
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda e: e.name)
    except OSError as error:
        reason = f"cannot read the folder: {error.strerror}"
        yield Skipped(folder, reason, failed=True, kind=FailureKind.NO_PERMISSION)
        return
    if sweep_leftovers:
        for entry in found:
            if may_be_leftover(entry.name):
                sweep(folder / entry.name)
    shown = [entry for entry in found if not entry.name.startswith(".")]
    wanted = {f".{extension}" for extension in extensions} & set(_RANK) if extensions else _RANK
    names = [e.name for e in shown if Path(e.name).suffix.lower() in wanted and not _is_folder(e)]
    yield from _tracks_in(folder, names)
    for entry in shown:
        if _is_folder(entry):
            yield from _walk(folder / entry.name, visited, sweep_leftovers, extensions)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symlink to itself: reported when it is read
        return False


def _tracks_in(folder: Path, names: list[str]) -> Iterator[Track | Skipped]:
    """The tracks among a folder's audio files: of those that share a sidecar, the preferred one comes first."""
    is_organised = any(Path(name).stem == FULL_MIX for name in names)
    names = [name for name in names if not (is_organised and Path(name).stem.lower() in STEMS)]
    tracks = [track_for(folder / name) for name in names]
    sidecars = {track.sidecar.name for track in tracks}
    are_alike = len({name.casefold() for name in sidecars}) < len(sidecars)
    ignores_case = are_alike and _ignores_case(folder, names)

    def identity(sidecar: Path) -> str:
        return sidecar.name.casefold() if ignores_case else sidecar.name

    first_seen: dict[str, int] = {}
    for number, track in enumerate(tracks):
        first_seen.setdefault(identity(track.sidecar), number)
    owners = SidecarOwners(identity)
    for track in sorted(tracks, key=lambda track: (first_seen[identity(track.sidecar)], _preference(track))):
        yield owners.claim(track) or track


def _ignores_case(folder: Path, names: list[str]) -> bool:
    """Whether `Song.INFO` and `song.INFO` are one file in this folder, as on macOS, exFAT and many a NAS."""
    other = names[0].swapcase()
    return other not in names and (folder / other).exists()


def _preference(track: Track) -> tuple[bool, int, str]:
    return track.audio.stem != FULL_MIX, _RANK[track.audio.suffix.lower()], track.audio.name
