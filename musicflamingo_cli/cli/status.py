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
    from musicflamingo_cli.cli.console import duration
    from musicflamingo_cli.cli.presets import datasets_to_ask, require_existing
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
    console.data(f"{found.tracks} tracks: {found.complete} complete, {found.untouched} without any caption")
    for name, counts in found.presets.items():
        console.data(f"  {name:16} " + ", ".join(f"{number} {state}" for state, number in counts.items()))
    if problem:
        console.info(problem)
    console.data(f"{duration(found.heard_seconds)} of audio captioned")
    named = shlex.join(map(str, folders))
    if found.checked or found.check_outdated:
        outdated = f"; {found.check_outdated} checks are outdated" if found.check_outdated else ""
        console.data(f"{found.checked} checked, {found.contradicted} with a contradiction{outdated}")
    if found.check_outdated:
        console.info(f"check again: musicflamingo check {named}")
    if found.failed:
        console.data(f"{found.failed} failed in the last run; retry: musicflamingo batch {named} --retry-failed")
    if found.unreadable:
        console.data(f"{found.unreadable} sidecars cannot be read; list: musicflamingo batch {named} --dry-run")
    if found.skipped:
        links = f", {found.links_out} of them links that lead out of the dataset" if found.links_out else ""
        console.data(f"{found.skipped} files skipped{links}")
