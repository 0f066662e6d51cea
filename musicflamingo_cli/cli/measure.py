"""`musicflamingo measure`: tempo, key and loudness measured from the audio."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import Common, FollowLinks, Json, command, console_for
from musicflamingo_cli.errors import ExitCode


@command(app)
def measure(
    folders: Annotated[list[Path], typer.Argument(help="Datasets, searched recursively, or files.", metavar="DIR")],
    common: Common,
    json: Json,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Measure again what is measured.")] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Only the first N tracks to measure.", min=1, metavar="N")
    ] = None,
    shard: Annotated[
        str, typer.Option("--shard", help="Only the I-th of N disjoint parts of the dataset.", metavar="I/N")
    ] = "1/1",
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes.  \\[default: one for each core]", min=1, max=256)
    ] = None,
    follow_links: FollowLinks = False,
) -> None:
    """Measure tempo, key, loudness, length, silence and stereo width of each track, into its .INFO sidecar.

    Needs no model. Tracks that are measured are skipped unless their audio changed.
    """
    from musicflamingo_cli.cli.batch_run import parse_shard
    from musicflamingo_cli.cli.measurements import MeasureJob
    from musicflamingo_cli.cli.presets import require_existing
    from musicflamingo_cli.dataset.selection import Selection
    from musicflamingo_cli.dataset.tracks import find_tracks
    from musicflamingo_cli.types import Skipped, Track

    console = console_for(common, json.as_json)
    require_existing(folders, "file or folder")
    selection = Selection(shard=parse_shard(shard), follow_links=follow_links)

    def items() -> Iterator[Track | Skipped]:
        visited: set[tuple[int, int]] = set()
        for folder in folders:
            for item in find_tracks(folder, visited, follow_links=follow_links):
                if isinstance(item, Skipped) or selection.takes(item, folder):
                    yield item

    job = MeasureJob(console, items, overwrite=overwrite, limit=limit, workers=workers)
    if job.run():
        raise typer.Exit(ExitCode.TRACK_FAILED)
