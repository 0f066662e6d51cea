"""`musicflamingo build`: llama.cpp for the GPU that is there."""

import os
import subprocess
import sys
from typing import Annotated

import typer

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import Common, command
from musicflamingo_cli.errors import ConfigError, ToolMissingError


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
