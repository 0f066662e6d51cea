"""Where an export goes: built aside, and there under its name only when it is whole."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.scratch import is_abandoned, owner

MARKER = ".musicflamingo-export"  # in a folder of ours: a line for each file that we wrote
_ASIDE = ".mf-export-"


@contextlib.contextmanager
def new_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """A folder to write an export into, which becomes ``out`` when the block ends without an error.

    Raises ConfigError where something is there already: with ``overwrite`` an earlier export is replaced, but nothing
    that holds files of anybody else.
    """
    _require_free(out, overwrite)
    building = _aside(out)
    building.mkdir(parents=True)
    try:
        yield building
        _write_marker(building)
        _put_in_place(building, out)
    finally:
        shutil.rmtree(building, ignore_errors=True)


@contextlib.contextmanager
def new_file(out: Path, overwrite: bool) -> Iterator[Path]:
    """A path to write a file to, which becomes ``out`` when the block ends without an error. Raises ConfigError."""
    if out.is_dir():
        raise ConfigError(f"{out} is a folder, and this format is one file", f"name it: '{out / 'captions'}'")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists", "replace it with --overwrite, or name another file")
    building = _aside(out)
    building.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield building
        os.replace(building, out)
    finally:
        building.unlink(missing_ok=True)


def _aside(out: Path) -> Path:
    """A hidden name beside ``out``; what a killed export has left under such a name goes."""
    start = f".{out.name}{_ASIDE}"
    for leftover in out.parent.glob(f"{glob.escape(start)}*"):
        if is_abandoned(leftover.name.removeprefix(start)):
            shutil.rmtree(leftover, ignore_errors=True)
            with contextlib.suppress(OSError):
                leftover.unlink()
    return out.with_name(f"{start}{owner()}")


def _require_free(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError(f"{out} is a file, and this format is a folder", "name another one")
    if not any(out.iterdir()):
        return
    if not (out / MARKER).is_file():
        raise ConfigError(f"{out} is not empty, and no export of ours", "name a new folder")
    if not overwrite:
        raise ConfigError(f"{out} holds an export already", "replace it with --overwrite, or name another folder")
    ours = set((out / MARKER).read_text(encoding="utf-8", errors="surrogateescape").splitlines())
    for file in _files(out):
        if file not in ours:
            raise ConfigError(f"{out} holds a file that we did not write: {file}", "move it away, then try again")


def _write_marker(folder: Path) -> None:
    with (folder / MARKER).open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as marker:
        marker.writelines(f"{file}\n" for file in (MARKER, *_files(folder)))


def _files(folder: Path) -> Iterator[str]:
    """All files below a folder, links not followed, in a stable order."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in sorted([*names, *links]):
            yield (Path(parent) / name).relative_to(folder).as_posix()


def _put_in_place(building: Path, out: Path) -> None:
    if not out.exists():
        building.rename(out)
        return
    old = building.with_name(f"{building.name}.old")
    out.rename(old)
    try:
        building.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def place_audio(audio: Path, target: Path, how: str) -> None:
    """Put a track's audio at ``target``, as a `link` to it or a `copy`. Raises ConfigError where links fail."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if how == "copy":
        shutil.copyfile(audio, target)
        return
    try:
        target.symlink_to(os.path.realpath(audio))
    except OSError as error:
        raise ConfigError(f"cannot link to {audio.name}: {error.strerror}", "use --audio copy") from error
