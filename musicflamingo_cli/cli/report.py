"""`musicflamingo report`: one page about a captioned dataset."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from musicflamingo_cli.cli import app, completion
from musicflamingo_cli.cli.options import Common, FollowLinks, Json, command, console_for
from musicflamingo_cli.errors import ConfigError


# Many parameters, as they are the command's options.
@command(app)
def report(
    dataset: Annotated[Path, typer.Argument(help="A captioned dataset.", metavar="DIR")],
    common: Common,
    json: Json,
    out: Annotated[Path | None, typer.Option("--out", help="The page.  \\[default: NAME-report.html, here]")] = None,
    preset: Annotated[
        list[str] | None,
        typer.Option(
            "--preset",
            "-p",
            help="Only this preset, repeatable.  \\[default: those marked so]",
            autocompletion=completion.presets,
        ),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="Count T5 tokens with this tokenizer.json or model.")
    ] = None,
    spectrograms: Annotated[bool, typer.Option(help="Draw a spectrogram of each track.")] = True,
    follow_links: FollowLinks = False,
) -> None:
    """Write one page about a captioned dataset: figures, distributions, every caption with its audio."""
    from musicflamingo_cli.cli.presets import presets_files, presets_to_read
    from musicflamingo_cli.report import Source, write_report
    from musicflamingo_cli.report.contents import Entry
    from musicflamingo_cli.text.t5_tokens import token_counter

    console = console_for(common, json.as_json)
    if not dataset.is_dir():
        raise ConfigError(f"no such folder: {dataset}", "check the path")
    names = presets_to_read(presets_files(common, dataset), preset)
    page = out or Path(f"{dataset.resolve().name or 'dataset'}-report.html")
    counter = token_counter(tokenizer)
    source = Source(root=dataset, presets=names, counter=counter, pictures=spectrograms, follow_links=follow_links)
    read = 0

    def progress(entries: Sequence[Entry]) -> None:
        nonlocal read
        read += len(entries)
        console.detail(f"{read} tracks read")
        for entry in entries:
            if entry.problem:
                console.info(f"{entry.track.audio}: {entry.problem}")

    figures = write_report(source, page, progress)
    console.json({**figures.as_json(), "page": str(page)})
    console.data(f"{figures.tracks} tracks, {figures.complete} complete: {page}")
    if not any(figures.captioned.values()):
        console.warn(f"no track has a caption of {', '.join(names)}; see: musicflamingo status '{dataset}'")
