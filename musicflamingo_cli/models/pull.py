"""Downloads models into the models folder: a GGUF file and its projector, or a checkpoint's folder."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from musicflamingo_cli.errors import ConfigError, HubUnreachableError, ModelError
from musicflamingo_cli.models import catalog, hub
from musicflamingo_cli.models.checkpoints import CONFIG, INDEX, WHOLE, check_checkpoint, folder_for, read_config
from musicflamingo_cli.models.generators import check_generator, is_generator
from musicflamingo_cli.models.hub import HubFile

logger = logging.getLogger(__name__)
_PARTS = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_SMALL = re.compile(r"[\w.-]+\.(json|jinja|txt|model)|(LICENSE|NOTICE)[\w.-]*", re.ASCII)


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
    own = set(places)  # which the revision is about; once the model is found, its repository
    listed: dict[tuple[str, str], list[HubFile]] = {}

    def files_of(place: str) -> list[HubFile]:  # each repository is listed at most once
        key = place, revision if place in own else "main"
        if key not in listed:
            listed[key] = hub.list_files(*key)
        return listed[key]

    language_model = _first(places, files_of, lambda files: catalog.find_language_model(files, quant))
    if language_model is None:
        raise catalog.no_such_quant(quant, places[0], files_of(places[0]))
    place = language_model.repository
    own = {place}
    # A repository without a projector (the i1 quants) shares the one of the plain quants' repository.
    others = [other for other in known if other != place] if place in known else []
    projector = _first([place, *others], files_of, catalog.find_projector, is_needed=True)
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
    places: list[str],
    files_of: Callable[[str], list[HubFile]],
    pick: Callable[[list[HubFile]], HubFile | None],
    is_needed: bool = False,
) -> HubFile | None:
    """Return the first file picked; a repository that cannot be read is skipped.

    Raises its ModelError where it is the only one, or where nothing else has the file and it ``is_needed``.
    """
    problem: ModelError | None = None
    for place in places:
        try:
            if found := pick(files_of(place)):
                return found
        except HubUnreachableError:
            raise
        except ModelError as error:
            problem = problem or error
    if problem is not None and (is_needed or len(places) == 1):
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


@dataclass(frozen=True, slots=True)
class CheckpointOrder:
    """The files of a checkpoint to fetch, and the folder that they will be in. ``licence``: empty where unknown."""

    repository: str
    files: tuple[HubFile, ...]
    folder: Path
    licence: str

    @property
    def size(self) -> int:
        """Of all files, in bytes."""
        return sum(file.size for file in self.files)

    @property
    def partial(self) -> Path:
        """The hidden folder of an incomplete download; each commit has its own."""
        return self.folder.with_name(f".{self.folder.name}.{self.files[0].revision.replace('/', '-')[:12]}.part")


def find_checkpoint_files(repository: str, models_folder: Path, revision: str = "main") -> CheckpointOrder:
    """Return the files that transformers loads: weights in safetensors and small files, config.json first.

    Code, weights in other formats and subfolders are left out. Raises ModelError, or ConfigError for a GGUF repository.
    """
    listed = {file.name: file for file in hub.list_files(repository, revision)}
    weights = [WHOLE] if WHOLE in listed else sorted(filter(_PARTS.fullmatch, listed))
    if not weights and any(name.endswith(".gguf") for name in listed):
        raise ConfigError(
            f"{repository} holds GGUF models, of which one has to be named", f"for example: {repository}:Q6_K"
        )
    if not weights or CONFIG not in listed:
        raise ModelError(
            f"{repository} holds no checkpoint for transformers ({CONFIG} and safetensors)",
            "see: musicflamingo models list",
        )
    small = sorted(name for name in listed if _SMALL.fullmatch(name) and name != CONFIG)
    if weights == [WHOLE]:
        small = [name for name in small if name != INDEX]
    known = catalog.load_catalog()
    published = known.checkpoint(repository) or known.generator(repository)
    return CheckpointOrder(
        repository=repository,
        files=tuple(listed[name] for name in [CONFIG, *small, *weights]),
        folder=folder_for(repository, models_folder),
        licence=published.licence if published else "",
    )


def fetch_checkpoint(order: CheckpointOrder) -> Path:
    """Fetch the files that are missing, check the checkpoint, and return its folder.

    It appears under its name only when it is complete; of one that is there already, each file is verified. Raises
    ModelError, for a model that we cannot run right after its configuration arrived.
    """
    place = order.folder.parent
    try:
        place.mkdir(parents=True, exist_ok=True)
        with _pull_lock(place):
            if (order.folder / CONFIG).is_file():
                _fetch_files(order, order.folder)
                return order.folder
            if order.folder.exists() and any(order.folder.iterdir()):
                raise ModelError(f"{order.folder} exists and is not a checkpoint", "move it away, and run this again")
            for old in place.glob(f".{order.folder.name}.*.part"):  # of another commit
                if old != order.partial:
                    shutil.rmtree(old)
            _fetch_files(order, order.partial)
            order.partial.rename(order.folder)
    except OSError as error:
        raise ModelError(
            f"cannot write {order.folder}: {error.strerror}", "name another folder with --models-dir"
        ) from error
    return order.folder


def _fetch_files(order: CheckpointOrder, folder: Path) -> None:
    """Fetch all files into a folder, and check that they are a checkpoint that we can run. Raises ModelError."""
    hub.require_space(list(order.files), folder)
    for file in order.files:
        hub.fetch(file, folder)
        if file.name == CONFIG:
            _require_supported(order, folder)
    if is_generator(folder):
        check_generator(folder, order.repository)
    else:
        check_checkpoint(folder, order.repository)


def _require_supported(order: CheckpointOrder, folder: Path) -> None:
    if is_generator(folder):
        return
    try:
        read_config(folder, order.repository)
    except ModelError:
        if folder == order.partial:
            shutil.rmtree(folder)
        raise


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
