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
NO_TRACKS = ".musicflamingo-clips"  # in a folder of generated clips, which are no tracks of the dataset around it
CLIPS = "a folder of clips that `listen` made: no tracks"  # why its files are skipped
LEADS_OUT = "a link that leads out of the dataset (to follow it: --follow-links)"  # why a folder is skipped
STEMS = frozenset(["drums", "bass", "other", "vocals", "kick", "snare", "cymbals", "toms", "percussion"])


def track_for(audio: Path, within: Path | None = None) -> Track:
    """Return the track of an audio file: `Song/full_mix.flac` owns `Song/Song.INFO`, any other its `name.INFO`.

    ``within``: see Track.
    """
    return Track(audio, audio.with_name(_sidecar_name(audio.parent, audio.stem)), within)


def is_audio(file: Path) -> bool:
    """Return whether a file is audio, by the ending of its name."""
    return file.suffix.lower() in EXTENSIONS


def _sidecar_name(folder: Path, stem: str) -> str:
    # The folder's real name: the path may have led there by `..` or through a symlink of another name.
    return f"{Path(os.path.realpath(folder)).name if stem == FULL_MIX else stem}{SIDECAR_SUFFIX}"


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
        return _not_owner(track.audio, owner)


def _not_owner(audio: Path, owner: Path) -> Skipped:
    return Skipped(audio, f"{owner.name} has the same sidecar, {track_for(owner).sidecar.name}")


def find_tracks(
    root: Path | str,
    visited: set[tuple[int, int]] | None = None,
    sweep_leftovers: bool = False,
    extensions: Sequence[str] = (),
    follow_links: bool = False,
) -> Iterator[Track | Skipped]:
    """Yield all tracks under ``root`` in a stable, sorted order, and what was skipped or could not be read.

    Hidden files and folders, and the stems beside a full mix, are ignored without a message. Of a folder of generated
    clips, its own files are skipped, but not its folders. A folder that is reachable twice (symlinks) is visited once;
    ``visited`` carries that over several roots. A file as ``root`` is a track by itself. ``sweep_leftovers``: remove
    what killed processes left on the way. ``extensions`` (`flac`): where there are any, no other files count, not even
    for a shared sidecar. ``follow_links``: enter links to folders outside of ``root``, too; to sidecars that are links,
    each is a dataset of its own.
    """
    root = Path(root)
    if root.is_file():
        yield track_for(root)
        return
    wanted = frozenset(f".{extension}" for extension in extensions) & set(_RANK) if extensions else frozenset(_RANK)
    visited = set() if visited is None else visited
    # Not recursive, as a tree may be deeper than Python's stack. Of each level only the names are kept.
    pending = [iter([(root, Path(os.path.realpath(root)), False)])]
    while pending:
        if (next_one := next(pending[-1], None)) is None:
            pending.pop()
            continue
        folder, within, is_link = next_one
        if is_link and not (target := Path(os.path.realpath(folder))).is_relative_to(within):
            if not follow_links:
                yield Skipped(folder, LEADS_OUT)
                continue
            within = target
        try:
            if not _is_new(folder, visited):
                continue
            names, folders, links = _listed(folder, wanted, sweep_leftovers)
            if NO_TRACKS in links and folder != root:
                names = []
                yield Skipped(folder, CLIPS)
        except OSError as error:
            reason = f"cannot read the folder: {error.strerror}"
            yield Skipped(folder, reason, failed=True, kind=FailureKind.NO_PERMISSION)
            continue
        yield from tracks_in(folder, names, within)
        pending.append(_below(folder, folders, links, within))


def _is_new(folder: Path, visited: set[tuple[int, int]]) -> bool:
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in visited:
        return False
    visited.add(identity)
    return True


def _below(folder: Path, names: list[str], links: set[str], within: Path) -> Iterator[tuple[Path, Path, bool]]:
    for name in names:
        yield folder / name, within, name in links


def _listed(folder: Path, wanted: frozenset[str], sweep_leftovers: bool) -> tuple[list[str], list[str], set[str]]:
    """Return the names of a folder's audio files and of its folders, both sorted, and which folders are links."""
    names, folders, links, leftovers = [], [], set(), []
    with os.scandir(folder) as entries:
        for entry in entries:
            if sweep_leftovers and may_be_leftover(entry.name):
                leftovers.append(entry.name)
            if entry.name == NO_TRACKS:
                links.add(entry.name)
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                folders.append(entry.name)
                if entry.is_symlink():
                    links.add(entry.name)
            elif Path(entry.name).suffix.lower() in wanted:
                names.append(entry.name)
    for name in leftovers:
        sweep(folder / name)
    return sorted(names), sorted(folders), links


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symlink to itself: reported when it is read
        return False


def tracks_in(folder: Path, names: list[str], within: Path) -> Iterator[Track | Skipped]:
    """The tracks among a folder's audio files: of those that share a sidecar, the preferred one comes first."""
    is_organised = any(Path(name).stem == FULL_MIX for name in names)
    names = [name for name in names if not (is_organised and Path(name).stem.lower() in STEMS)]
    if len(names) == 1:  # as in a folder for each song
        yield track_for(folder / names[0], within)
        return

    def sidecar_of(name: str) -> str:
        return _sidecar_name(folder, Path(name).stem)

    # A flat folder may hold 100,000 files: hashes instead of names; equal ones of different names do no harm.
    seen: set[int] = set()
    repeated: set[int] = set()
    for name in names:
        number = hash(sidecar_of(name).casefold())
        (repeated if number in seen else seen).add(number)
    ignores_case = bool(repeated) and _ignores_case(folder, names)
    sharing: dict[str, list[str]] = {}  # sidecar to audio files, of those that may share one

    def key_of(sidecar: str) -> str:
        return sidecar.casefold() if ignores_case else sidecar

    for name in names if repeated else ():
        if hash((sidecar := sidecar_of(name)).casefold()) in repeated:
            sharing.setdefault(key_of(sidecar), []).append(name)
    for name in names:
        if not repeated or (group := sharing.get(key_of(sidecar_of(name)))) is None:
            yield track_for(folder / name, within)
        elif group[0] == name:  # in the order of the first file of each sidecar
            owner, *others = sorted(group, key=_preference)
            yield track_for(folder / owner, within)
            for other in others:
                yield _not_owner(folder / other, folder / owner)


def _ignores_case(folder: Path, names: list[str]) -> bool:
    """Whether `Song.INFO` and `song.INFO` are one file in this folder, as on macOS, exFAT and many a NAS."""
    other = names[0].swapcase()
    return other not in names and (folder / other).exists()


def _preference(name: str) -> tuple[bool, int, str]:
    path = Path(name)
    return path.stem != FULL_MIX, _RANK[path.suffix.lower()], name
