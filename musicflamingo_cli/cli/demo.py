"""`musicflamingo demo`: the whole job on known or given music with the tiny model."""

from pathlib import Path
from typing import Annotated

import typer

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import Asking, Common, Json, command, console_for
from musicflamingo_cli.errors import EXIT_TRACK_FAILED, ConfigError


@command(app)
def demo(
    asking: Asking,
    common: Common,
    json: Json,
    audio: Annotated[
        list[Path] | None,
        typer.Argument(help="Files to use (copied).  \\[synthesised songs]", metavar="[AUDIO...]"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The folder to make.", metavar="DIR")] = Path("musicflamingo-demo"),
) -> None:
    """The whole job in a folder of its own: music in, .INFO captions out."""
    from dataclasses import replace

    from musicflamingo_cli.captioning.captioner import open_captioner
    from musicflamingo_cli.cli.asking import announce, presets_for, show
    from musicflamingo_cli.cli.console import outcome_json
    from musicflamingo_cli.dataset.tracks import track_for
    from musicflamingo_cli.demo import folder as music
    from musicflamingo_cli.demo.songs import songs
    from musicflamingo_cli.models.resolve import TINY
    from musicflamingo_cli.types import Load

    console = console_for(common, json.as_json)
    settings = asking.settings(common)
    if asking.model is None:
        settings = replace(settings, model=TINY)
        if asking.temperature is None:  # it has few words: sampled, it names a key that it hears less
            settings = replace(settings, temperature=0.0)
        if asking.repeat_penalty is None:  # and needs each of them again
            settings = replace(settings, repeat_penalty=1.0)
    for path in audio or []:
        if not path.is_file():
            raise ConfigError(f"no such file: {path}", "check the path, or leave it out: some songs are here")
    presets = presets_for(None, settings, asking.preset, asking.ask, asking.save_as)
    failed = False
    save = asking.ask is None or asking.save_as is not None
    load = Load(len(audio or songs()), len(presets))
    with open_captioner(settings, save, console.warn, load) as captioner:
        music.claim_folder(out)
        files = music.copy_music(audio, out) if audio else music.put_music(out)
        announce(console, captioner)
        for file, truth in files.items():
            outcome = captioner.caption(track_for(file), presets, {})
            failed |= bool(outcome.failures)
            show(console, outcome)
            if truth:
                console.data(f"  in truth: {', '.join(truth.values())}")
            console.json(outcome_json(outcome, captioner.engine.name, captioner.model.language_model.name))
        announce(console, captioner)
    if failed:
        raise typer.Exit(EXIT_TRACK_FAILED)
