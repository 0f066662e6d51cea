"""Where an export goes: built aside, in place when it is whole, and never in place of anybody else's files."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.scratch import is_abandoned, owner

MARKER = ".musicflamingo-export"  # in a folder of ours: a line for each file that we wrote, and how it was
_ASIDE = ".mf-export-"
_OLD = ".old"  # an export that is being replaced
_HASHED = 1 << 20  # bytes; of larger files (tars) only the size is kept


@contextlib.contextmanager
def new_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """A folder to write an export into, which becomes ``out`` when the block ends without an error.

    Raises ConfigError where something is there already: with ``overwrite`` an earlier export is replaced, but nothing
    that holds files of anybody else, or that somebody has edited. Looked at again when the new one is ready.
    """
    require_free_folder(out, overwrite)
    real = Path(os.path.realpath(out))  # behind a link is what is meant
    with _writing(out):
        building = _aside(real)
        building.mkdir(parents=True)
    try:
        yield building
        with _writing(out):
            _write_marker(building)
            _put_in_place(building, real)
    finally:
        shutil.rmtree(building, ignore_errors=True)


@contextlib.contextmanager
def new_file(out: Path, overwrite: bool, is_ours: Callable[[Path], bool]) -> Iterator[Path]:
    """A path to write a file to, which becomes ``out`` when the block ends without an error.

    Raises ConfigError where something is there already: with ``overwrite`` a file is replaced that ``is_ours``.
    """
    require_free_file(out, overwrite, is_ours)
    real = Path(os.path.realpath(out))
    with _writing(out):
        building = _aside(real)
        building.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield building
        require_free_file(out, overwrite, is_ours)
        with _writing(out):
            os.replace(building, real)
    finally:
        building.unlink(missing_ok=True)


def require_free_file(out: Path, overwrite: bool, is_ours: Callable[[Path], bool]) -> None:
    """Raises ConfigError where a file cannot go to ``out``."""
    if not os.path.lexists(out):
        return
    if out.is_dir():
        raise ConfigError(f"{out} is a folder, and this is one file", "name a file")
    if not out.is_file() or (out.stat().st_size and not is_ours(out)):
        raise ConfigError(f"{out} exists, and we did not write it", "name another file")
    if not overwrite:
        raise ConfigError(f"{out} exists", "replace it with --overwrite, or name another file")


def require_free_folder(out: Path, overwrite: bool) -> None:
    """Raises ConfigError where a folder cannot go to ``out``."""
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise ConfigError(f"{out} is a file, and this format is a folder", "name another one")
    if not any(out.iterdir()):
        return
    if not (out / MARKER).is_file():
        raise ConfigError(f"{out} is not empty, and no export of ours", "name a new folder")
    if not overwrite:
        raise ConfigError(f"{out} holds an export already", "replace it with --overwrite, or name another folder")
    _require_untouched(out, out)


def _require_untouched(folder: Path, out: Path) -> None:
    """Raises ConfigError where a folder holds anything but what its marker says that we wrote."""
    ours = dict(_marked(folder))
    for file in _files(folder):
        if file not in ours:
            raise ConfigError(f"{out} holds a file that we did not write: {file}", "move it away, then try again")
        if file != MARKER and _fingerprint(folder / file) != ours[file]:
            raise ConfigError(f"{out} holds a file that was changed since: {file}", "move it away, then try again")


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    """What the file system refuses is one sentence."""
    try:
        yield
    except OSError as error:
        hint = "check the disk's space and the folder's permissions, or name another place"
        raise ConfigError(f"cannot write {out}: {error.strerror or error}", hint) from error


def _aside(out: Path) -> Path:
    """A hidden name beside ``out``, after what killed exports have left under such names was put right."""
    if not out.name:
        raise ConfigError(f"{out} is no place for an export", "name a new folder")
    start = f".{out.name}{_ASIDE}"
    for leftover in sorted(out.parent.glob(f"{glob.escape(start)}*")):
        name = leftover.name.removeprefix(start)
        if not is_abandoned(name.removesuffix(_OLD).rpartition("-")[0]):
            continue
        if name.endswith(_OLD) and not os.path.lexists(out):  # killed between two renames: it is the export
            leftover.rename(out)
        elif leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    return out.with_name(f"{start}{owner()}-{secrets.token_hex(4)}")


def _write_marker(folder: Path) -> None:
    with (folder / MARKER).open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as marker:
        for file in _files(folder):
            marker.write(f"{_fingerprint(folder / file) if file != MARKER else '-'} {file}\n")


def _marked(folder: Path) -> Iterator[tuple[str, str]]:
    with (folder / MARKER).open(encoding="utf-8", errors="surrogateescape", newline="\n") as marker:
        for line in marker:
            fingerprint, _, file = line.rstrip("\n").partition(" ")
            yield file, fingerprint


def _fingerprint(file: Path) -> str:
    """What tells a file that we wrote from one that was edited: its bytes, or for a link where it points."""
    if file.is_symlink():
        content = os.fsencode(file.readlink())
    elif file.stat().st_size > _HASHED:
        return f"{file.stat().st_size}"
    else:
        content = file.read_bytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _files(folder: Path) -> Iterator[str]:
    """All files below a folder, links not followed, in a stable order."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in sorted([*names, *links]):
            yield (Path(parent) / name).relative_to(folder).as_posix()


def _put_in_place(building: Path, out: Path) -> None:
    """Rename; what stood there is deleted last, and comes back whatever interrupts this."""
    if not out.exists() or not any(out.iterdir()):  # a folder that was filled meanwhile makes the rename fail
        building.rename(out)
        return
    old = building.with_name(f"{building.name}{_OLD}")
    out.rename(old)
    try:
        _require_untouched(old, out)  # nobody adds to it any more: it has another name
        building.rename(out)
    except BaseException:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def place_audio(audio: Path, target: Path, how: str) -> None:
    """Put a track's audio at ``target``, as a `link` to it or a `copy`. Raises ConfigError where links fail."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if how == "copy":
        try:
            shutil.copyfile(audio, target)
        except OSError:
            target.unlink(missing_ok=True)
            raise
        return
    try:
        target.symlink_to(audio.absolute())
    except OSError as error:
        raise ConfigError(f"cannot link to {audio.name}: {error.strerror}", "use --audio copy") from error
