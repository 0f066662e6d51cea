"""The command line. Importing this imports Typer and our own light modules, nothing heavy (tests check that)."""

from typing import Annotated

import typer

from musicflamingo_cli._version import __version__
from musicflamingo_cli.cli import options
from musicflamingo_cli.cli.usage import Group

app = typer.Typer(
    name="musicflamingo",
    cls=Group,
    help="Caption your music library: NVIDIA's Music Flamingo under llama.cpp, written into .INFO sidecars.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"musicflamingo {__version__}")
        raise typer.Exit


def _main(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    **common: object,
) -> None:
    ctx.obj = options.Common(**common)  # type: ignore[arg-type]


options.register_callback(app, _main)

from musicflamingo_cli.cli import (  # noqa: E402  (they register themselves)
    batch,
    build,
    caption,
    chat,
    check,
    compare,
    demo,
    doctor,
    export,
    finetune,
    listen,
    measure,
    models,
    prompts,
    report,
    review,
    serve,
    status,
    tags,
)

__all__ = [
    "app",
    "batch",
    "build",
    "caption",
    "chat",
    "check",
    "compare",
    "demo",
    "doctor",
    "export",
    "finetune",
    "listen",
    "measure",
    "models",
    "prompts",
    "report",
    "review",
    "serve",
    "status",
    "tags",
]
