"""Downloads a model and its projector into the models folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from musicflamingo_cli.errors import ConfigError, HubUnreachableError, ModelError
from musicflamingo_cli.models import catalog, hub
from musicflamingo_cli.models.hub import HubFile

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Order:
    """The files to fetch (a language model, its projector, optionally the imatrix), and the folder for them."""

    files: tuple[HubFile, ...]
    folder: Path


def find(name: str, folder: Path, source: str | None, revision: str, imatrix: bool) -> Order:
    """Return the files of a quant (in the first repository that has it) or of `OWNER/NAME:QUANT`.

    ``folder`` is the models folder. ``source`` is a repository to use instead of the catalog's. Raises ModelError and
    ConfigError.
    """
    named, quant = catalog.parse_name(name)
    known = catalog.load_catalog().repositories
    if named and source:
        raise ConfigError(f"{name} already names its repository", "leave --source out")
    one = named or source
    places = [one] if one else list(known)
    listed: dict[str, list[HubFile]] = {}

    def files_of(place: str) -> list[HubFile]:  # each repository is listed at most once
        if place not in listed:
            listed[place] = hub.list_files(place, revision if place in places else "main")
        return listed[place]

    language_model = _first(places, files_of, lambda files: catalog.find_language_model(files, quant))
    if language_model is None:
        raise catalog.no_such_quant(quant, places[0], files_of(places[0]))
    place = language_model.repository
    # A repository without a projector (the i1 quants) shares the one of the plain quants' repository.
    others = [other for other in known if other != place] if place in known else []
    projector = _first([place, *others], files_of, catalog.find_projector)
    if projector is None:
        raise ModelError(
            f"{place} holds no projector (mmproj) for {language_model.name}; the model cannot process audio without it",
            "name another repository, or put the projector beside the model yourself",
        )
    chosen = [language_model, projector]
    if imatrix:
        found = _first([place, *others], files_of, catalog.find_imatrix)
        if found is None:
            raise ModelError(f"no imatrix in {place}", "leave --imatrix out")
        chosen.append(found)
    return Order(tuple(chosen), folder / catalog.folder_of(place))


def _first(
    places: list[str], files_of: Callable[[str], list[HubFile]], pick: Callable[[list[HubFile]], HubFile | None]
) -> HubFile | None:
    """Return the first file picked; a repository that cannot be read is skipped, unless it is the only one."""
    problem: ModelError | None = None
    for place in places:
        try:
            if found := pick(files_of(place)):
                return found
        except HubUnreachableError:
            raise
        except ModelError as error:
            problem = problem or error
    if problem is not None and len(places) == 1:
        raise problem
    return None


def fetch(order: Order) -> list[Path]:
    """Fetch the files that are missing, and return all paths; one pull at a time in a folder, another waits.

    The projector comes first, so that no model is ever there without one. Raises ModelError.
    """
    language_model, *others = order.files
    try:
        order.folder.mkdir(parents=True, exist_ok=True)
        with _pull_lock(order.folder):
            hub.require_space(list(order.files), order.folder)
            paths = {file.name: hub.fetch(file, order.folder) for file in [*others, language_model]}
    except OSError as error:
        raise ModelError(
            f"cannot write to {order.folder}: {error.strerror}", "name another folder with --models-dir"
        ) from error
    return [paths[file.name] for file in order.files]


@contextmanager
def _pull_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock for pulls; wait with a message while another process holds it."""
    import filelock

    lock = filelock.FileLock(folder / ".pull.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        logger.info("another pull into %s is in progress; waiting for it", folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
