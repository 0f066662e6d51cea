"""Options that say where the work is done: on which GPUs, by which endpoints."""

# No `from __future__ import annotations` here: Typer reads the annotations as objects.

import dataclasses
from typing import Annotated, Any

import typer

from musicflamingo_cli.cli.options import Common, ModelOptions


def _flag(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="Where", show_default=False, **more)


@dataclasses.dataclass(frozen=True)
class EndpointOptions(ModelOptions):
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
class BatchOptions(EndpointOptions):
    """Where a batch does its work."""

    gpus: Annotated[
        str | None, _flag("--gpus", help="An engine on each GPU: all, or numbers such as 0,2.", metavar="LIST")
    ] = None
