"""`musicflamingo batch`: whole datasets into their sidecars."""

from pathlib import Path
from typing import Annotated

import typer

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import Asking, Common, Json, command, console_for
from musicflamingo_cli.errors import EXIT_TRACK_FAILED


@command(app)
def batch(
    folders: Annotated[list[Path], typer.Argument(help="Datasets, searched recursively.", metavar="DIR...")],
    asking: Asking,
    common: Common,
    json: Json,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write again what exists.")] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Only the first N tracks that need work.", min=1, metavar="N")
    ] = None,
    shard: Annotated[
        str, typer.Option("--shard", help="The I-th of N disjoint parts.", metavar="I/N", show_default=False)
    ] = "1/1",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, do nothing.")] = False,
) -> None:
    """Caption whole datasets, recursively, into .INFO sidecars. What is there already is not done again."""
    from musicflamingo_cli.cli.asking import datasets_for
    from musicflamingo_cli.cli.batch_run import BatchRun, parse_shard

    console = console_for(common, json.as_json)
    settings = asking.settings(common, folders)
    datasets = datasets_for(folders, settings, asking.preset, asking.ask, asking.save_as)
    save = asking.ask is None or asking.save_as is not None
    run = BatchRun(console, settings, datasets, save)
    summary = run.start(overwrite, limit, parse_shard(shard), dry_run)
    if summary.failed:
        raise typer.Exit(EXIT_TRACK_FAILED)
