"""The sidecar as a file: reading it, and replacing it under its lock so that nothing is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from musicflamingo_cli.errors import FailureKind, SidecarBusyError, SidecarError, StorageError
from musicflamingo_cli.paths import read_regular
from musicflamingo_cli.sidecars.leftovers import LOCK_MARK, LOCK_SUFFIX, has_our_mark, lock_now, temporary_name
from musicflamingo_cli.types import Failure

LOCK_TIMEOUT = 60.0  # seconds; the same lock, library and time-out as the tools that share these files

_PROTECTED = "is write-protected"
_LATER = "run the same command again later"
_TRIES = 20  # while others that do not lock change the file
_SETTLING, _POLL = 0.5, 0.02  # seconds

_State = tuple[int, int, int, int] | None  # device, inode, size, time of change in ns; None: no file


def left_untouched(path: Path, reason: str) -> SidecarError:
    """Return the error for a sidecar whose content must not be changed."""
    return SidecarError(
        f"{path.name} was left untouched: {reason}", f"fix it, or move it away: mv '{path}' '{path}.broken'"
    )


def read_text(path: Path) -> str | None:
    """Return the sidecar's text; None where there is no file. Raises SidecarError."""
    try:
        return read_regular(path).decode("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise left_untouched(path, "it is not UTF-8 text") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # no such file can exist
            return None
        raise SidecarError(f"cannot read {path.name}: {error.strerror}", "check it and its permissions") from error


def target_of(path: Path, within: Path | None = None) -> Path:
    """Return the file that a sidecar's path leads to; all links to one sidecar share its lock and its claim.

    Raises SidecarError for a link that leads out of ``within`` (default: the sidecar's folder): whoever made the
    dataset could otherwise have a file of the user's written.
    """
    if not os.path.islink(path):  # noqa: PTH114  (Path's method raises for a name that is too long)
        return path
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(os.path.realpath(within or path.parent)):
        raise SidecarError(
            f"{path.name} is a link that leads out of the dataset; it was left untouched",
            f"replace it by a file of its own: rm '{path}'",
        )
    return target


def rewrite(path: Path, change: Callable[[str | None], str | None], within: Path | None = None) -> bool:
    """Replace a sidecar's text by what ``change`` returns for it (None: no file), under its lock and durably.

    ``within``: see ``target_of``. Return whether it changed. Raises SidecarError, and then the file is unchanged.
    """
    from filelock import FileLock, Timeout

    target = target_of(path, within)
    lock_file = target.with_name(target.name + LOCK_SUFFIX)
    try:
        _make_lock_file(lock_file, target)
        inode_before = _identity(lock_file)
        with FileLock(lock_file, timeout=LOCK_TIMEOUT):
            is_ours = _identity(lock_file) != inode_before or has_our_mark(lock_file)
            try:
                for _ in range(_TRIES):
                    seen, before, after = _changed(target, change)
                    if after is None or after == before:
                        return False
                    if _write_durably(target, after, seen):
                        return True
                raise SidecarBusyError(f"another program keeps changing {path.name}", _LATER)
            finally:
                # Another tool's lock file stays: its filelock may be older than 3.21, which does not check that the
                # file it locked is still the one at the path. Ours is removed while it is locked.
                if is_ours:
                    with contextlib.suppress(OSError):
                        lock_file.unlink()
    except Timeout as error:
        raise SidecarBusyError(
            f"another program held the lock of {path.name} for {LOCK_TIMEOUT:g} s", _LATER
        ) from error
    except OSError as error:
        raise StorageError(
            f"cannot write {path.name}: {error.strerror or error}",
            "check the disk's space and the folder's permissions",
            error,
        ) from error


def _changed(path: Path, change: Callable[[str | None], str | None]) -> tuple[_State, str | None, str | None]:
    """Return the state of the file before it was read, its text, and what ``change`` returns for that.

    A file that is empty or cannot be parsed may be in the middle of a write by a program that does not lock: it gets
    a moment to finish.
    """
    deadline = time.monotonic() + _SETTLING
    while True:
        seen = _state(path)
        is_last = time.monotonic() >= deadline
        try:
            before = read_text(path)
            if before != "" or is_last:
                return seen, before, change(before)
        except SidecarError:
            if is_last:
                raise
        time.sleep(_POLL)


def _state(path: Path) -> _State:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def obstacle(path: Path, within: Path | None = None) -> Failure | None:
    """Return what would keep the sidecar at ``path`` from being saved, to report it before any work is done.

    ``within``: see ``target_of``.
    """
    try:
        target = target_of(path, within)
    except SidecarError as error:
        return Failure.for_track(error)
    if not os.access(target.parent, os.W_OK | os.X_OK):
        return _no_permission(f"cannot write into {target.parent}", "give yourself permission to write there")
    if problem := _refusal(target):
        return _no_permission(f"{path.name} {problem[0]}", problem[1])
    if _is_too_long(target.with_name(target.name + LOCK_SUFFIX)):
        reason = "its name is too long for a sidecar beside it"
        return Failure(preset="", kind=FailureKind.NAME_TOO_LONG, reason=reason, hint="shorten it by some letters")
    return None


def _no_permission(reason: str, hint: str) -> Failure:
    return Failure(preset="", kind=FailureKind.NO_PERMISSION, reason=reason, hint=hint)


def _is_too_long(path: Path) -> bool:
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG
    return False


def _refusal(target: Path) -> tuple[str, str] | None:
    """Return why an existing file must not be replaced, and what to do; None where it may be.

    Replacing it needs only the folder's permission, but its own has a purpose: a person's, or that of a versioned
    store (git-annex, DVC) whose object a link leads to. Of a file with several names, a new one would have only one.
    """
    if (mode := _mode(target)) is None:
        return None
    if not mode & 0o222:
        return _PROTECTED, f"to allow it: chmod u+w '{target}'"
    if not os.access(target, os.W_OK):
        return "belongs to somebody else, and you may not write it", f"ask for permission to write '{target}'"
    if (names := target.stat().st_nlink) > 1:
        return f"has {names} names (hard links)", f"give it a file of its own: cp '{target}' x && mv x '{target}'"
    return None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _make_lock_file(lock_file: Path, sidecar: Path) -> None:
    """Make the lock file, where there is none, with our mark in it from the start: a kill may come at any moment.

    On a file system without hard links filelock makes it, without a mark.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(lock_file).st_mode):  # as made by a hostile dataset: a pipe, or a link elsewhere
            raise OSError(errno.EINVAL, f"{lock_file.name} is not a regular file")
        return
    marked = temporary_name(sidecar)
    try:
        with marked.open("x") as file:
            file.write(LOCK_MARK)
        with contextlib.suppress(OSError):
            os.link(marked, lock_file)
    finally:
        with contextlib.suppress(OSError):
            marked.unlink()


def _write_durably(path: Path, text: str, seen: _State) -> bool:
    """Replace ``path`` so that at any moment, even in a power cut, it holds the whole old or the whole new text.

    Return False, with the file as it is, where its state is no longer ``seen``: a program that does not lock wrote it.
    """
    mode = _mode(path)
    if problem := _refusal(path):
        raise PermissionError(errno.EACCES, f"it {problem[0]}; {problem[1]}")
    name = temporary_name(path)
    # For a new sidecar the kernel applies the umask; asking for the umask would set it for all threads. A sidecar that
    # replaces another is private until it has the old one's mode.
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            lock_now(descriptor)  # until it has its name: a sweep removes only what is not locked
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            if mode is not None:
                _keep_owner(name, path)
                _keep_attributes(name, path)
                os.chmod(name, mode)
            if _state(path) != seen:
                os.unlink(name)
                return False
            os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    _sync_folder(path.parent)
    return True


def _keep_owner(name: Path, target: Path) -> None:
    """Give the new file the old one's owner, or at least its group: root must not take it over.

    Raises PermissionError where not even the group can be kept, whose rights another one would get.
    """
    status = target.stat()
    for owner in (status.st_uid, -1):
        with contextlib.suppress(OSError):
            os.chown(name, owner, status.st_gid)
            return
    if name.stat().st_gid != status.st_gid:
        raise PermissionError(errno.EACCES, "its group cannot be kept")


def _keep_attributes(name: Path, target: Path) -> None:
    """Give the new file the old one's access list and extended attributes, and no others.

    A folder's default access list would give users rights that the old file did not give them. Raises PermissionError
    where one cannot be kept.
    """
    if not hasattr(os, "listxattr"):  # Linux only
        return
    new, old = _attributes(name), _attributes(target)
    for attribute in new.keys() - old.keys():
        if attribute.startswith("system."):
            os.removexattr(name, attribute)
    for attribute, value in old.items():
        if new.get(attribute) == value:
            continue
        try:
            os.setxattr(name, attribute, value)
        except OSError as error:
            raise PermissionError(errno.EACCES, f"its attribute {attribute} cannot be kept") from error


def _attributes(path: Path) -> dict[str, bytes]:
    """Return a file's extended attributes, access lists among them, without those that the system computes."""
    try:
        names = [name for name in os.listxattr(path) if name not in ("security.ima", "security.evm")]
        return {name: os.getxattr(path, name) for name in names}
    except OSError as error:
        if error.errno == errno.ENOTSUP:  # a file system without any
            return {}
        raise


def _mode(path: Path) -> int | None:
    """The file's permissions; None where there is no file yet, or none can exist."""
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
