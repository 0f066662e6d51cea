"""The published models (configs/models.yaml): which quant fits a machine, and which files of the hub are a quant's."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath
from typing import TypeVar

from musicflamingo_cli.errors import ConfigError, ModelError
from musicflamingo_cli.llamacpp.memory import RESERVE, Memory
from musicflamingo_cli.models.hub import HubFile
from musicflamingo_cli.paths import data_file

F = TypeVar("F", HubFile, Path)
GB = 10**9
_TOKENS = 8192  # in each slot, for estimates: five minutes of audio and an answer
_SLOTS = 4

FAMILY_MARK = "--"  # in the names of folders that hold another repository's files
_QUANT = re.compile(r"(?:^|[.\-_])((?:I?Q\d[A-Z0-9_]*)|BF16|F16|F32)(?=\.gguf$|[.\-])", re.IGNORECASE)
_REPOSITORY = re.compile(r"([\w.-]+/[\w.-]+?)(?::([\w.-]+))?")
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


@dataclass(frozen=True, slots=True)
class Quant:
    """A published quant and the size of its file in bytes."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class PublishedCheckpoint:
    """A published checkpoint for transformers. ``size``: of its weights in bytes. See ``model.Checkpoint``."""

    repository: str
    model_type: str
    size: int
    max_seconds: float
    licence: str
    reasons: bool = False

    @property
    def short_name(self) -> str:
        """Its name without the owner's."""
        return self.repository.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class PublishedGenerator:
    """A published checkpoint that makes music from text. ``size``: of its weights in bytes. ``channels``: 1 or 2."""

    repository: str
    model_type: str
    size: int
    channels: int
    licence: str

    @property
    def short_name(self) -> str:
        """Its name without the owner's."""
        return self.repository.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Catalog:
    """The published quants, the best first, and the repositories to look in, in this order. Sizes are in bytes.

    ``checkpoints``: the best for music first. ``generators``: the smallest first.
    """

    recommended: str
    quants: tuple[Quant, ...]
    projector_size: int
    kv_bytes_per_token: int
    repositories: tuple[str, ...]
    checkpoints: tuple[PublishedCheckpoint, ...]
    generators: tuple[PublishedGenerator, ...]

    def needed(self, quant: Quant, slots: int = _SLOTS) -> int:
        """Return the bytes of memory for a quant with its projector and ``slots`` slots of 8192 tokens."""
        return quant.size + self.projector_size + slots * _TOKENS * self.kv_bytes_per_token + RESERVE

    def needed_by_weights(self, size: int) -> int:
        """Return the bytes of memory for a checkpoint with weights of ``size`` bytes, and for as much context."""
        return size + _SLOTS * _TOKENS * self.kv_bytes_per_token + RESERVE

    def checkpoint(self, name: str) -> PublishedCheckpoint | None:
        """Return the published checkpoint of that name, with or without its owner's; None where there is none."""
        return next((each for each in self.checkpoints if name in (each.repository, each.short_name)), None)

    def generator(self, name: str) -> PublishedGenerator | None:
        """Return the published generator of that name, with or without its owner's; None where there is none."""
        return next((each for each in self.generators if name in (each.repository, each.short_name)), None)

    def best_for(self, memory: Memory, among: Sequence[str] = ()) -> tuple[Quant, str]:
        """Return the best quant that fits with four slots, else with one, else the smallest; and the reason.

        ``among``: the names of the quants to choose from; empty for all.
        """
        quants = [quant for quant in self.quants if not among or quant.name in among]
        for slots in (_SLOTS, 1):
            fitting = [quant for quant in quants if self.needed(quant, slots) <= memory.free]
            if fitting:
                return fitting[0], self._reason(fitting[0], slots, memory)
        return quants[-1], f"{self._reason(quants[-1], 1, memory)}, so part of it will run on the CPU or swap"

    def _reason(self, quant: Quant, slots: int, memory: Memory) -> str:
        tracks = f"{slots} tracks" if slots > 1 else "one track"
        reason = (
            f"{quant.name} needs {self.needed(quant, slots) / GB:.1f} GB with {tracks} of five minutes at once;"
            f" {memory.free / GB:.1f} GB are free ({memory.where})"
        )
        better = self.quants.index(quant) - 1
        if better >= 0:
            reason += f"; {self.quants[better].name} would need {self.needed(self.quants[better], slots) / GB:.1f} GB"
        return reason


@lru_cache
def load_catalog() -> Catalog:
    """Return the catalog that comes with the product."""
    import yaml

    data = yaml.safe_load(data_file("configs", "models.yaml").read_text(encoding="utf-8"))
    return Catalog(
        recommended=data["recommended"],
        quants=tuple(Quant(each["name"], int(each["size"] * GB)) for each in data["quants"]),
        projector_size=int(data["projector"]["size"] * GB),
        kv_bytes_per_token=data["kv_bytes_per_token"],
        repositories=tuple(data["repositories"]),
        checkpoints=tuple(
            PublishedCheckpoint(
                repository=each["repository"],
                model_type=each["model_type"],
                size=int(each["size"] * GB),
                max_seconds=float(each["max_seconds"]),
                licence=each["licence"],
                reasons=each.get("reasons", False),
            )
            for each in data["checkpoints"]
        ),
        generators=tuple(
            PublishedGenerator(
                repository=each["repository"],
                model_type=each["model_type"],
                size=int(each["size"] * GB),
                channels=each["channels"],
                licence=each["licence"],
            )
            for each in data["generators"]
        ),
    )


def quant_of(path: PurePath) -> str:
    """Return the quant in a GGUF file's name, upper case, or an empty string.

    >>> quant_of(PurePath("music-flamingo-hf.i1-IQ3_M.gguf"))
    'IQ3_M'
    """
    match = _QUANT.search(path.name)
    return match[1].upper() if match else ""


def parse_name(name: str) -> tuple[str | None, str]:
    """Return the repository (None for a plain name) and the quant of `OWNER/NAME:QUANT`. Raises ConfigError."""
    match = _REPOSITORY.fullmatch(name)
    if "/" not in name:
        return None, name
    if not match or not match[2]:
        raise ConfigError(f"{name} names no quant of a repository", f"for example: {name.split(':')[0]}:Q6_K")
    return match[1], match[2]


def folder_of(repository: str) -> str:
    """Return the subfolder of the models folder for a repository's files; empty for the catalog's repositories.

    Projectors of other repositories get a folder of their own, since a model takes the projector in its folder.
    """
    return "" if repository in load_catalog().repositories else repository.replace("/", FAMILY_MARK)


def find_language_model(files: Sequence[HubFile], quant: str) -> HubFile | None:
    """Return the file of a quant (`Q6_K`, `i1-Q6_K`); a plain name prefers a file without `i1-`."""
    return best_match(language_models(files), quant)


def best_match(files: Sequence[F], quant: str) -> F | None:
    """Return the file of a quant (`Q6_K`, `i1-Q6_K`); a plain name prefers a file without `i1-`."""
    wanted = quant.upper()
    found = [file for file in files if wanted in (name_of(file).upper(), quant_of(PurePath(file.name)))]
    return min(found, key=lambda file: (name_of(file).upper() != wanted, file.name), default=None)


def find_projector(files: Sequence[HubFile]) -> HubFile | None:
    """Return the projector of a repository: the f16 one where there are several."""
    found = [file for file in files if file.name.endswith(".gguf") and "mmproj" in file.name.lower()]
    return min(found, key=lambda file: (quant_of(PurePath(file.name)) != "F16", file.name), default=None)


def find_imatrix(files: Sequence[HubFile]) -> HubFile | None:
    """Return the imatrix of a repository."""
    return next((file for file in files if "imatrix" in PurePath(file.name).name.lower()), None)


def language_models(files: Sequence[HubFile]) -> list[HubFile]:
    """Return the GGUF files that are whole language models: no projector, no imatrix, no part of a split file."""
    names = [(file, PurePath(file.name).name.lower()) for file in files]
    return [
        file
        for file, name in names
        if name.endswith(".gguf") and "mmproj" not in name and "imatrix" not in name and not _PART.search(name)
    ]


def name_of(file: HubFile | PurePath) -> str:
    """Return a file's quant, with `i1-` where its name has it."""
    quant = quant_of(PurePath(file.name))
    return f"i1-{quant}" if f"i1-{quant}".lower() in file.name.lower() else quant


def no_such_quant(quant: str, repository: str, files: Sequence[HubFile]) -> ModelError:
    """Return the error for a quant that a repository lacks; it lists those that it has."""
    names = sorted({name_of(file) for file in language_models(files)})
    if not names:
        return ModelError(f"{repository} holds no GGUF model", "see: musicflamingo models list")
    near = (difflib.get_close_matches(quant, names, 1, 0) or names)[0]
    return ModelError(
        f"{repository} has no {quant}; it has {', '.join(names)}", f"musicflamingo models pull {repository}:{near}"
    )
