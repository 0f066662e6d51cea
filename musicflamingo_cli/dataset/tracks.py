"""Which files of a folder are tracks, and which sidecar each belongs to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from musicflamingo_cli.sidecars.file import SUFFIX
from musicflamingo_cli.types import Skipped, Track

# In the order of preference where two files would share a sidecar: lossless first.
LOSSLESS = (".flac", ".wav", ".aiff", ".aif", ".aifc", ".alac", ".w64", ".caf", ".au", ".tta", ".wv", ".ape")
LOSSY = (".mp3", ".m4a", ".ogg", ".opus", ".aac", ".oga", ".mka", ".mp4", ".wma", ".webm", ".mp2", ".ac3")
EXTENSIONS = LOSSLESS + LOSSY
_RANK = {extension: rank for rank, extension in enumerate(EXTENSIONS)}

FULL_MIX = "full_mix"
STEMS = frozenset(["drums", "bass", "other", "vocals", "kick", "snare", "cymbals", "toms", "percussion"])


def track_for(audio: Path) -> Track:
    """The track that an audio file is: `Song/full_mix.flac` owns `Song/Song.INFO`, any other its `name.INFO`."""
    if audio.stem == FULL_MIX:
        # The folder's real name: it may have been reached by `..` or by a symlink of another name.
        return Track(audio, audio.parent / f"{Path(os.path.realpath(audio.parent)).name}{SUFFIX}")
    return Track(audio, audio.with_name(f"{audio.stem}{SUFFIX}"))


def find_tracks(
    root: Path | str,
    visited: set[tuple[int, int]] | None = None,
    leftover: Callable[[Path], None] | None = None,
    extensions: Sequence[str] = (),
) -> Iterator[Track | Skipped]:
    """All tracks under ``root`` in a stable, sorted order, and what was skipped or could not be looked into.

    Hidden files and folders, and the stems beside a full mix, are passed over in silence. A folder that is
    reachable twice (symlinks) is visited once; ``visited`` carries that over several roots. A file as ``root`` is a
    track by itself. ``leftover`` is called with what a killed process may have left: see ``sidecar`` and ``claims``.
    ``extensions`` (`flac`), where there are any: no other files count, also not as rivals for a sidecar.
    """
    root = Path(root)
    if root.is_file():
        yield track_for(root)
        return
    yield from _walk(root, set() if visited is None else visited, leftover, extensions)


def _walk(
    folder: Path,
    visited: set[tuple[int, int]],
    leftover: Callable[[Path], None] | None,
    extensions: Sequence[str],
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
        yield Skipped(folder, f"cannot look into the folder: {error.strerror}", failed=True, kind="no permission")
        return
    shown = [entry for entry in found if not entry.name.startswith(".")]
    if leftover is not None:
        for entry in found:
            if ".mf-" in entry.name or entry.name.endswith(f"{SUFFIX}.lock"):
                leftover(folder / entry.name)
    wanted = {f".{extension}" for extension in extensions} & set(_RANK) if extensions else _RANK
    names = [e.name for e in shown if Path(e.name).suffix.lower() in wanted and not _is_folder(e)]
    yield from _tracks_in(folder, names)
    for entry in shown:
        if _is_folder(entry):
            yield from _walk(folder / entry.name, visited, leftover, extensions)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symlink to itself: told when it is read
        return False


def _tracks_in(folder: Path, names: list[str]) -> Iterator[Track | Skipped]:
    is_organised = any(Path(name).stem == FULL_MIX for name in names)
    names = [name for name in names if not (is_organised and Path(name).stem.lower() in STEMS)]
    tracks = [track_for(folder / name) for name in names]
    sidecars = {track.sidecar.name for track in tracks}
    are_alike = len({name.casefold() for name in sidecars}) < len(sidecars)
    same = str.casefold if are_alike and _ignores_case(folder, names) else str
    by_sidecar: dict[str, list[Track]] = {}
    for track in tracks:
        by_sidecar.setdefault(same(track.sidecar.name), []).append(track)
    for rivals in by_sidecar.values():
        best, *others = sorted(rivals, key=_preference)
        yield best
        for other in others:
            yield rival_of(best.audio, other)


def rival_of(owner: Path, other: Track) -> Skipped:
    """A track whose sidecar is another's."""
    return Skipped(other.audio, f"{owner.name} has the same sidecar, {track_for(owner).sidecar.name}")


def _ignores_case(folder: Path, names: list[str]) -> bool:
    """Whether `Song.INFO` and `song.INFO` are one file in this folder, as on macOS, exFAT and many a NAS."""
    other = names[0].swapcase()
    return other not in names and (folder / other).exists()


def _preference(track: Track) -> tuple[bool, int, str]:
    return track.audio.stem != FULL_MIX, _RANK[track.audio.suffix.lower()], track.audio.name
