"""`musicflamingo compare`: captions of several engines and models side by side."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import AskOptions, Common, Json, command, console_for
from musicflamingo_cli.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from musicflamingo_cli.captioning.comparison import Side, SideName, TrackComparison
    from musicflamingo_cli.cli.console import Console
    from musicflamingo_cli.prompts import Preset
    from musicflamingo_cli.types import Workload

_EXAMPLE = "musicflamingo compare song.flac --with server:Q6_K --with server:IQ3_M"


@command(app)
def compare(
    audio: Annotated[
        list[Path], typer.Argument(help="Audio files; with --lora, the datasets it was trained on.", metavar="AUDIO")
    ],
    options: AskOptions,
    common: Common,
    json: Json,
    sides: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            help="An engine and a model, or one of the two (the other is auto), with an adapter as +ADAPTER. Give it"
            " twice or more.",
            metavar="ENGINE:MODEL",
        ),
    ] = None,
    lora: Annotated[
        Path | None,
        typer.Option(
            "--lora",
            help="Is this adapter better? Ask with and without it about the tracks that it was not trained on.",
            metavar="ADAPTER",
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Also write one HTML page.", metavar="FILE")] = None,
) -> None:
    """Caption files with several engines or models, and show the captions side by side. Nothing is saved."""
    from musicflamingo_cli.captioning.comparison import SideName, find_sides
    from musicflamingo_cli.cli.outcomes import TINY_MODEL_WARNING
    from musicflamingo_cli.cli.presets import presets_to_ask, require_files
    from musicflamingo_cli.report.comparison_page import require_free_page, write_comparison
    from musicflamingo_cli.types import Workload

    console = console_for(common, json.as_json)
    names = [SideName.parse(text) for text in sides or []]
    if lora:
        return _with_and_without(console, audio, lora, names, options, common, html)
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
    compared = _ask(console, tracks, found, workload)
    for track in compared:
        console.json(track.as_json())
        _show(console, track)
    if html:
        write_comparison(compared, html)
        console.info(f"page: {html}")
    if any(track.has_failures for track in compared):
        raise typer.Exit(ExitCode.TRACK_FAILED)


def _ask(
    console: "Console", tracks: "Sequence[tuple[Path, Sequence[Preset]]]", sides: "Sequence[Side]", workload: "Workload"
) -> "list[TrackComparison]":
    from musicflamingo_cli.captioning.comparison import ask_all

    try:
        return ask_all(tracks, sides, workload)
    except KeyboardInterrupt as error:
        console.warn("interrupted; a comparison saves nothing")
        raise typer.Exit(ExitCode.INTERRUPTED) from error


def _with_and_without(
    console: "Console",
    datasets: list[Path],
    lora: Path,
    names: "Sequence[SideName]",
    options: AskOptions,
    common: Common,
    html: Path | None,
) -> None:
    """Show whether an adapter is better than its base model, where it was not trained."""
    from musicflamingo_cli.captioning.comparison import SideName, find_sides
    from musicflamingo_cli.choices import EngineName
    from musicflamingo_cli.cli.presets import presets_to_ask, require_existing
    from musicflamingo_cli.finetuning.evaluation import evaluate, validation_tracks
    from musicflamingo_cli.models.adapters import check_adapter
    from musicflamingo_cli.report.adapter_section import evaluation_lines
    from musicflamingo_cli.report.comparison_page import require_free_page, write_comparison
    from musicflamingo_cli.types import Workload

    require_existing(datasets, "file or folder")
    if len(names) > 1:
        raise ConfigError("--lora takes one --with", "it is asked with and without the adapter")
    if html:
        require_free_page(html)
    adapter = check_adapter(lora)
    settings = dataclasses.replace(options.settings(common, datasets), repeat_penalty=1.0, temperature=0.0)
    approved = validation_tracks(datasets, adapter, presets_to_ask(options, settings, datasets[0]))
    base = names[0] if names else SideName(EngineName.AUTO, _base_name(adapter.base))
    tracks = [(each.track.audio, each.presets) for each in approved]
    workload = Workload(len(tracks), max(len(presets) for _, presets in tracks))
    sides = find_sides([base, dataclasses.replace(base, lora=lora)], settings, workload)
    console.info(f"asking {sides[1].model_name} about {len(tracks)} tracks, with and without the adapter")
    compared = _ask(console, tracks, sides, workload)
    evaluation = evaluate(compared, approved, adapter)
    for line in evaluation_lines(evaluation):
        console.data(line)
    console.json(evaluation.as_json())
    if html:
        write_comparison(compared, html, evaluation)
        console.info(f"page: {html}")
    if any(track.has_failures for track in compared):
        raise typer.Exit(ExitCode.TRACK_FAILED)


def _base_name(base: str) -> str:
    """What --model calls an adapter's base: the checkpoint of the tiny model has a name of its own."""
    from musicflamingo_cli.models.model import TINY

    return TINY if base == f"musicflamingo-{TINY}" else base


def _show(console: "Console", track: "TrackComparison") -> None:
    """Print a table for each preset."""
    from musicflamingo_cli.cli.comparison_table import table_of

    for name, preset in track.presets.items():
        console.data(f"{track.track} [{name}]")
        console.table(table_of(preset))
        console.data("")
