"""The published quants (configs/models.yaml): which one fits a machine, and which files of the hub they are."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePath

from musicflamingo_cli.config import data_file
from musicflamingo_cli.errors import ConfigError, ModelError
from musicflamingo_cli.llamacpp.memory import RESERVE, Memory
from musicflamingo_cli.models.hub import HubFile

GB = 10**9
_TOKENS = 8192  # five minutes of audio and an answer: what a slot is counted with
_SLOTS = 4

FAMILY_MARK = "--"  # in the name of a folder that is another family's
_QUANT = re.compile(r"(?:^|[.\-_])((?:I?Q\d[A-Z0-9_]*)|BF16|F16|F32)(?=\.gguf$|[.\-])", re.IGNORECASE)
_REPOSITORY = re.compile(r"([\w.-]+/[\w.-]+?)(?::([\w.-]+))?")
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


@dataclass(frozen=True, slots=True)
class Quant:
    """A published quant. ``size``: bytes of its file; ``memory``: bytes seen in use at short contexts, if known."""

    name: str
    size: int
    memory: int | None


@dataclass(frozen=True, slots=True)
class Catalog:
    """``quants``: the best first. ``repositories``: where to look, in this order."""

    recommended: str
    quants: tuple[Quant, ...]
    projector_size: int
    kv_bytes_per_token: int
    repositories: tuple[str, ...]

    def needed(self, quant: Quant, slots: int = _SLOTS) -> int:
        """Bytes of memory for a quant with its projector and ``slots`` slots of 8192 tokens."""
        return quant.size + self.projector_size + slots * _TOKENS * self.kv_bytes_per_token + RESERVE

    def best_for(self, memory: Memory, among: Sequence[str] = ()) -> tuple[Quant, str]:
        """The best quant (of those named, if any) that fits with four slots, else with one, else the smallest.

        And why, in words.
        """
        quants = [quant for quant in self.quants if not among or quant.name in among]
        for slots in (_SLOTS, 1):
            fitting = [quant for quant in quants if self.needed(quant, slots) <= memory.free]
            if fitting:
                return fitting[0], self._reason(fitting[0], slots, memory)
        return quants[-1], f"{self._reason(quants[-1], 1, memory)}, so part of it will run on the CPU, or swap"

    def _reason(self, quant: Quant, slots: int, memory: Memory) -> str:
        tracks = f"{slots} tracks" if slots > 1 else "one track"
        told = (
            f"{quant.name} needs {self.needed(quant, slots) / GB:.1f} GB with {tracks} of five minutes at once;"
            f" {memory.free / GB:.1f} GB are free ({memory.where})"
        )
        better = self.quants.index(quant) - 1
        if better >= 0:
            told += f"; {self.quants[better].name} would need {self.needed(self.quants[better], slots) / GB:.1f} GB"
        return told


@lru_cache
def load_catalog() -> Catalog:
    """The catalog that is packed with the product."""
    import yaml

    data = yaml.safe_load(data_file("configs", "models.yaml").read_text(encoding="utf-8"))
    quants = tuple(
        Quant(each["name"], int(each["size"] * GB), int(each["memory"] * GB) if "memory" in each else None)
        for each in data["quants"]
    )
    projector_size = int(data["projector"]["size"] * GB)
    repositories = tuple(data["repositories"])
    return Catalog(data["recommended"], quants, projector_size, data["kv_bytes_per_token"], repositories)


def quant_of(path: PurePath) -> str:
    """The quant in a GGUF file's name, upper case, or an empty string.

    >>> quant_of(PurePath("music-flamingo-hf.i1-IQ3_M.gguf"))
    'IQ3_M'
    """
    match = _QUANT.search(path.name)
    return match[1].upper() if match else ""


def parse_name(name: str) -> tuple[str | None, str]:
    """`OWNER/NAME:QUANT` as a repository and a quant; a plain name has no repository. Raises ConfigError."""
    match = _REPOSITORY.fullmatch(name)
    if "/" not in name:
        return None, name
    if not match or not match[2]:
        raise ConfigError(f"{name} names no quant of a repository", f"for example: {name.split(':')[0]}:Q6_K")
    return match[1], match[2]


def folder_of(repository: str) -> str:
    """Where below the models folder a repository's files go: those of the catalog's lie there together.

    Another family's projector must not lie beside ours: which one belongs to a model is told by the folder.
    """
    return "" if repository in load_catalog().repositories else repository.replace("/", FAMILY_MARK)


def find_language_model(files: Sequence[HubFile], quant: str) -> HubFile | None:
    """The file of a quant (`Q6_K`, `i1-Q6_K`); where a repository has both kinds, a plain name is the plain one."""
    wanted = quant.upper()
    found = [
        file for file in language_models(files) if wanted in (name_of(file).upper(), quant_of(PurePath(file.name)))
    ]
    return min(found, key=lambda file: (name_of(file).upper() != wanted, file.name), default=None)


def find_projector(files: Sequence[HubFile]) -> HubFile | None:
    """The projector of a repository: the f16 one where there are several."""
    found = [file for file in files if file.name.endswith(".gguf") and "mmproj" in file.name.lower()]
    return min(found, key=lambda file: (quant_of(PurePath(file.name)) != "F16", file.name), default=None)


def find_imatrix(files: Sequence[HubFile]) -> HubFile | None:
    return next((file for file in files if "imatrix" in PurePath(file.name).name.lower()), None)


def language_models(files: Sequence[HubFile]) -> list[HubFile]:
    """The GGUF files that are whole language models: no projector, no imatrix, no piece of a split file."""
    names = [(file, PurePath(file.name).name.lower()) for file in files]
    return [
        file
        for file, name in names
        if name.endswith(".gguf") and "mmproj" not in name and "imatrix" not in name and not _PART.search(name)
    ]


def name_of(file: HubFile) -> str:
    """A quant as its file spells it, `i1-` included."""
    quant = quant_of(PurePath(file.name))
    return f"i1-{quant}" if f"i1-{quant}".lower() in file.name.lower() else quant


def no_such_quant(quant: str, repository: str, files: Sequence[HubFile]) -> ModelError:
    """The error that offers what there is."""
    names = sorted({name_of(file) for file in language_models(files)})
    if not names:
        return ModelError(f"{repository} holds no GGUF model", "see: musicflamingo models list")
    near = (difflib.get_close_matches(quant, names, 1, 0) or names)[0]
    return ModelError(
        f"{repository} has no {quant}; it has {', '.join(names)}", f"musicflamingo models pull {repository}:{near}"
    )
