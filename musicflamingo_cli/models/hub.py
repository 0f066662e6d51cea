"""The model hub: lists repositories and downloads files, which are resumed, verified, and moved into place whole.

Listing, redirects, retries and tokens are huggingface_hub's. Its own downloads start over after an interrupt since
2.0 (each process writes a file of its own name, huggingface_hub pull request 4228), which is too slow for 6 GB: here a
partial file is named after its checksum and resumed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from musicflamingo_cli.errors import HubUnreachableError, ModelError
from musicflamingo_cli.system.disk import free_bytes

logger = logging.getLogger(__name__)
T = TypeVar("T")
_TRIES = 5
_MAX_WAIT = 120  # seconds
_RESERVE = 1 << 28  # bytes to leave free on the disk
_RESUME = "run the same command again: it resumes the download"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository. ``checksum`` is its SHA-256, or for a file that is not in LFS its git blob id."""

    repository: str
    revision: str
    name: str
    size: int  # bytes
    checksum: str


def list_files(repository: str, revision: str = "main") -> list[HubFile]:
    """Return the files of a model repository; with HF_HUB_OFFLINE those in the hub's cache on this machine.

    Raises ModelError where there is no such repository, it may not be read, or the hub cannot be reached.
    """
    import huggingface_hub

    if huggingface_hub.is_offline_mode():
        return _list_cached(repository, revision)
    with _explained(repository, revision):
        info = _retried_when_busy(
            lambda: huggingface_hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
        )
    # The commit, not the branch: all files then belong together, whatever is pushed meanwhile.
    return [
        HubFile(
            repository=repository,
            revision=info.sha or revision,
            name=file.rfilename,
            size=file.size or 0,
            checksum=file.lfs.sha256 if file.lfs else file.blob_id or "",
        )
        for file in info.siblings or []
    ]


def _retried_when_busy(ask: Callable[[], T]) -> T:
    """Return what ``ask`` returns; retry a few times where the hub answers 429 (too many requests)."""
    from huggingface_hub.errors import HfHubHTTPError

    for attempt in range(_TRIES):
        try:
            return ask()
        except HfHubHTTPError as error:
            if error.response.status_code != 429 or attempt == _TRIES - 1:
                raise
            delay = error.response.headers.get("Retry-After", "")
            time.sleep(min(int(delay) if delay.isdigit() else 2**attempt, _MAX_WAIT))
    raise AssertionError("the last try returns or raises")


def fetch(file: HubFile, folder: Path) -> Path:
    """Put a file into ``folder``, from the hub's cache where it has it, else from the hub; return its path.

    It appears under its name only when it is whole and its checksum is right. Raises ModelError; a partial download
    is kept, unless its bytes are wrong.
    """
    target = folder / Path(file.name).name
    try:
        if target.is_symlink() and not target.exists():
            target.unlink()  # a link into a cache that was emptied
        if target.exists():
            return _verified(file, target)
        folder.mkdir(parents=True, exist_ok=True)
        if (cached := _cached(file)) is not None and _is_right(file, cached):
            logger.info("%s is in the hub's cache; linking it", target.name)
            _link(cached, target)
        else:
            _download(file, target)
    except OSError as error:
        if error.errno is None:  # not from the disk: the hub's library received fewer bytes than announced
            raise ModelError(f"{target.name}: {error}", _RESUME) from error
        raise ModelError(f"cannot write {target}: {error.strerror or error}", f"make room, then {_RESUME}") from error
    return target


def _is_right(file: HubFile, cached: Path) -> bool:
    """Return whether a file of the cache has its checksum, as any downloaded one: others may write into the cache."""
    logger.info("%s is in the hub's cache; verifying its checksum", Path(file.name).name)
    if _checksum(cached, len(file.checksum)) == file.checksum:
        return True
    logger.warning("%s in the hub's cache is damaged (%s); downloading it", Path(file.name).name, cached)
    return False


def _verified(file: HubFile, target: Path) -> Path:
    """Return the path of an existing file. Raises ModelError unless it is the hub's file, byte for byte."""
    if target.stat().st_size == file.size:
        logger.info("%s exists; verifying its checksum", target.name)
        if _checksum(target, len(file.checksum)) == file.checksum:
            return target
    raise ModelError(
        f"{target} exists and differs from the hub's file; it was not changed",
        f"if you do not need it: rm '{target}', then run the same command again",
    )


def require_space(files: list[HubFile], folder: Path) -> None:
    """Raise ModelError where the disk cannot hold what is still to be downloaded of ``files``."""
    missing = sum(file.size - _present_bytes(file, folder) for file in files)
    free = free_bytes(folder)
    if missing and missing + _RESERVE > free:
        raise ModelError(
            f"{(missing + _RESERVE) / 1e9:.1f} GB are needed in {folder}, {free / 1e9:.1f} GB are free",
            "make room, or name another folder with --models-dir",
        )


def _present_bytes(file: HubFile, folder: Path) -> int:
    """Return how many bytes of a file need no download."""
    if (folder / Path(file.name).name).exists() or _cached(file) is not None:
        return file.size
    partial = _partial(file, folder)
    return partial.stat().st_size if partial.exists() else 0


def _partial(file: HubFile, folder: Path) -> Path:
    """Return the path of a partial download: hidden and not named .gguf, so that nothing takes it for a model."""
    return folder / f".{Path(file.name).name}.{file.checksum[:12]}.part"


def _download(file: HubFile, target: Path) -> None:
    """Download a file, resuming a partial one, and verify its checksum. Raises ModelError and OSError."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get  # no public name, but nothing public resumes a download
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented, not re-exported

    partial = _partial(file, target.parent)
    for old in target.parent.glob(f".{target.name}.*.part"):  # of another commit, or too long
        if old != partial or old.stat().st_size > file.size:
            old.unlink()
    with _explained(file.repository, file.revision):
        url = hf_hub_url(file.repository, file.name, revision=file.revision)
        metadata = get_hf_file_metadata(url, retry_on_errors=True)
        headers = build_hf_headers()
        _require_encrypted(url, metadata.location)
        if _host(metadata.location) != _host(url):
            headers.pop("authorization", None)  # the token is for the hub, not for its storage
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
            f"{target.name} arrived with wrong bytes (checksum {found[:12]}, not {file.checksum[:12]}); it was deleted",
            "run the same command again",
        )
    partial.replace(target)


def _host(url: str) -> str:
    from urllib.parse import urlsplit

    return urlsplit(url).netloc


def _require_encrypted(url: str, location: str) -> None:
    """Raise ModelError where a hub with https sends us to http: the token would be readable on the way."""
    if url.startswith("https:") and not location.startswith("https:"):
        raise ModelError(
            f"the hub redirects to {_host(location)} without encryption (http)",
            "nothing was downloaded; check HF_ENDPOINT and the network",
        )


def _checksum(path: Path, digits: int) -> str:
    """Return a file's SHA-256, or for 40 digits git's blob id: SHA-1 over a header with the length, then the bytes."""
    digest = hashlib.sha256()
    if digits == 40:
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# -- the hub's own cache, which other tools fill ---------------------------------------------------------


def cached_snapshot(repository: str) -> Path | None:
    """Return the folder of a repository's main branch in the cache, which may lack files; None where there is none."""
    cache = _cache_of(repository)
    try:
        commit = (cache / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    snapshot = cache / "snapshots" / Path(commit).name
    return snapshot if commit and snapshot.is_dir() else None


def _cache_of(repository: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"


def _cached(file: HubFile) -> Path | None:
    """Return a file's blob in the cache, which is named by its checksum; its bytes are not verified here."""
    blob = _cache_of(file.repository) / "blobs" / file.checksum
    return blob if blob.is_file() and blob.stat().st_size == file.size else None


def _list_cached(repository: str, revision: str) -> list[HubFile]:
    """Return the files of a repository that are in the hub's cache. Raises ModelError where there are none."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        snapshot = Path(huggingface_hub.snapshot_download(repository, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"HF_HUB_OFFLINE is set, and the hub's cache has no files of {repository}", "unset HF_HUB_OFFLINE"
        ) from error
    return [
        HubFile(
            repository=repository,
            revision=revision,
            name=path.relative_to(snapshot).as_posix(),
            size=path.stat().st_size,
            checksum=path.resolve().name,  # the name of the blob in the cache
        )
        for path in sorted(snapshot.rglob("*"))
        if path.is_file()
    ]


def _link(blob: Path, target: Path) -> None:
    """Link a file hard, which takes no space and outlives the cache, or across file systems symbolically."""
    try:
        os.link(blob.resolve(), target)
    except OSError:
        target.symlink_to(blob.resolve())


# -- errors ----------------------------------------------------------------------------------------------


@contextmanager
def _explained(repository: str, revision: str) -> Iterator[None]:
    """Turn errors of the hub's client into ModelError and HubUnreachableError. OSErrors of the disk pass unchanged."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{repository} is gated", f"accept its terms on its page, then set HF_TOKEN to your token and {_RESUME}"
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
            f"check the connection (HF_ENDPOINT can name a mirror), then {_RESUME}",
        ) from error


def _http_error(error: Exception, repository: str) -> ModelError:
    """Return the error for a status that the hub answered."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return ModelError(
            f"the hub denies access to {repository} ({status})",
            "set HF_TOKEN to a token that may read it, or: hf auth login",
        )
    if status == 429:
        return ModelError("there were too many requests to the hub (429)", f"wait some minutes, then {_RESUME}")
    return ModelError(f"the hub answered {status} for {repository}", f"wait some minutes, then {_RESUME}")
