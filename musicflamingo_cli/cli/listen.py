"""`musicflamingo listen`: what MusicGen makes of captions."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musicflamingo_cli.choices import EngineName
from musicflamingo_cli.cli import app, completion
from musicflamingo_cli.cli.command_help import CommandWithDefaults
from musicflamingo_cli.cli.options import Common, Json, command, console_for
from musicflamingo_cli.errors import ConfigError

if TYPE_CHECKING:
    from musicflamingo_cli.config import GenerationSettings
    from musicflamingo_cli.listening.sources import Source, Wanted

_CLIP = "How clips are made"
_AGAIN = "What comes back"


def _option(*names: str, help: str, panel: str = _CLIP, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


@dataclasses.dataclass(frozen=True)
class Captions:
    """Whose captions are used."""

    sample: Annotated[
        int | None,
        _option("--sample", help="Of a folder, take N tracks with captions.", metavar="N", min=1, panel="Options"),
    ] = None
    preset: Annotated[
        list[str] | None,
        _option(
            "--preset",
            "-p",
            help="A preset whose caption is used, repeatable.  \\[default: one that a person edited or approved, else"
            " the most suitable]",
            metavar="NAME",
            panel="Options",
            autocompletion=completion.presets,
        ),
    ] = None
    text: Annotated[
        str | None, _option("--text", help="Use this text instead of captions.", metavar="TEXT", panel="Options")
    ] = None
    unconditional: Annotated[
        bool, _option("--unconditional", help="Make clips without a caption, to compare with.", panel="Options")
    ] = False


@dataclasses.dataclass(frozen=True)
class Making:
    """How clips are made. Help shows the defaults of ``GenerationSettings``."""

    generator: Annotated[
        str | None,
        _option(
            "--model",
            help="A MusicGen checkpoint: OWNER/NAME, or a folder.",
            metavar="NAME",
            autocompletion=completion.generators,
        ),
    ] = None
    seconds: Annotated[float | None, _option("--seconds", help="Length of a clip, from 1 to 30.", metavar="S")] = None
    guidance: Annotated[
        float | None, _option("--guidance", help="How strictly clips follow the caption; 1: no guidance.")
    ] = None
    seed: Annotated[int | None, _option("--seed", help="Seed of the sampling, and of --sample.")] = None
    temperature: Annotated[
        float | None, _option("--temperature", help="Randomness; 0: always the likeliest token.")
    ] = None
    top_k: Annotated[int | None, _option("--top-k", help="Sample only from the K likeliest tokens; 0: from all.")] = (
        None
    )
    start_seconds: Annotated[
        float | None,
        _option("--continue", help="Begin with the track's own first S seconds.  \\[default: none of it]", metavar="S"),
    ] = None
    at_once: Annotated[int | None, _option("--at-once", help="Clips in one batch.", metavar="N")] = None


@dataclasses.dataclass(frozen=True)
class Again:
    """Captioning clips again."""

    round_trip: Annotated[
        bool,
        _option(
            "--round-trip", help="Measure the clips and caption them again; show which claims return.", panel=_AGAIN
        ),
    ] = False
    captioner: Annotated[
        str | None,
        _option(
            "--captioner",
            help="The model that captions them, as --model of caption.",
            metavar="NAME",
            panel=_AGAIN,
            autocompletion=completion.models,
        ),
    ] = None
    engine: Annotated[EngineName | None, _option("--engine", help="What runs that model.", panel=_AGAIN)] = None


class ListenCommand(CommandWithDefaults):
    """Its help shows the defaults of ``GenerationSettings``."""

    def defaults(self) -> dict[str, Any]:
        """See CommandWithDefaults."""
        from musicflamingo_cli.config import GenerationSettings

        return dataclasses.asdict(GenerationSettings()) | {"start_seconds": None}


# Many parameters, as they are the command's options.
@command(app, cls=ListenCommand)
def listen(
    tracks: Annotated[list[Path], typer.Argument(help="Captioned tracks, or one dataset.", metavar="TRACK|DIR")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the clips, outside of the dataset.", metavar="DIR")],
    captions: Captions,
    making: Making,
    again: Again,
    common: Common,
    json: Json,
    melody: Annotated[
        bool, _option("--melody", help="Follow the track's melody, with a musicgen-melody checkpoint.")
    ] = False,
    device: Annotated[
        str | None, _option("--device", help="torch's device.  \\[default: the best there is]", metavar="NAME")
    ] = None,
    threads: Annotated[int | None, _option("--threads", help="CPU threads.  \\[default: torch's choice]")] = None,
) -> None:
    """Hear what MusicGen makes of captions: clips, and a page with original and clip side by side."""
    from musicflamingo_cli.cli.listen_run import ListenRun
    from musicflamingo_cli.config import load_settings
    from musicflamingo_cli.engines.transformers.environment import installed_versions
    from musicflamingo_cli.listening.sources import require_outside
    from musicflamingo_cli.models.generators import resolve_generator

    installed_versions()  # before anything else: nothing works without the extra
    console = console_for(common, json.as_json)
    generation = _generation(making)
    wanted = _wanted(captions)
    if (again.captioner or again.engine) and not again.round_trip:
        raise ConfigError("--captioner and --engine are for --round-trip", "add --round-trip, or leave them out")
    sources = _sources(tracks, captions.sample, wanted, generation.seed)
    require_outside(out, tracks)
    folders = {"models_dir": common.models_dir, "llama_dir": common.llama_dir}
    captioning = {"model": again.captioner, "engine": again.engine}
    settings = load_settings({**folders, **captioning, "device": device, "threads": threads}, common.config)
    model = resolve_generator(generation.generator, settings.models_folder)
    run = ListenRun(console, out, model, settings, generation, melody)
    run.run(sources, again.round_trip)


def _generation(making: Making) -> "GenerationSettings":
    """Raises ConfigError for a value that does not work."""
    from musicflamingo_cli.config import GenerationSettings

    given = {name: value for name, value in dataclasses.asdict(making).items() if value is not None}
    return GenerationSettings(**given).require_valid()


def _wanted(captions: Captions) -> "Wanted":
    """Raises ConfigError for options that exclude each other, and for an empty text."""
    from musicflamingo_cli.listening.sources import Wanted
    from musicflamingo_cli.prompts import require_caption_name
    from musicflamingo_cli.sidecars.checks import SHORT

    if sum([bool(captions.preset), captions.text is not None, captions.unconditional]) > 1:
        raise ConfigError("--preset, --text and --unconditional exclude each other", "leave all but one out")
    if captions.text is not None and not captions.text.strip():
        raise ConfigError("--text is empty", "give a text, or use --unconditional")
    for name in captions.preset or []:
        if name != SHORT:
            require_caption_name(name)
    return Wanted(tuple(dict.fromkeys(captions.preset or [])), captions.text, captions.unconditional)


def _sources(tracks: list[Path], sample: int | None, wanted: "Wanted", seed: int) -> "list[Source]":
    """Raises ConfigError for paths that do not exist or do not fit --sample, and for a folder without captions."""
    from musicflamingo_cli.cli.presets import require_existing
    from musicflamingo_cli.listening.sources import sample_sources, sources_of_tracks

    folders = [path for path in tracks if path.is_dir()]
    if not folders:
        require_existing(tracks, "file")
        if sample is not None:
            raise ConfigError("--sample is for a folder", "leave it out, or name a dataset")
        return sources_of_tracks(tracks, wanted)
    if len(tracks) > 1:
        raise ConfigError("a folder is given beside other paths", "name one folder, or only tracks")
    if sample is None:
        raise ConfigError(f"{folders[0]} is a folder", "say how many of its tracks: --sample 5")
    found = sample_sources(folders[0], wanted, sample, seed)
    if not found:
        hint = f"see which captions there are: musicflamingo status '{folders[0]}'"
        raise ConfigError(f"no track in {folders[0]} has such a caption", hint)
    return found
