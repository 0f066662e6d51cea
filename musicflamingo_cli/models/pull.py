"""From a model's name to its two halves in the models folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from musicflamingo_cli.errors import ConfigError, HubUnreachableError, ModelError
from musicflamingo_cli.models import catalog, hub
from musicflamingo_cli.models.hub import HubFile


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be fetched: a language model, its projector, and the imatrix where that is wanted."""

    files: tuple[HubFile, ...]
    folder: Path


def find(name: str, folder: Path, source: str | None, revision: str, imatrix: bool) -> Order:
    """The files of a quant (in the first repository that has it) or of `OWNER/NAME:QUANT`.

    ``source`` is one repository instead of the catalog's. Raises ModelError and ConfigError.
    """
    named, quant = catalog.parse_name(name)
    known = catalog.load_catalog().repositories
    if named and source:
        raise ConfigError(f"{name} names its repository already", "leave --source out")
    one = named or source
    places = [one] if one else list(known)
    listed: dict[str, list[HubFile]] = {}

    def files_of(place: str) -> list[HubFile]:
        if place not in listed:
            listed[place] = hub.list_files(place, revision if place in places else "main")
        return listed[place]

    language_model = _first(places, files_of, lambda files: catalog.find_language_model(files, quant))
    if language_model is None:
        raise catalog.no_such_quant(quant, places[0], files_of(places[0]))
    place = language_model.repository
    # A repository of quants alone (the i1 ones) has its projector beside the plain quants.
    others = [other for other in known if other != place] if place in known else []
    projector = _first([place, *others], files_of, catalog.find_projector)
    if projector is None:
        raise ModelError(
            f"{place} holds no projector (mmproj) for {language_model.name}; without it the model is deaf",
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
    """The first repository's pick; one that cannot be read is passed over as long as another can."""
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


def fetch(order: Order, say: Callable[[str], None]) -> list[Path]:
    """Fetch what is not here yet; the projector comes first, so that a model never lies there deaf.

    One pull at a time in a folder; another waits.
    """
    language_model, *others = order.files
    try:
        order.folder.mkdir(parents=True, exist_ok=True)
        with _alone(order.folder, say):
            hub.require_space(list(order.files), order.folder)
            paths = {file.name: hub.fetch(file, order.folder, say) for file in [*others, language_model]}
    except OSError as error:
        raise ModelError(
            f"cannot write to {order.folder}: {error.strerror}", "name another folder with --models-dir"
        ) from error
    return [paths[file.name] for file in order.files]


@contextmanager
def _alone(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the folder's lock for pulls, saying so where somebody else does."""
    import filelock

    lock = filelock.FileLock(folder / ".pull.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        say(f"another pull into {folder} is running; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
