"""The place of an export: built under a temporary name, renamed when complete; foreign files are never replaced."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from musicflamingo_cli.choices import AudioPlacement
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.system.temporary import is_abandoned, owner

MARKER = ".musicflamingo-export"  # in each exported folder: one line per exported file, with its fingerprint
_TEMPORARY = ".mf-export-"
_DIGITS = 16  # of a hash
_OLD = ".old"  # ends the name of an export that is being replaced
# What people edit is compared by its bytes; tars and audio, which may be large, by size and time.
_TEXTS = (".json", ".jsonl", ".txt", ".py")


@contextlib.contextmanager
def new_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a folder to write an export into; it is renamed to ``out`` when the block ends without an error.

    Raises ConfigError where ``out`` is occupied. With ``overwrite`` an earlier export is replaced, but never one that
    holds foreign or edited files. This is checked first, and again when the new export is complete.
    """
    require_free_folder(out, overwrite)
    real = Path(os.path.realpath(out))  # a link to a folder stays, and the folder gets the export
    with _writing(out):
        building = _temporary_path(real)
    require_free_folder(out, overwrite)  # again: `_temporary_path` may have restored a killed run's export
    with _writing(out):
        building.mkdir(parents=True)
    try:
        yield building
        with _writing(out):
            _write_marker(building)
        require_free_folder(out, overwrite)
        with _writing(out):
            _put_in_place(building, real, overwrite)
    finally:
        shutil.rmtree(building, ignore_errors=True)


@contextlib.contextmanager
def new_file(out: Path, overwrite: bool, is_ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield a path to write a file to; it is renamed to ``out`` when the block ends without an error.

    Raises ConfigError where ``out`` is occupied. With ``overwrite`` a file is replaced if ``is_ours`` accepts it.
    """
    require_free_file(out, overwrite, is_ours)
    real = Path(os.path.realpath(out))
    with _writing(out):
        building = _temporary_path(real)
        building.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield building
        require_free_file(out, overwrite, is_ours)
        with _writing(out):
            os.replace(building, real)
    finally:
        building.unlink(missing_ok=True)


def require_free_file(out: Path, overwrite: bool, is_ours: Callable[[Path], bool]) -> None:
    """Raise ConfigError where a file must not be written to ``out``. Arguments: see ``new_file``."""
    if not os.path.lexists(out):
        return
    if out.is_dir():
        raise ConfigError(f"{out} is a folder; this format needs a file", "give the name of a file")
    if not out.is_file() or (out.stat().st_size and not is_ours(out)):
        raise ConfigError(f"{out} exists and is another kind of file", "choose another name")
    if not overwrite:
        raise ConfigError(f"{out} exists", "replace it with --overwrite, or choose another name")


def require_free_folder(out: Path, overwrite: bool) -> None:
    """Raise ConfigError where a folder must not be written to ``out``. Arguments: see ``new_folder``."""
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise ConfigError(f"{out} is a file; this format needs a folder", "choose another name")
    if os.path.ismount(out) or out.resolve() == Path.cwd():
        raise ConfigError(f"{out} cannot be replaced by an export", f"choose a folder in it: '{out / 'captions'}'")
    if not any(out.iterdir()):
        return
    _require_ours(out, out)
    if not overwrite:
        raise ConfigError(f"{out} already holds an export", "replace it with --overwrite, or choose another folder")


def _require_ours(folder: Path, out: Path) -> None:
    """Raise ConfigError unless a folder holds only files that its marker lists, unchanged. ``out`` is for messages."""
    if not (folder / MARKER).is_file():
        raise ConfigError(f"{out} is not empty and not an export", "choose a new folder")
    ours = dict(_marked(folder))
    for file in _files(folder):
        if file not in ours:
            raise ConfigError(f"{out} holds a file that is not part of the export: {file}", "move it away, then retry")
        if file != MARKER and _fingerprint(folder / file) != ours[file]:
            raise ConfigError(
                f"{out} holds a file that was edited after the export: {file}", "move it away, then retry"
            )


def remove_export(folder: Path) -> None:
    """Remove an earlier export; leave it where it holds foreign or edited files."""
    with contextlib.suppress(ConfigError, OSError):
        _require_ours(folder, folder)
        shutil.rmtree(folder)


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Turn an OSError of the block into a ConfigError."""
    try:
        yield
    except OSError as error:
        hint = "check the disk's space and the folder's permissions, or choose another place"
        raise ConfigError(f"cannot write {out}: {error.strerror or error}", hint) from error


def _temporary_path(out: Path) -> Path:
    """Return a new hidden path beside ``out``; restore or remove first what killed exports left at such paths."""
    if not out.name:
        raise ConfigError(f"an export cannot be written to {out}", "give the name of a new folder")
    start = f".{out.name}{_TEMPORARY}"
    for leftover in sorted(out.parent.glob(f"{glob.escape(start)}*")):
        name = leftover.name.removeprefix(start)
        if not is_abandoned(name.removesuffix(_OLD).rpartition("-")[0]):
            continue
        if name.endswith(_OLD) and not os.path.lexists(out):  # killed between the two renames: this is the export
            leftover.rename(out)
        elif name.endswith(_OLD):
            with contextlib.suppress(ConfigError):  # a folder that also holds foreign files stays
                _require_ours(leftover, out)
                shutil.rmtree(leftover, ignore_errors=True)
        elif leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    return out.with_name(f"{start}{owner()}-{secrets.token_hex(4)}")


def _write_marker(folder: Path) -> None:
    """Write the marker: a line `fingerprint "path"` for each file of the export."""
    with (folder / MARKER).open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as marker:
        for file in _files(folder):
            fingerprint = _fingerprint(folder / file) if file != MARKER else "-"
            marker.write(f"{fingerprint} {json.dumps(file)}\n")  # a name may hold a newline


def _marked(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield path and fingerprint of each file that the marker lists."""
    with (folder / MARKER).open(encoding="utf-8", errors="surrogateescape", newline="\n") as marker:
        for line in marker:
            fingerprint, _, file = line.rstrip("\n").partition(" ")
            yield json.loads(file), fingerprint


def _fingerprint(file: Path) -> str:
    """Return what changes when a file is edited: a hash of a text file or of a link's target, else size and time."""
    if file.is_symlink():
        return hashlib.sha256(os.fsencode(file.readlink())).hexdigest()[:_DIGITS]
    if file.suffix in _TEXTS:
        with file.open("rb") as content:  # in blocks, since a table grows with the dataset
            return hashlib.file_digest(content, "sha256").hexdigest()[:_DIGITS]
    status = file.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def _files(folder: Path) -> Iterator[str]:
    """Yield the paths of all files below a folder, relative to it, in a stable order. Links are not followed.

    Python's own cache is left out: it is made when a trainer imports an export's module.
    """
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in sorted([*names, *links]):
            yield (Path(parent) / name).relative_to(folder).as_posix()


def _put_in_place(building: Path, out: Path, overwrite: bool) -> None:
    """Rename ``building`` to ``out``. An old export is deleted last, and restored where the rename fails."""
    if not overwrite or not out.exists():
        building.rename(out)  # fails where another process has filled that folder meanwhile
        return
    old = building.with_name(f"{building.name}{_OLD}")
    try:
        out.rename(old)
        if any(old.iterdir()):
            _require_ours(old, out)  # checked under its new name, at which no other process adds files
        building.rename(out)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(out):
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def place_audio(audio: Path, target: Path, placement: AudioPlacement) -> None:
    """Link or copy a track's audio to ``target``. Raises ConfigError where links fail, OSError where copies do."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if placement == AudioPlacement.COPY:
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


def open_text(path: Path) -> IO[str]:
    """Open a new text file as UTF-8, with line ends as they are: the same bytes on every system."""
    return path.open("w", encoding="utf-8", newline="")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` and nothing else to a file: the same bytes on every system."""
    with open_text(path) as file:
        file.write(text)
