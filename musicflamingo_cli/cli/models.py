"""`musicflamingo models`: list, download, locate, check and remove models."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import Common, Json, command, console_for
from musicflamingo_cli.errors import ConfigError, ExitCode, ModelError

if TYPE_CHECKING:
    from musicflamingo_cli.cli.console import Console
    from musicflamingo_cli.config import Settings
    from musicflamingo_cli.models.model import ModelPair

models_app = typer.Typer(no_args_is_help=True, help="List, download, locate, check and remove GGUF models.")
app.add_typer(models_app, name="models")

_GB = 1e9
Name = Annotated[str, typer.Argument(help="auto, tiny, a quant, OWNER/NAME:QUANT or a path.")]


def _settings(common: Common) -> "Settings":
    from musicflamingo_cli.config import load_settings

    return load_settings({"models_dir": common.models_dir, "llama_dir": common.llama_dir}, common.config)


@command(models_app, "list")
def list_(common: Common, json: Json) -> None:
    """List the published quants: which are installed, how large they are, which fit; and other installed models."""
    from musicflamingo_cli.llamacpp import memory
    from musicflamingo_cli.models.catalog import load_catalog, quant_of
    from musicflamingo_cli.models.resolve import installed, published

    console = console_for(common, json.as_json)
    settings = _settings(common)
    catalog, free = load_catalog(), memory.available(settings.llama_dir)
    others = installed(settings.models_folder)
    for quant in catalog.quants:
        needed = catalog.needed(quant)
        file = next((file for file in published(settings.models_folder) if quant_of(file) == quant.name), None)
        others = [other for other in others if other != file]
        row = {
            "quant": quant.name,
            "bytes": file.stat().st_size if file else quant.size,
            "memory_bytes": needed,
            "fits": needed <= free.free,
            "recommended": quant.name == catalog.recommended,
            "path": str(file) if file else None,
        }
        console.json(row)
        console.data(_line(row))
    for file in others:
        row = {"quant": quant_of(file), "bytes": file.stat().st_size, "path": str(file)}
        console.json(row)
        console.data(_line(row))
    console.info(f"memory: {free.free / _GB:.1f} of {free.total / _GB:.1f} GB free ({free.where})")
    console.info("download one with: musicflamingo models pull NAME (auto: the best that fits)")
    console.info("the tiny model is included; it knows no real music")


def _line(row: dict[str, Any]) -> str:
    needs = ""
    if "memory_bytes" in row:
        fits = "fits" if row["fits"] else "too large"
        needs = f"needs {row['memory_bytes'] / _GB:4.1f} GB, {fits:9}{' recommended' if row['recommended'] else ''}"
    return f"{row['quant']:8} {row['bytes'] / _GB:5.1f} GB  {needs:36} {row['path'] or 'not installed'}"


# Long, as its parameters are the command's options.
@command(models_app)
def pull(
    name: Annotated[str, typer.Argument(help="auto, tiny, a quant (Q6_K) or OWNER/NAME:QUANT.")],
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
    """Download a model and its projector: resumed where it stopped, checked, and complete or not there at all."""
    from musicflamingo_cli.models import pull as pulling
    from musicflamingo_cli.models import resolve as models
    from musicflamingo_cli.models.model import TINY

    console = console_for(common, json.as_json)
    settings = _settings(common)
    folder = settings.models_folder
    if name == TINY:
        pair = models.resolve(name, folder)
        files = [pair.language_model, pair.projector]
        console.info("the tiny model is included: there is nothing to download; it knows no real music")
    else:
        if name == "auto":
            name = _best_quant(console, settings)
        if common.quiet:
            from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # documented there

            disable_progress_bars()
        files = pulling.fetch(pulling.find(name, folder, source, revision, imatrix))
        models.check_pair(files[0], files[1])
    for file in files:
        console.data(str(file))
    console.json([str(file) for file in files])


def _best_quant(console: "Console", settings: "Settings") -> str:
    """The quant that `auto` means on this machine; prints the reason."""
    from musicflamingo_cli.llamacpp import memory
    from musicflamingo_cli.models.catalog import load_catalog

    quant, reason = load_catalog().best_for(memory.available(settings.llama_dir))
    console.info(f"{quant.name}: {reason}")
    return quant.name


@command(models_app)
def path(name: Name, common: Common, json: Json) -> None:
    """Show the paths of a model and its projector."""
    from dataclasses import replace

    from musicflamingo_cli.models.resolve import resolve_model

    console = console_for(common, json.as_json)
    pair = resolve_model(replace(_settings(common), model=name))
    console.data(f"{pair.language_model}\n{pair.projector}")
    console.json({"model": str(pair.language_model), "mmproj": str(pair.projector)})


@command(models_app)
def check(
    common: Common,
    json: Json,
    name: Annotated[str | None, typer.Argument(help="A model.  \\[default: all that are installed]")] = None,
    mmproj: Annotated[
        Path | None, typer.Option("--mmproj", help="The projector of a model that is a path.", metavar="PATH")
    ] = None,
) -> None:
    """Check that a model and its projector are complete and belong together."""
    from musicflamingo_cli.models import resolve as models

    console = console_for(common, json.as_json)
    folder = _settings(common).models_folder
    names = [name] if name else [str(path.absolute()) for path in models.installed(folder)]
    if not names:
        raise ModelError(f"no models in {folder}", "download one with: musicflamingo models pull auto")
    bad = False
    for each in names:
        try:
            pair = models.resolve(each, folder, mmproj)
        except ModelError as error:
            if name:
                raise
            bad = True
            console.fail(error)
            console.json({"model": each, "good": False, "reason": str(error), "hint": error.hint})
            continue
        _show_pair(console, pair)
    if bad:
        raise typer.Exit(ExitCode.MODEL)


def _show_pair(console: "Console", pair: "ModelPair") -> None:
    """Print what is known of a model that passed its check."""
    from musicflamingo_cli.models.resolve import is_music_flamingo

    is_own = is_music_flamingo(pair.language_model)
    remark = ", the tiny model: it knows no real music" if pair.is_tiny else "" if is_own else ", not Music Flamingo"
    facts = f"{pair.architecture} with {pair.projector_type}, {pair.context_length} tokens{remark}"
    console.data(f"{pair.language_model.name} + {pair.projector.name}: {facts}, ok")
    console.json(
        {
            "model": str(pair.language_model),
            "mmproj": str(pair.projector),
            "good": True,
            "architecture": pair.architecture,
            "projector_type": pair.projector_type,
            "context_length": pair.context_length,
            "tiny": pair.is_tiny,
            "music_flamingo": is_own,
        }
    )


@command(models_app)
def remove(
    name: Name,
    common: Common,
    json: Json,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete a model, and its projector when no other model in its folder uses it."""
    from musicflamingo_cli.models import resolve as models

    console = console_for(common, json.as_json)
    folder = _settings(common).models_folder
    files = models.files_of(name, folder)
    size = sum(file.stat().st_size for file in files)
    listed = "\n".join(f"  {file}" for file in files)
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"this would delete:\n{listed}", "to confirm, add --yes")
        typer.confirm(f"delete {size / _GB:.1f} GB?\n{listed}\n", abort=True, err=True)
    for file in files:
        file.unlink()
        console.data(str(file))
    console.json([str(file) for file in files])
    console.info(f"{size / _GB:.1f} GB deleted")
