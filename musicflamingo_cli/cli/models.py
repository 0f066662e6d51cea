"""`musicflamingo models`: list, download, locate, check and remove models."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musicflamingo_cli.cli import app, completion
from musicflamingo_cli.cli.options import Common, Json, command, console_for
from musicflamingo_cli.cli.usage import Group
from musicflamingo_cli.errors import ConfigError, ExitCode, ModelError

if TYPE_CHECKING:
    from musicflamingo_cli.cli.console import Console
    from musicflamingo_cli.config import Settings
    from musicflamingo_cli.models.generators import Generator
    from musicflamingo_cli.models.model import Model

models_app = typer.Typer(cls=Group, no_args_is_help=True, help="List, download, locate, check and remove models.")
app.add_typer(models_app, name="models")

_GB = 1e9
Name = Annotated[
    str,
    typer.Argument(
        help="auto, tiny, a quant, OWNER/NAME:QUANT, a checkpoint (OWNER/NAME) or a path.",
        autocompletion=completion.installed_models,
    ),
]


def _settings(common: Common) -> "Settings":
    from musicflamingo_cli.config import load_settings

    return load_settings({"models_dir": common.models_dir, "llama_dir": common.llama_dir}, common.config)


@command(models_app, "list")
def list_(common: Common, json: Json) -> None:
    """List the published models: which are installed, how large they are, which fit; and other installed ones."""
    from musicflamingo_cli.cli.model_rows import rows_of
    from musicflamingo_cli.cli.model_table import show
    from musicflamingo_cli.llamacpp import memory

    console = console_for(common, json.as_json)
    settings = _settings(common)
    free = memory.available(settings.llama_dir)
    rows = rows_of(settings.models_folder, free)
    for row in rows:
        console.json(row)
    show(console, rows)
    console.info(f"memory: {free.free / _GB:.1f} of {free.total / _GB:.1f} GB free ({free.where})")
    console.info("download one with: musicflamingo models pull NAME (auto: the best quant that fits)")
    console.info("quants run under llama.cpp, checkpoints (OWNER/NAME) in transformers; musicgen is for: listen")
    console.info("the tiny model is included; it knows no real music")


# Long, as its parameters are the command's options.
@command(models_app)
def pull(
    name: Annotated[
        str,
        typer.Argument(
            help="auto, tiny, a quant (Q6_K), OWNER/NAME:QUANT or a checkpoint (OWNER/NAME).",
            autocompletion=completion.all_models,
        ),
    ],
    common: Common,
    json: Json,
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            help="The repository to take a quant from.  \\[default: where it is published]",
            metavar="OWNER/NAME",
        ),
    ] = None,
    revision: Annotated[
        str,
        typer.Option(
            "--revision",
            help="The repository's branch, tag or commit.  \\[default: main]",
            metavar="REV",
            show_default=False,
        ),
    ] = "main",
    imatrix: Annotated[bool, typer.Option("--imatrix", help="Also download the importance matrix.")] = False,
) -> None:
    """Download a model: resumed where it stopped, checked, and complete or not there at all.

    A quant comes with its projector; a checkpoint is a folder.
    """
    from musicflamingo_cli.models import pull as pulling
    from musicflamingo_cli.models import resolve as models
    from musicflamingo_cli.models.checkpoints import repository_of
    from musicflamingo_cli.models.model import TINY

    console = console_for(common, json.as_json)
    settings = _settings(common)
    folder = settings.models_folder
    if common.quiet:
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # documented there

        disable_progress_bars()
    if name == TINY:
        pair = models.resolve(name, folder)
        files = [pair.language_model, pair.projector]
        console.info("the tiny model is included: there is nothing to download; it knows no real music")
    elif repository := repository_of(name):
        if source or imatrix:
            raise ConfigError(f"{repository} is a checkpoint, not a quant", "leave --source and --imatrix out")
        files = [_pull_checkpoint(console, repository, folder, revision)]
    else:
        if name == "auto":
            name = _best_quant(console, settings)
        files = pulling.fetch(pulling.find(name, folder, source, revision, imatrix))
        models.check_pair(files[0], files[1])
    for file in files:
        console.data(str(file))
    console.json([str(file) for file in files])


def _pull_checkpoint(console: "Console", repository: str, folder: Path, revision: str) -> Path:
    """Say what will be downloaded, download it, and return its folder."""
    from musicflamingo_cli.models.pull import fetch_checkpoint, find_checkpoint_files

    order = find_checkpoint_files(repository, folder, revision)
    licence = order.licence or "see its model card"
    console.info(f"{repository}: {len(order.files)} files, {order.size / _GB:.1f} GB; licence: {licence}")
    return fetch_checkpoint(order)


def _best_quant(console: "Console", settings: "Settings") -> str:
    """The quant that `auto` means on this machine; prints the reason."""
    from musicflamingo_cli.llamacpp import memory
    from musicflamingo_cli.models.catalog import load_catalog

    quant, reason = load_catalog().best_for(memory.available(settings.llama_dir))
    console.info(f"{quant.name}: {reason}")
    return quant.name


@command(models_app)
def path(name: Name, common: Common, json: Json) -> None:
    """Show the paths of a model and its projector, or a checkpoint's folder."""
    from musicflamingo_cli.models.generators import Generator

    model = _resolved(name, _settings(common))
    console = console_for(common, json.as_json)
    if isinstance(model, Generator):
        console.data(str(model.folder))
        console.json({"model": str(model.folder), "mmproj": None})
        return
    projector = _projector(model)
    console.data(str(model.path))
    if projector:
        console.data(str(projector))
    console.json({"model": str(model.path), "mmproj": str(projector) if projector else None})


def _resolved(name: str, settings: "Settings") -> "Model | Generator":
    """The model of that name; the settings' engine only decides which kind `auto` and `tiny` mean."""
    from dataclasses import replace

    from musicflamingo_cli.choices import EngineName
    from musicflamingo_cli.models.generators import is_generator_name, resolve_generator
    from musicflamingo_cli.models.model import TINY
    from musicflamingo_cli.models.resolve import resolve_model

    if is_generator_name(name, settings.models_folder):
        return resolve_generator(name, settings.models_folder)
    engine = settings.engine if name in ("auto", TINY) else EngineName.AUTO
    return resolve_model(replace(settings, model=name, engine=engine))


def _projector(model: "Model") -> Path | None:
    from musicflamingo_cli.models.model import ModelPair

    return model.projector if isinstance(model, ModelPair) else None


@command(models_app)
def check(
    common: Common,
    json: Json,
    name: Annotated[
        str | None,
        typer.Argument(
            help="A model, or an adapter's folder.  \\[default: all that are installed]",
            autocompletion=completion.installed_models,
        ),
    ] = None,
    mmproj: Annotated[
        Path | None, typer.Option("--mmproj", help="The projector of a model that is a path.", metavar="PATH")
    ] = None,
    lora: Annotated[
        Path | None, typer.Option("--lora", help="An adapter that the model is to be used with.", metavar="ADAPTER")
    ] = None,
) -> None:
    """Check that a model is complete, and that its projector and adapter belong to it; or check an adapter alone."""
    from dataclasses import replace

    from musicflamingo_cli.cli.model_rows import adapter_line, adapter_row, good_line, good_row
    from musicflamingo_cli.models.adapters import check_adapter, is_adapter
    from musicflamingo_cli.models.checkpoints import installed_checkpoints
    from musicflamingo_cli.models.generators import installed_generators
    from musicflamingo_cli.models.resolve import installed
    from musicflamingo_cli.paths import expanded

    console = console_for(common, json.as_json)
    settings = replace(_settings(common), mmproj=mmproj, lora=lora)
    folder = settings.models_folder
    if name and is_adapter(expanded(name)):
        adapter = check_adapter(Path(name))
        console.data(adapter_line(adapter))
        console.json(adapter_row(adapter))
        return
    found = [*installed(folder), *installed_checkpoints(folder), *installed_generators(folder)]
    if not name and not found:
        raise ModelError(f"no models in {folder}", "download one with: musicflamingo models pull auto")
    bad = False
    for each in [name] if name else [str(path.absolute()) for path in found]:
        try:
            model = _resolved(each, settings)
        except ModelError as error:
            if name:
                raise
            bad = True
            console.fail(error)
            console.json({"model": each, "good": False, "reason": str(error), "hint": error.hint})
            continue
        console.data(good_line(model))
        console.json(good_row(model))
    if bad:
        raise typer.Exit(ExitCode.MODEL)


@command(models_app)
def remove(
    name: Name,
    common: Common,
    json: Json,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete a model, and its projector when no other model in its folder uses it; or a checkpoint's folder."""
    from musicflamingo_cli.models import checkpoints
    from musicflamingo_cli.models import resolve as models

    console = console_for(common, json.as_json)
    folder = _settings(common).models_folder
    if checkpoints.is_checkpoint_name(name):
        paths = [checkpoints.removable(name, folder)]
        size = checkpoints.size_of(paths[0])
    else:
        paths = models.files_of(name, folder)
        size = sum(path.stat().st_size for path in paths)
    listed = "\n".join(f"  {path}" for path in paths)
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"this would delete:\n{listed}", "to confirm, add --yes")
        typer.confirm(f"delete {size / _GB:.1f} GB?\n{listed}\n", abort=True, err=True)
    for path in paths:
        if path.is_dir():
            checkpoints.delete(path)
        else:
            path.unlink()
        console.data(str(path))
    console.json([str(path) for path in paths])
    console.info(f"{size / _GB:.1f} GB deleted")
