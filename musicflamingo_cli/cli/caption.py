"""`musicflamingo caption`: a few files, answers on the screen."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import Common, Json, command, console_for
from musicflamingo_cli.cli.placement import EndpointOptions
from musicflamingo_cli.errors import ConfigError, ExitCode, SidecarError

if TYPE_CHECKING:
    from musicflamingo_cli.types import Outcome, Track


@command(app)
def caption(
    audio: Annotated[list[Path], typer.Argument(help="Audio files.", metavar="AUDIO")],
    options: EndpointOptions,
    common: Common,
    json: Json,
    save: Annotated[bool, typer.Option("--save", help="Also merge the captions into the sidecars.")] = False,
) -> None:
    """Caption these files and print the captions."""
    from musicflamingo_cli.captioning.captioner import open_captioner
    from musicflamingo_cli.cli.outcomes import announce, outcome_json, show
    from musicflamingo_cli.cli.presets import presets_to_ask, require_files
    from musicflamingo_cli.dataset.tracks import SidecarOwners, track_for
    from musicflamingo_cli.types import Outcome, Workload

    console = console_for(common, json.as_json)
    require_files(audio)
    settings = options.settings(common, audio)
    if save and options.ask is not None and options.save_as is None:
        raise ConfigError("an --ask answer has no key to be saved under", "name one with --save-as NAME")
    save = save or options.save_as is not None
    presets = {path.parent: presets_to_ask(options, settings, path, options.save_as) for path in audio}
    failed = False
    workload = Workload(len(audio), max(map(len, presets.values())))
    with open_captioner(settings, workload) as captioner:
        announce(console, captioner)
        owners = SidecarOwners()
        for path in audio:
            track = track_for(path)
            info, problem = _read(track)
            if save and (skipped := owners.claim(track)):
                problem = Outcome(track, skipped=skipped.reason)
            outcome = problem or captioner.caption(track, presets[path.parent], info, save=save)
            failed |= bool(outcome.failures)
            show(console, outcome, text_only=workload.is_single)
            console.json(outcome_json(outcome, captioner.engine.name, captioner.model.name))
    if failed:
        raise typer.Exit(ExitCode.TRACK_FAILED)


def _read(track: "Track") -> "tuple[dict[str, object], Outcome | None]":
    """The sidecar's data for the prompt variables, or the outcome of a track whose sidecar is broken."""
    from musicflamingo_cli.sidecars.merge import read_sidecar
    from musicflamingo_cli.types import Failure, Outcome

    try:
        return read_sidecar(track.sidecar), None
    except SidecarError as error:
        return {}, Outcome(track, failures=(Failure.for_track(error),))
