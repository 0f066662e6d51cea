"""Options that say where the work is done: on which GPUs, by which endpoints."""

# No `from __future__ import annotations` here: Typer reads the annotations as objects.

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musicflamingo_cli.choices import Writer
from musicflamingo_cli.cli.command_help import CommandWithDefaults
from musicflamingo_cli.cli.options import ChatOptions, Common, ModelOptions, RunOptions
from musicflamingo_cli.errors import ConfigError

if TYPE_CHECKING:
    from musicflamingo_cli.cluster.plan import ClusterPlan


def _flag(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="Where", show_default=False, **more)


_ADDRESS = re.compile(r"local|auto|[\w.\-\[\]:]+:\d+")
_HOST = re.compile(r"localhost|\d+\.\d+\.\d+\.\d+")  # an address whose port was forgotten


class CommandWithRay(CommandWithDefaults):
    """A command whose --ray needs no address: Typer knows no option with an optional value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for place, word in enumerate(args):
            if word == "--":
                break
            following = "".join(args[place + 1 : place + 2])
            if word == "--ray" and not _ADDRESS.fullmatch(following):
                if _HOST.fullmatch(following) and not Path(following).exists():
                    raise typer.BadParameter(f"{following} has no port; for example: --ray {following}:6379")
                args = [*args[: place + 1], "local", *args[place + 1 :]]
                break
        return super().parse_args(ctx, args)


@dataclasses.dataclass(frozen=True)
class EndpointChoice(RunOptions):
    """Which endpoints answer, instead of a model on this machine."""

    endpoint: Annotated[
        list[str] | None,
        _flag("--endpoint", help="A chat API that takes audio, repeatable; see docs/many-machines.md.", metavar="URL"),
    ] = None
    insecure: Annotated[
        bool | None,
        _flag("--insecure", help="Allow endpoints without encryption or with an invalid certificate."),
    ] = None

    def flags(self, common: Common) -> dict[str, Any]:
        """See RunOptions.flags; the URLs become one setting."""
        return {**super().flags(common), "endpoint": " ".join(self.endpoint) if self.endpoint else None}


@dataclasses.dataclass(frozen=True)
class ConversationOptions(EndpointChoice, ChatOptions):
    """All of a command that holds a conversation, here or elsewhere."""


@dataclasses.dataclass(frozen=True)
class EndpointOptions(EndpointChoice, ModelOptions):
    """All of a command that runs one model, here or elsewhere."""


@dataclasses.dataclass(frozen=True)
class RayOptions(EndpointOptions):
    """A cluster that does the work."""

    ray: Annotated[
        str | None,
        _flag("--ray", help="Use the Ray cluster at HOST:PORT; without: start one here.", metavar="[ADDRESS]"),
    ] = None
    actors: Annotated[
        str | None, _flag("--actors", help="How many actors at most, or max: as many as fit.", metavar="N|max")
    ] = None
    gpus_per_actor: Annotated[
        float | None, _flag("--gpus-per-actor", help="GPUs of each actor, also a part of one.", metavar="F", min=0)
    ] = None
    cpus_per_actor: Annotated[
        int | None, _flag("--cpus-per-actor", help="Processors of each actor.", metavar="N", min=1)
    ] = None
    write: Annotated[
        Writer | None, _flag("--write", help="Who writes the sidecars of a cluster's captions.  \\[default: driver]")
    ] = None

    def cluster(self) -> "ClusterPlan | None":
        """Return how the batch uses a cluster, if it does. Raises ConfigError, ToolMissingError without Ray."""
        from musicflamingo_cli.cluster.plan import ClusterPlan, require_ray

        given = {
            "--actors": self.actors,
            "--gpus-per-actor": self.gpus_per_actor,
            "--cpus-per-actor": self.cpus_per_actor,
            "--write": self.write,
        }
        if self.ray is None:
            if without := [name for name, value in given.items() if value is not None]:
                raise ConfigError(f"{without[0]} is about a cluster", "add --ray ADDRESS, or leave it out")
            return None
        actors = None if self.actors in (None, "max") else self.actors
        if actors is not None and not (actors.isdigit() and 1 <= int(actors) <= 10_000):
            raise ConfigError(f"--actors {actors} is neither a number nor max", "for example: --actors 4")
        plan = ClusterPlan(
            address=self.ray,
            actors=int(actors) if actors else None,
            gpus=self.gpus_per_actor,
            cpus=self.cpus_per_actor,
            writer=self.write or Writer.DRIVER,
        )
        require_ray()  # before a model is looked for, which may have to be downloaded first
        return plan


@dataclasses.dataclass(frozen=True)
class BatchOptions(RayOptions):
    """Where a batch does its work."""

    single_writer: Annotated[
        bool,
        _flag("--single-writer", help="For stores without conditional writes: no other process writes there."),
    ] = False

    gpus: Annotated[
        str | None, _flag("--gpus", help="An engine on each GPU: all, or numbers such as 0,2.", metavar="LIST")
    ] = None

    def cluster(self) -> "ClusterPlan | None":
        """See RayOptions.cluster."""
        if self.ray is not None and self.gpus is not None:
            raise ConfigError("--gpus is about this machine, not a cluster", "with --ray: --gpus-per-actor 1")
        return super().cluster()
