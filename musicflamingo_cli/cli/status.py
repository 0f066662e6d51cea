"""`musicflamingo status`: how much of a dataset is captioned."""

from pathlib import Path
from typing import Annotated

import typer

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import Common, FollowLinks, Json, ModelOptions, command, console_for


@command(app)
def status(
    folders: Annotated[list[Path], typer.Argument(help="Datasets, searched recursively.", metavar="DIR")],
    options: ModelOptions,
    common: Common,
    json: Json,
    follow_links: FollowLinks = False,
) -> None:
    """Count captioned, missing, outdated and failed tracks, for each preset. Reads sidecars only."""
    import shlex

    from musicflamingo_cli.captioning.status import as_json, examine
    from musicflamingo_cli.cli.presets import datasets_to_ask, require_existing
    from musicflamingo_cli.cli.status_table import show
    from musicflamingo_cli.errors import ModelError
    from musicflamingo_cli.models.resolve import resolve_model
    from musicflamingo_cli.sidecars.staleness import caption_settings

    console = console_for(common, json.as_json)
    require_existing(folders, "folder")
    settings = options.settings(common, folders)
    datasets = datasets_to_ask(options, settings, folders)
    try:
        now, problem = caption_settings(settings, resolve_model(settings)), ""
    except ModelError as error:
        now, problem = None, f"which captions are outdated is not known: {error}; {error.hint}"
    found = examine(datasets, now, follow_links)
    console.json(as_json(found, folders))
    show(console, found, shlex.join(map(str, folders)))
    if problem:
        console.info(problem)
