"""`musicflamingo models` and `musicflamingo build`: what has to be there before a track can be heard."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import Common, Json, command, console_for
from musicflamingo_cli.errors import ConfigError, ModelError, ToolMissingError

models_app = typer.Typer(no_args_is_help=True, help="GGUF models: what is here, get one, check one.")
app.add_typer(models_app, name="models")


def _folder(common: Common) -> Path:
    from musicflamingo_cli.config import load_settings

    return load_settings({"models_dir": common.models_dir}, common.config).models_folder


@command(models_app, "list")
def list_(common: Common, json: Json) -> None:
    """The models in the models folder, and those that can be had."""
    from musicflamingo_cli import models

    console = console_for(common, json.as_json)
    folder = _folder(common)
    here = models.installed(folder)
    for file in here:
        quant, size = models.quant_of(file), file.stat().st_size
        console.data(f"{quant:8} {size / 1e9:6.2f} GB  {file}")
        console.json({"quant": quant, "bytes": size, "path": str(file)})
    if not here:
        console.say(f"no models in {folder}")
    for quant in models.QUANTS:
        if quant not in {models.quant_of(file) for file in here}:
            console.say(f"{quant}: {models.pull_command(quant, folder)}")
    console.say("tiny (random weights, for tests): musicflamingo models pull tiny")


@command(models_app)
def pull(
    name: Annotated[str, typer.Argument(help="tiny, or a quant such as Q6_K.")], common: Common, json: Json
) -> None:
    """Get a model and its projector."""
    from musicflamingo_cli import models

    console = console_for(common, json.as_json)
    folder = _folder(common)
    if name != models.TINY:
        raise ModelError(f"{name} is not downloaded by this release", models.pull_command(name, folder))
    files = models.pull_tiny(folder)
    for file in files:
        console.data(str(file))
    console.json([str(file) for file in files])
    console.say("the tiny model has random weights: its captions are noise, for tests only")


@command(models_app)
def path(
    name: Annotated[str, typer.Argument(help="auto, tiny, a quant or a path.")],
    common: Common,
    json: Json,
) -> None:
    """Where a model and its projector lie."""
    from musicflamingo_cli import models

    console = console_for(common, json.as_json)
    pair = models.resolve(name, _folder(common))
    console.data(f"{pair.language_model}\n{pair.projector}")
    console.json({"model": str(pair.language_model), "mmproj": str(pair.projector)})


@command(models_app)
def check(
    common: Common,
    json: Json,
    name: Annotated[str | None, typer.Argument(help="A model.  [all that are here]")] = None,
    mmproj: Annotated[Path | None, typer.Option("--mmproj", help="Its projector.", metavar="PATH")] = None,
) -> None:
    """Read the headers of a model and its projector, and fail early what llama.cpp would fail late."""
    from musicflamingo_cli import models

    console = console_for(common, json.as_json)
    folder = _folder(common)
    names = [name] if name else [str(path.absolute()) for path in models.installed(folder)]
    if not names:
        raise ModelError(f"no models in {folder}", "see what can be had: musicflamingo models list")
    for each in names:
        pair = models.resolve(each, folder, mmproj)
        noise = ", random weights" if pair.is_noise else ""
        console.data(f"{pair.language_model.name} + {pair.projector.name}: {pair.context_length} tokens{noise}, good")
        console.json(
            {
                "model": str(pair.language_model),
                "mmproj": str(pair.projector),
                "context_length": pair.context_length,
                "noise": pair.is_noise,
            }
        )


@command(app, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def build(
    common: Common,
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Options of scripts/build_llama_cpp.sh.", metavar="[OPTIONS]")
    ] = None,
) -> None:
    """Build llama.cpp for this machine (options: `musicflamingo build -- --help`)."""
    from musicflamingo_cli.config import data_file

    script = data_file("scripts", "build_llama_cpp.sh")
    environment = {**os.environ, "PYTHON": sys.executable}
    try:
        done = subprocess.run(["bash", str(script), *(arguments or [])], env=environment, check=False)
    except OSError as error:
        raise ToolMissingError(f"bash cannot be started: {error.strerror}", "install bash, then try again") from error
    if done.returncode == 2:
        raise ConfigError("the build was not started", "see: musicflamingo build -- --help")
    if done.returncode != 0:
        raise ToolMissingError("llama.cpp was not built", "the lines above say what to do, or see the log they name")
