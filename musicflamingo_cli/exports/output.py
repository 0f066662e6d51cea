"""Where an export goes: built aside, in place when it is whole, and never in place of anybody else's files."""

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

from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.system.temporary import is_abandoned, owner

LINK, COPY = "link", "copy"  # how audio comes into an export
MARKER = ".musicflamingo-export"  # in a folder of ours: a line for each file that we wrote, and how it was
_ASIDE = ".mf-export-"
_OLD = ".old"  # an export that is being replaced
_TEXTS = (".json", ".jsonl", ".txt", ".py")  # what people edit: known by its bytes; tars and audio by their size


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
    require_free_folder(out, overwrite)  # again: a killed run's export may be back
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
        raise ConfigError(f"{out} is no folder, and this format is one", "name another place")
    if os.path.ismount(out) or out.resolve() == Path.cwd():
        raise ConfigError(f"{out} cannot be replaced by an export", f"name a folder in it: '{out / 'captions'}'")
    if not any(out.iterdir()):
        return
    _require_ours(out, out)
    if not overwrite:
        raise ConfigError(f"{out} holds an export already", "replace it with --overwrite, or name another folder")


def _require_ours(folder: Path, out: Path) -> None:
    """Raises ConfigError where a folder holds anything but what its marker says that we wrote."""
    if not (folder / MARKER).is_file():
        raise ConfigError(f"{out} is not empty, and no export of ours", "name a new folder")
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
        elif name.endswith(_OLD):
            with contextlib.suppress(ConfigError):  # what somebody else put there stays
                _require_ours(leftover, out)
                shutil.rmtree(leftover, ignore_errors=True)
        elif leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    return out.with_name(f"{start}{owner()}-{secrets.token_hex(4)}")


def _write_marker(folder: Path) -> None:
    with (folder / MARKER).open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as marker:
        for file in _files(folder):
            fingerprint = _fingerprint(folder / file) if file != MARKER else "-"
            marker.write(f"{fingerprint} {json.dumps(file)}\n")  # a name may hold a newline


def _marked(folder: Path) -> Iterator[tuple[str, str]]:
    with (folder / MARKER).open(encoding="utf-8", errors="surrogateescape", newline="\n") as marker:
        for line in marker:
            fingerprint, _, file = line.rstrip("\n").partition(" ")
            yield json.loads(file), fingerprint


def _fingerprint(file: Path) -> str:
    """What tells a file that we wrote from one that was edited: a text's bytes, a link's target, another's size."""
    if file.is_symlink():
        return _digest(os.fsencode(file.readlink()))
    if file.suffix in _TEXTS:
        return _digest(file.read_bytes())
    return str(file.stat().st_size)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _files(folder: Path) -> Iterator[str]:
    """All files below a folder, links not followed, in a stable order."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in sorted([*names, *links]):
            yield (Path(parent) / name).relative_to(folder).as_posix()


def _put_in_place(building: Path, out: Path, overwrite: bool) -> None:
    """Rename; what stood there is deleted last, and comes back where this ends before the new one is there."""
    if not overwrite or not out.exists():
        building.rename(out)  # fails where somebody has filled a folder there meanwhile
        return
    old = building.with_name(f"{building.name}{_OLD}")
    try:
        out.rename(old)
        if any(old.iterdir()):
            _require_ours(old, out)  # nobody adds to it any more: it has another name
        building.rename(out)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(out):
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def place_audio(audio: Path, target: Path, how: str) -> None:
    """Put a track's audio at ``target``, as a `link` to it or a `copy`. Raises ConfigError where links fail."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if how == COPY:
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
    """A new text file, the same bytes on every system."""
    return path.open("w", encoding="utf-8", newline="")


def write_text(path: Path, text: str) -> None:
    """``text`` and nothing else as a file, the same bytes on every system."""
    with open_text(path) as file:
        file.write(text)
