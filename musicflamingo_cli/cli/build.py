"""`musicflamingo build`: llama.cpp for the GPU of this machine."""

import sys
from typing import Annotated

import typer

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import Common, command
from musicflamingo_cli.errors import ConfigError, ExitCode, ToolMissingError


@command(app, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def build(
    common: Common,
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Options of scripts/build_llama_cpp.sh.", metavar="[OPTIONS]")
    ] = None,
) -> None:
    """Build llama.cpp for this machine (options: `musicflamingo build -- --help`)."""
    from musicflamingo_cli.paths import data_file, llama_cache_dir
    from musicflamingo_cli.system.processes import run_in_terminal, without_secrets

    script = data_file("scripts", "build_llama_cpp.sh")
    environment = {**without_secrets(), "PYTHON": sys.executable, "MUSICFLAMINGO_BUILDS": str(llama_cache_dir())}
    try:
        exit_code = run_in_terminal(["bash", str(script), *(arguments or [])], environment)
    except OSError as error:
        raise ToolMissingError(f"bash cannot be started: {error.strerror}", "install bash, then try again") from error
    if exit_code == ExitCode.USAGE:
        raise ConfigError("the build was not started", "see: musicflamingo build -- --help")
    if exit_code != 0:
        raise ToolMissingError("llama.cpp was not built", "see what to do in the lines above, or the log they name")
