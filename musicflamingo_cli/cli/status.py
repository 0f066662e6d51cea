"""`musicflamingo status`: where a dataset stands."""

from pathlib import Path
from typing import Annotated

import typer

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import Asking, Common, Json, command, console_for


@command(app)
def status(
    folders: Annotated[list[Path], typer.Argument(help="Datasets, searched recursively.", metavar="DIR...")],
    asking: Asking,
    common: Common,
    json: Json,
) -> None:
    """Captioned, missing, stale and failed, for each preset. Reads sidecars only."""
    import shlex

    from musicflamingo_cli.captioning import status as examination
    from musicflamingo_cli.captioning.captioner import maker, resolve_model
    from musicflamingo_cli.cli.asking import datasets_for
    from musicflamingo_cli.cli.console import duration
    from musicflamingo_cli.errors import ModelError

    console = console_for(common, json.as_json)
    settings = asking.settings(common, folders)
    datasets = datasets_for(folders, settings, asking.preset, None, None)
    try:
        would_make, lacking = maker(settings, resolve_model(settings)), ""
    except ModelError as error:
        would_make, lacking = None, f"what is stale is not known: {error}; {error.hint}"
    found = examination.examine(datasets, would_make)
    console.json(examination.as_json(found, folders))
    console.data(f"{found.tracks} tracks: {found.complete} complete, {found.untouched} untouched")
    for name, counts in found.presets.items():
        console.data(f"  {name:16} " + ", ".join(f"{number} {state}" for state, number in counts.items()))
    if lacking:
        console.say(lacking)
    console.data(f"{duration(found.heard_seconds)} of audio heard")
    named = shlex.join(map(str, folders))
    if found.failed:
        console.data(f"{found.failed} failed in the last run: musicflamingo batch {named} --retry-failed")
    if found.unreadable:
        console.data(f"{found.unreadable} sidecars cannot be read: musicflamingo batch {named} --dry-run names them")
    if found.skipped:
        console.data(f"{found.skipped} files skipped")
