"""`musicflamingo demo`: the whole job on known or given music with the tiny model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import Common, Json, ModelOptions, command, console_for
from musicflamingo_cli.errors import ExitCode

if TYPE_CHECKING:
    from musicflamingo_cli.config import Settings


# Long, as its parameters are the command's options.
@command(app)
def demo(
    options: ModelOptions,
    common: Common,
    json: Json,
    audio: Annotated[
        list[Path] | None,
        typer.Argument(help="Files to use (copied).  \\[default: synthesised songs]", metavar="AUDIO"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The folder to create.", metavar="DIR")] = Path(
        "musicflamingo-demo"
    ),
) -> None:
    """Do the whole job in a new folder: music in, .INFO captions out."""
    from musicflamingo_cli.captioning.captioner import open_captioner
    from musicflamingo_cli.cli.outcomes import announce, outcome_json, show
    from musicflamingo_cli.cli.presets import presets_to_ask, require_existing
    from musicflamingo_cli.dataset.tracks import track_for
    from musicflamingo_cli.demo.folder import claim_folder, copy_music, put_music
    from musicflamingo_cli.demo.songs import songs
    from musicflamingo_cli.types import Workload

    console = console_for(common, json.as_json)
    require_existing(audio or [], "file")
    settings = _demo_settings(options, common)
    presets = presets_to_ask(options, settings, None, options.save_as)
    failed = False
    save = options.ask is None or options.save_as is not None
    workload = Workload(len(audio or songs()), len(presets))
    with open_captioner(settings, workload) as captioner:
        claim_folder(out)
        files = copy_music(audio, out) if audio else put_music(out)
        announce(console, captioner)
        for file, truth in files.items():
            outcome = captioner.caption(track_for(file), presets, {}, save=save)
            failed |= bool(outcome.failures)
            show(console, outcome)
            if truth:
                console.data(f"  actual: {', '.join(truth.values())}")
            console.json(outcome_json(outcome, captioner.engine.name, captioner.model.name))
        announce(console, captioner)
    if failed:
        raise typer.Exit(ExitCode.TRACK_FAILED)


def _demo_settings(options: ModelOptions, common: Common) -> "Settings":
    """The settings, with the tiny model where no other is named."""
    from dataclasses import replace

    from musicflamingo_cli.models.model import TINY

    settings = options.settings(common)
    if options.model is None:
        settings = replace(settings, model=TINY)
        if options.temperature is None:  # its vocabulary is small: sampled, it names keys that it finds less likely
            settings = replace(settings, temperature=0.0)
        if options.repeat_penalty is None:  # and it needs the same few tokens again and again
            settings = replace(settings, repeat_penalty=1.0)
    return settings
