"""The model hub: what a repository holds, and its files, resumed where they broke off, checked, and put in place whole.

Listing, redirects, retries and tokens are huggingface_hub's. Its own downloads start from nothing after an interrupt
since 2.0 (each process writes a file of its own name, huggingface_hub pull request 4228), which for 6 GB is not good
enough: here a partial file is named after its checksum and goes on.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from musicflamingo_cli.errors import HubUnreachableError, ModelError
from musicflamingo_cli.system.disk import free_bytes

T = TypeVar("T")
_TRIES = 5
_LONGEST_WAIT = 120  # seconds
_SPARE = 1 << 28  # bytes to leave free on the disk
_AGAIN = "run the same command again: it goes on where it stopped"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository. ``checksum`` is its SHA-256, or for a file that is not in LFS its git blob id."""

    repository: str
    revision: str
    name: str
    size: int  # bytes
    checksum: str


def list_files(repository: str, revision: str = "main") -> list[HubFile]:
    """The files of a model repository; with HF_HUB_OFFLINE those that lie in the hub's cache here.

    Raises ModelError where there is no such repository, it may not be read, or the hub cannot be reached.
    """
    import huggingface_hub
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return _list_cached(repository, revision)
    with _explained(repository, revision):
        info = _when_not_busy(
            lambda: huggingface_hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
        )
    # The commit, so that all files are of one state, whatever is pushed meanwhile.
    return [
        HubFile(
            repository,
            info.sha or revision,
            file.rfilename,
            file.size or 0,
            file.lfs.sha256 if file.lfs else file.blob_id or "",
        )
        for file in info.siblings or []
    ]


def _when_not_busy(ask: Callable[[], T]) -> T:
    """Ask again, as often as is polite, where the hub answers 429."""
    from huggingface_hub.errors import HfHubHTTPError

    for attempt in range(_TRIES):
        try:
            return ask()
        except HfHubHTTPError as error:
            if error.response.status_code != 429 or attempt == _TRIES - 1:
                raise
            told = error.response.headers.get("Retry-After", "")
            time.sleep(min(int(told) if told.isdigit() else 2**attempt, _LONGEST_WAIT))
    raise AssertionError("the last try returns or raises")


def fetch(file: HubFile, folder: Path, say: Callable[[str], None]) -> Path:
    """Have a file in ``folder``, from the hub's cache where it lies there, else from the hub; its path.

    It appears under its name only when it is whole and its checksum is right. Raises ModelError; what was
    downloaded by then is kept, except bytes that are wrong.
    """
    target = folder / Path(file.name).name
    try:
        if target.is_symlink() and not target.exists():
            target.unlink()  # into a cache that was emptied
        if target.exists():
            return _checked(file, target, say)
        folder.mkdir(parents=True, exist_ok=True)
        if (cached := _cached(file)) is not None:
            say(f"{target.name} is in the hub's cache: linked")
            _link(cached, target)
        else:
            _download(file, target)
    except OSError as error:
        if error.errno is None:  # not the disk's: the library found the file shorter than was said
            raise ModelError(f"{target.name}: {error}", _AGAIN) from error
        raise ModelError(f"cannot write {target}: {error.strerror or error}", f"make room, then {_AGAIN}") from error
    return target


def _checked(file: HubFile, target: Path, say: Callable[[str], None]) -> Path:
    """A file that is here already, where it is the hub's, byte for byte. Raises ModelError."""
    if target.stat().st_size == file.size:
        say(f"{target.name} is here already; checking its bytes")
        if _checksum(target, len(file.checksum)) == file.checksum:
            return target
    raise ModelError(
        f"{target} is not the hub's file of that name: it was left alone",
        f"if it is not needed: rm '{target}', then run the same command again",
    )


def require_space(files: list[HubFile], folder: Path) -> None:
    """Raises ModelError where the disk cannot hold what of ``files`` is still to come."""
    missing = sum(file.size - _have(file, folder) for file in files)
    free = free_bytes(folder)
    if missing and missing + _SPARE > free:
        raise ModelError(
            f"{(missing + _SPARE) / 1e9:.1f} GB are needed in {folder}, {free / 1e9:.1f} GB are free",
            "make room, or name another folder with --models-dir",
        )


def _have(file: HubFile, folder: Path) -> int:
    """The bytes of a file that are on this disk already."""
    if (folder / Path(file.name).name).exists() or _cached(file) is not None:
        return file.size
    partial = _partial(file, folder)
    return partial.stat().st_size if partial.exists() else 0


def _partial(file: HubFile, folder: Path) -> Path:
    """Hidden, and not named .gguf: nothing takes it for a model."""
    return folder / f".{Path(file.name).name}.{file.checksum[:12]}.part"


def _download(file: HubFile, target: Path) -> None:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    partial = _partial(file, target.parent)
    for old in target.parent.glob(f".{target.name}.*.part"):  # of another state of the repository, or too long
        if old != partial or old.stat().st_size > file.size:
            old.unlink()
    with _explained(file.repository, file.revision):
        url = hf_hub_url(file.repository, file.name, revision=file.revision)
        metadata = get_hf_file_metadata(url, retry_on_errors=True)
        headers = build_hf_headers()
        if _host(metadata.location) != _host(url):
            headers.pop("authorization", None)  # the token is the hub's business, not its storage's
        with partial.open("ab") as stream:
            http_get(
                metadata.location,
                stream,
                resume_size=stream.tell(),
                headers=headers,
                expected_size=file.size,
                displayed_filename=target.name,
            )
            stream.flush()
            os.fsync(stream.fileno())
    if (found := _checksum(partial, len(file.checksum))) != file.checksum:
        partial.unlink()
        raise ModelError(
            f"{target.name} arrived with wrong bytes (checksum {found[:12]}, not {file.checksum[:12]}); they are gone",
            "run the same command again",
        )
    partial.replace(target)


def _host(url: str) -> str:
    from urllib.parse import urlsplit

    return urlsplit(url).netloc


def _checksum(path: Path, digits: int) -> str:
    """SHA-256, or (40 digits) git's blob id: SHA-1 over a header with the length, then the bytes."""
    digest = hashlib.sha256()
    if digits == 40:
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# -- the hub's own cache, which other tools fill ---------------------------------------------------------


def _cache_folder(repository: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"


def _cached(file: HubFile) -> Path | None:
    """Its blob in the cache: named by its checksum, and only there when it is whole."""
    blob = _cache_folder(file.repository) / "blobs" / file.checksum
    return blob if blob.is_file() and blob.stat().st_size == file.size else None


def _list_cached(repository: str, revision: str) -> list[HubFile]:
    folder = _cache_folder(repository)
    ref = folder / "refs" / revision
    snapshot = folder / "snapshots" / (ref.read_text().strip() if ref.is_file() else revision)
    files = [path for path in sorted(snapshot.rglob("*")) if path.is_file()] if snapshot.is_dir() else []
    if not files:
        raise ModelError(
            f"HF_HUB_OFFLINE is set, and nothing of {repository} is in the hub's cache", "unset HF_HUB_OFFLINE"
        )
    return [
        HubFile(repository, revision, path.relative_to(snapshot).as_posix(), path.stat().st_size, path.resolve().name)
        for path in files
    ]


def _link(blob: Path, target: Path) -> None:
    """A hard link costs no space and outlives the cache; across file systems a symbolic one."""
    try:
        os.link(blob.resolve(), target)
    except OSError:
        target.symlink_to(blob.resolve())


# -- errors ----------------------------------------------------------------------------------------------


@contextmanager
def _explained(repository: str, revision: str) -> Iterator[None]:
    """What the hub's client raises, as one sentence and what to type. OSErrors of the disk pass."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{repository} is gated", f"accept its terms on its page, then set HF_TOKEN to your token and {_AGAIN}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"{repository} has no revision {revision}", "leave --revision out") from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"the hub has no {repository}, or it is private",
            "check its name with: musicflamingo models list; for a private one set HF_TOKEN",
        ) from error
    except errors.HfHubHTTPError as error:
        raise _http_error(error, repository) from error
    except (errors.HFValidationError, errors.EntryNotFoundError) as error:
        raise ModelError(f"{repository}: {error}", "name a repository as OWNER/NAME") from error
    except (httpx2.HTTPError, errors.OfflineModeIsEnabled) as error:
        raise HubUnreachableError(
            f"the hub cannot be reached ({type(error).__name__}: {error})",
            f"check the connection (a mirror is named by HF_ENDPOINT), then {_AGAIN}",
        ) from error


def _http_error(error: Exception, repository: str) -> ModelError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return ModelError(
            f"the hub refuses {repository} ({status})", "set HF_TOKEN to a token that may read it, or: hf auth login"
        )
    if status == 429:
        return ModelError("the hub says that there were too many requests (429)", f"wait some minutes, then {_AGAIN}")
    return ModelError(f"the hub answered {status} for {repository}", f"later {_AGAIN}")
