"""The sidecar as a file: its lock, how it is replaced so that nothing is lost, and what a killed writer leaves."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from musicflamingo_cli.errors import SidecarBusyError, SidecarError, StorageError
from musicflamingo_cli.types import Failure

SUFFIX = ".INFO"
LOCK_SUFFIX = ".lock"
LOCK_TIMEOUT = 60.0  # seconds; the same lock, library and patience as the tools that share these files

_PROTECTED = "write-protected"
_MARK = "musicflamingo"  # what a lock file of ours holds; those of others are empty
_TEMPORARY = ".mf-{}.tmp"
_TEMPORARY_NAME = re.compile(re.escape(_TEMPORARY).replace(r"\{\}", "[0-9a-f]{16}"))


def refused(path: Path, why: str) -> SidecarError:
    """The error for a sidecar whose content is not to be touched."""
    return SidecarError(
        f"{path.name} was left untouched: {why}", f"mend it, or move it away: mv '{path}' '{path}.broken'"
    )


def read_text(path: Path) -> str | None:
    """The sidecar's text; None where there is none. Raises SidecarError."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise refused(path, "it is not UTF-8 text") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # there can be none
            return None
        raise SidecarError(f"cannot read {path.name}: {error.strerror}", "check its permissions") from error


def rewrite(path: Path, change: Callable[[str | None], str]) -> bool:
    """Replace a sidecar's text (None: there is none yet) by what ``change`` makes of it, under its lock and durably.

    Return whether it changed. Raises SidecarError, and then the file is as it was.
    """
    from filelock import FileLock, Timeout

    lock_file = path.with_name(path.name + LOCK_SUFFIX)
    try:
        _make_lock_file(lock_file, path)
        before_us = _identity(lock_file)
        with FileLock(lock_file, timeout=LOCK_TIMEOUT):
            is_ours = _identity(lock_file) != before_us or _is_ours(lock_file)
            try:
                before = read_text(path)
                after = change(before)
                if after == before:
                    return False
                _write_durably(path, after)
                return True
            finally:
                # A lock file that stood here before us stays: its owner's filelock may be older than 3.21, which
                # does not check that the file it locked is still the one at the path. Ours goes while we hold it.
                if is_ours:
                    with contextlib.suppress(OSError):
                        lock_file.unlink()
    except Timeout as error:
        raise SidecarBusyError(
            f"another program held the lock of {path.name} for {LOCK_TIMEOUT:g} s", "run the same command again later"
        ) from error
    except OSError as error:
        raise StorageError(
            f"cannot write {path.name}: {error.strerror or error}",
            "check the disk's space and the folder's permissions",
            error,
        ) from error


def sweep(file: Path) -> bool:
    """Whether this is a file that writing a sidecar left when it was killed; then it is removed, if nobody holds it.

    Knows temporary files, and lock files with our mark.
    """
    is_temporary = _TEMPORARY_NAME.fullmatch(file.name)
    if not is_temporary and not (file.name.endswith(SUFFIX + LOCK_SUFFIX) and _is_ours(file)):
        return False
    with contextlib.suppress(OSError):
        descriptor = os.open(file, os.O_RDWR)
        try:
            if _lock_now(descriptor):
                file.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
    return True


def _lock_now(descriptor: int) -> bool:
    """Lock an open file, as filelock does, if that needs no waiting. False too where there are no such locks."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def _is_ours(lock_file: Path) -> bool:
    try:
        with lock_file.open("rb") as file:
            return file.read(len(_MARK) + 1) == _MARK.encode()
    except OSError:
        return False


def obstacle(path: Path) -> Failure | None:
    """What would keep the sidecar at ``path`` from being saved, to be told before its track is heard."""
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return Failure(
            "", "no permission", f"cannot write into {path.parent}", "give yourself permission to write there"
        )
    if _is_protected(_mode(path)):
        return Failure("", "no permission", f"{path.name} is {_PROTECTED}", f"if you mean to: chmod u+w '{path}'")
    if _is_too_long(path.with_name(path.name + LOCK_SUFFIX)):
        reason = "its name is too long for a sidecar beside it"
        return Failure("", "name too long", reason, "shorten it by some letters")
    return None


def _is_too_long(path: Path) -> bool:
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG
    return False


def _is_protected(mode: int | None) -> bool:
    """Whether nobody may write the file. Replacing it needs the folder's permission only, but somebody meant it: a
    person, or a store of versions (git-annex, DVC) whose object a link leads to."""
    return mode is not None and not mode & 0o222


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _make_lock_file(lock_file: Path, sidecar: Path) -> None:
    """Make the lock file, where there is none, with our mark in it from its first moment: a kill comes at any.

    On a file system without hard links filelock makes it, without a mark.
    """
    if lock_file.exists():
        return
    marked = _temporary_name(sidecar)
    try:
        with marked.open("x") as file:
            file.write(_MARK)
        with contextlib.suppress(OSError):
            os.link(marked, lock_file)
    finally:
        with contextlib.suppress(OSError):
            marked.unlink()


def _temporary_name(sidecar: Path) -> Path:
    return sidecar.with_name(_TEMPORARY.format(secrets.token_hex(8)))  # short: the sidecar's own may be at the limit


def _write_durably(path: Path, text: str) -> None:
    """Replace ``path`` so that at any moment, power cuts included, the old or the new text is there, whole."""
    target = Path(os.path.realpath(path))  # a symlink stays one
    mode = _mode(target)
    if _is_protected(mode):
        raise PermissionError(errno.EACCES, f"it is {_PROTECTED}")
    name = _temporary_name(target)
    # A new sidecar gets what the umask says, which the kernel applies; asking for the umask would set it for all
    # threads. One that replaces another is private until it has that one's mode.
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            _lock_now(descriptor)  # until it has its name: a sweep takes only what nobody holds
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            _keep_owner(name, target)
            if mode is not None:
                os.chmod(name, mode)
            os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    _sync_folder(target.parent)


def _keep_owner(name: Path, target: Path) -> None:
    """Give the new file the old one's owner, or at least its group, where we may: root must not take it over."""
    with contextlib.suppress(OSError):
        status = target.stat()
        for owner in (status.st_uid, -1):
            with contextlib.suppress(PermissionError):
                os.chown(name, owner, status.st_gid)
                return


def _mode(path: Path) -> int | None:
    """The file's permissions; None where there is none yet, or none can be."""
    try:
        return path.stat().st_mode & 0o7777
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
            return None
        raise


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot; the replace itself is done
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
