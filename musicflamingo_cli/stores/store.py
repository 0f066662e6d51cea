"""An object store, through fsspec: listing, reading, and writing on the condition that nothing else has written."""

from __future__ import annotations

import contextlib
import errno
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from musicflamingo_cli.errors import ConfigError, SidecarError, ToolMissingError

_URL = re.compile(r"(s3|gs|hf):/{1,2}([^/].*)")  # pathlib leaves one slash
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub"}
HOW_TO_INSTALL = "pip install 'musicflamingo[stores]'"
_LARGEST_TEXT = 16 << 20  # bytes of a sidecar


class ConflictError(Exception):
    """Something else has written the object meanwhile, or it exists already."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An object or, with ``is_folder``, what stands for a folder. ``modified``: seconds since 1970."""

    key: str
    size: int
    modified: float
    is_folder: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """An object's content; ``tag`` identifies this version of it."""

    data: bytes
    tag: str


class Store(Protocol):
    """What a batch needs of a store. Every method raises OSError where the store refuses."""

    scheme: str
    is_conditional: bool

    def require_conditions(self, folder: str) -> None:
        """Make sure that writes in a folder take conditions, by writing there; do nothing where none are given.

        Raises ConfigError where they do not, or where nothing can be written.
        """
        ...

    def list(self, folder: str) -> list[Entry]:
        """Return what is in a folder, without its subfolders' content."""
        ...

    def download(self, key: str, file: Path) -> None:
        """Write an object into a file."""
        ...

    def read(self, key: str) -> Stored | None:
        """Return a small object; None where there is none."""
        ...

    def write(self, key: str, data: bytes, tag: str | None) -> str:
        """Write an object that has this version (None: that does not exist); return the new version.

        Raises ConflictError, and then it is unchanged. A store without conditions writes in any case.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove an object, if it exists."""
        ...


def is_store_url(text: str) -> bool:
    """Return whether a dataset is in a store, by its name."""
    return _URL.fullmatch(text) is not None


def open_store(text: str, single_writer: bool) -> tuple[Store, str]:
    """Return the store of a URL, and the folder in it.

    Raises ToolMissingError without the extra, ConfigError for a store without conditional writes, unless
    ``single_writer`` says that no other process writes there.
    """
    match = _URL.fullmatch(text)
    assert match
    scheme, folder = match[1], match[2].strip("/")
    for package in ("fsspec", _PACKAGES[scheme]):
        if find_spec(package) is None:
            how = "pip install gcsfs" if package == "gcsfs" else HOW_TO_INSTALL
            raise ToolMissingError(f"{scheme}:// needs {package}", f"install it with: {how}")
    if scheme == "s3":
        return S3Store(is_conditional=not single_writer), folder
    if not single_writer:
        raise _without_conditions(f"{scheme}:// is written without conditions")
    return PlainStore(scheme), folder


def _without_conditions(what: str) -> ConfigError:
    return ConfigError(
        f"{what}: of two processes, one would overwrite the other's captions",
        "run one process only, and say so with --single-writer",
    )


@contextlib.contextmanager
def _as_system_errors() -> Iterator[None]:
    """Raise OSError for whatever a store's library raises: missing credentials and lost connections are no OSError."""
    try:
        yield
    except (OSError, ConflictError, SidecarError):
        raise
    except Exception as error:
        raise OSError(errno.EIO, " ".join(f"{type(error).__name__}: {error}".split())[:300]) from error


class PlainStore:
    """Any file system of fsspec, for one process."""

    is_conditional: bool = False

    def __init__(self, scheme: str) -> None:
        import fsspec

        self.scheme = scheme
        self._files: Any = fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True)

    def require_conditions(self, folder: str) -> None:
        """See Store; it writes without."""

    @_as_system_errors()
    def list(self, folder: str) -> list[Entry]:
        """See Store."""
        found = self._files.ls(folder, detail=True, refresh=True)
        return [_entry(each) for each in found if each["name"].strip("/") != folder.strip("/")]

    @_as_system_errors()
    def download(self, key: str, file: Path) -> None:
        """See Store."""
        self._files.get_file(key, str(file))

    @_as_system_errors()
    def read(self, key: str) -> Stored | None:
        """See Store."""
        try:
            data = self._files.cat_file(key, end=_LARGEST_TEXT + 1)
        except FileNotFoundError:
            return None
        _require_small(len(data))
        return Stored(data, "")

    @_as_system_errors()
    def write(self, key: str, data: bytes, tag: str | None) -> str:
        """See Store."""
        self._files.pipe_file(key, data)
        return ""

    @_as_system_errors()
    def delete(self, key: str) -> None:
        """See Store."""
        try:
            self._files.rm_file(key)
        except FileNotFoundError:
            return


class S3Store(PlainStore):
    """S3, whose writes take conditions (If-Match, If-None-Match) unless ``is_conditional`` is false."""

    def __init__(self, is_conditional: bool = True) -> None:
        super().__init__("s3")
        self.is_conditional = is_conditional

    def require_conditions(self, folder: str) -> None:
        """See Store. Stores that do not know the conditions of S3 ignore them, or refuse the write."""
        if not self.is_conditional:
            return
        probe = f"{folder}/.mf-{uuid.uuid4().hex}.probe"
        try:
            self.write(probe, b"1", None)
            takes = self._conflicts(probe, None) and self._conflicts(probe, f'"{uuid.uuid4().hex}"')
            self.delete(probe)
        except FileNotFoundError:
            return  # no such bucket: its listing says so
        except OSError as error:
            if _code_of(error) != "NotImplemented":
                raise ConfigError(
                    f"cannot write to {self.scheme}://{folder}: {error.strerror or error}",
                    "check your credentials and permissions",
                ) from error
            takes = False
        if not takes:
            raise _without_conditions(f"the store of {self.scheme}://{folder} ignores conditions (If-None-Match)")

    def _conflicts(self, key: str, tag: str | None) -> bool:
        try:
            self.write(key, b"2", tag)
        except ConflictError:
            return True
        return False

    @_as_system_errors()
    def read(self, key: str) -> Stored | None:
        """See Store; content and version of one moment."""
        bucket, _, name = key.partition("/")
        try:
            reply = self._files.call_s3("get_object", Bucket=bucket, Key=name)
        except FileNotFoundError:
            return None
        import fsspec.asyn

        _require_small(reply["ContentLength"])
        data = fsspec.asyn.sync(self._files.loop, reply["Body"].read)
        return Stored(data, reply["ETag"])

    @_as_system_errors()
    def write(self, key: str, data: bytes, tag: str | None) -> str:
        """See Store."""
        bucket, _, name = key.partition("/")
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        if not self.is_conditional:
            condition = {}
        try:
            reply = self._files.call_s3("put_object", Bucket=bucket, Key=name, Body=data, **condition)
        except OSError as error:
            code = _code_of(error)
            # NoSuchKey: it was removed meanwhile. The other: two conditional writes at the same moment.
            if code in ("PreconditionFailed", "NoSuchKey", "ConditionalRequestConflict"):
                raise ConflictError(code) from error
            raise
        return str(reply["ETag"])


def _code_of(error: BaseException) -> str:
    response = getattr(error.__cause__, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _require_small(size: int) -> None:
    if size > _LARGEST_TEXT:
        raise SidecarError(
            f"a sidecar of more than {_LARGEST_TEXT >> 20} MiB was left untouched", "check what it is, or move it away"
        )


def _entry(found: dict[str, Any]) -> Entry:
    modified = found.get("LastModified") or found.get("mtime") or found.get("last_modified") or found.get("created")
    seconds = modified.timestamp() if isinstance(modified, datetime) else 0.0
    is_folder = found["type"] == "directory"
    return Entry(found["name"].strip("/"), int(found.get("size") or 0), seconds, is_folder)
