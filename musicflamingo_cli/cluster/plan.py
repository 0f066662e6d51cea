"""How a batch uses a cluster, and what every node must have in common with the driver. Without Ray."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path

from musicflamingo_cli._version import __version__
from musicflamingo_cli.choices import Writer
from musicflamingo_cli.config import Settings
from musicflamingo_cli.errors import ConfigError, ModelError, ToolMissingError
from musicflamingo_cli.models.model import Model
from musicflamingo_cli.system.identity import digest

LOCAL = "local"
HOW_TO_INSTALL = "pip install 'musicflamingo[ray]'"


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """``address``: `local`, `auto` or HOST:PORT. ``actors``: None for as many as there are resources for.

    ``gpus`` and ``cpus``: what each actor gets; None: a GPU where there are any, and the processors shared out.
    """

    address: str = LOCAL
    actors: int | None = None
    gpus: float | None = None
    cpus: int | None = None
    writer: Writer = Writer.DRIVER

    def __post_init__(self) -> None:
        """Raise ConfigError for an address that is none, such as a dataset's folder."""
        if self.address not in (LOCAL, "auto") and not re.fullmatch(r"[\w.\-\[\]:]+:\d+", self.address):
            raise ConfigError(
                f"--ray {self.address} is not HOST:PORT, `auto` or `local`",
                "for a cluster on this machine put --ray last: musicflamingo batch DIR --ray",
            )


@dataclass(frozen=True, slots=True)
class Work:
    """What an actor is made with. ``model``: its absolute path; ``threads``: its processors.

    ``probes``: files that show whether it sees the datasets. ``overwrite``, ``improve`` and ``replace_edited``: see
    captioner.Policy.
    """

    settings: Settings
    prompts: int
    overwrite: bool
    probes: tuple[Path, ...]
    verbose: bool = False
    improve: bool = False
    replace_edited: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What must be the same everywhere, for captions of one run to be made alike. ``model``: size and header's hash."""

    version: str
    python: str
    model: str

    def differences(self, other: Facts) -> list[str]:
        """Return where ``other`` differs, in words."""
        return [
            f"{each.name} {getattr(other, each.name) or 'missing'} instead of {getattr(self, each.name)}"
            for each in fields(self)
            if getattr(self, each.name) != getattr(other, each.name)
        ]


def facts_of(files: Sequence[Path]) -> Facts:
    """Return the facts of this machine; the model is empty where a file is missing."""
    missing = not all(file.is_file() for file in files)
    found = "" if missing else f"{sum(file.stat().st_size for file in files)} bytes {digest(files)}"
    return Facts(__version__, ".".join(platform.python_version_tuple()[:2]), found)


def require_ray() -> None:
    """Raise ToolMissingError where Ray is not installed."""
    if find_spec("ray") is None:
        raise ToolMissingError("--ray needs ray", f"install it with: {HOW_TO_INSTALL}")


def settings_for_nodes(settings: Settings, model: Model, cpus: int) -> Settings:
    """Return the settings with absolute paths and nothing left to choose, so that they mean the same on every node."""
    if not model.files:
        raise ConfigError("--ray and --endpoint exclude each other", "leave one of them out")
    chosen = {
        each.name: value.absolute()
        for each in fields(settings)
        if isinstance(value := getattr(settings, each.name), Path)
    }
    mmproj = next((file.absolute() for file in model.files if file.name == model.projector_name), None)
    return replace(
        settings,
        **chosen,  # type: ignore[arg-type]
        model=str(model.path.absolute()),
        mmproj=mmproj,
        threads=settings.threads or cpus,
        gpus=None,  # the cluster decides
    )


def mismatch(node: str, differences: Sequence[str]) -> ModelError:
    """Return the error for a node that differs from the driver."""
    return ModelError(
        f"node {node} has {', '.join(differences)}", "install the same program and model at the same path on every node"
    )
