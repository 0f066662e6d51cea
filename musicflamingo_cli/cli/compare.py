"""`musicflamingo compare`: captions of several engines and models side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import AskOptions, Common, Json, command, console_for
from musicflamingo_cli.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from musicflamingo_cli.captioning.comparison import TrackComparison
    from musicflamingo_cli.cli.console import Console

_EXAMPLE = "musicflamingo compare song.flac --with server:Q6_K --with server:IQ3_M"


@command(app)
def compare(
    audio: Annotated[list[Path], typer.Argument(help="Audio files.", metavar="AUDIO")],
    options: AskOptions,
    common: Common,
    json: Json,
    sides: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            help="An engine and a model, or one of the two (the other is auto). Give it twice or more.",
            metavar="ENGINE:MODEL",
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Also write one HTML page.", metavar="FILE")] = None,
) -> None:
    """Caption files with several engines or models, and show the captions side by side. Nothing is saved."""
    from musicflamingo_cli.captioning.comparison import SideName, ask_all, find_sides
    from musicflamingo_cli.cli.outcomes import TINY_MODEL_WARNING
    from musicflamingo_cli.cli.presets import presets_to_ask, require_files
    from musicflamingo_cli.report.comparison_page import require_free_page, write_comparison
    from musicflamingo_cli.types import Workload

    console = console_for(common, json.as_json)
    names = [SideName.parse(text) for text in sides or []]
    if len(names) < 2:
        raise ConfigError("compare needs --with twice or more", f"for example: {_EXAMPLE}")
    require_files(audio)
    if html:
        require_free_page(html)
    settings = options.settings(common, audio)
    tracks = [(path, presets_to_ask(options, settings, path)) for path in audio]
    workload = Workload(len(tracks), max(len(presets) for _, presets in tracks))
    found = find_sides(names, settings, workload)
    if any(side.model.is_tiny for side in found):
        console.warn(TINY_MODEL_WARNING)
    try:
        compared = ask_all(tracks, found, workload)
    except KeyboardInterrupt as error:
        console.warn("interrupted; a comparison saves nothing")
        raise typer.Exit(ExitCode.INTERRUPTED) from error
    for track in compared:
        console.json(track.as_json())
        _show(console, track)
    if html:
        write_comparison(compared, html)
        console.info(f"page: {html}")
    if any(track.has_failures for track in compared):
        raise typer.Exit(ExitCode.TRACK_FAILED)


def _show(console: "Console", track: "TrackComparison") -> None:
    """Print a table for each preset."""
    from musicflamingo_cli.cli.comparison_table import table_of

    for name, preset in track.presets.items():
        console.data(f"{track.track} [{name}]")
        console.table(table_of(preset))
        console.data("")
