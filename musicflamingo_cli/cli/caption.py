"""`musicflamingo caption`: a few files now, answers on the screen."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import Asking, Common, Json, command, console_for
from musicflamingo_cli.errors import EXIT_TRACK_FAILED, ConfigError, SidecarError

if TYPE_CHECKING:
    from musicflamingo_cli.types import Outcome, Track


@command(app)
def caption(
    audio: Annotated[list[Path], typer.Argument(help="Audio files.", metavar="AUDIO...")],
    asking: Asking,
    common: Common,
    json: Json,
    save: Annotated[bool, typer.Option("--save", help="Merge the captions into the sidecars, too.")] = False,
) -> None:
    """Caption these files and print the captions."""
    from musicflamingo_cli.captioning.captioner import open_captioner
    from musicflamingo_cli.cli.asking import announce, presets_for, show
    from musicflamingo_cli.cli.console import outcome_json
    from musicflamingo_cli.dataset.tracks import track_for
    from musicflamingo_cli.types import Load, Outcome

    console = console_for(common, json.as_json)
    settings = asking.settings(common, audio)
    for path in audio:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder", f"caption it with: musicflamingo batch '{path}'")
    if save and asking.ask is not None and asking.save_as is None:
        raise ConfigError("an --ask answer has no key to be saved under", "name one with --save-as NAME")
    keep = save or asking.save_as is not None
    chosen = {path.parent: presets_for(path, settings, asking.preset, asking.ask, asking.save_as) for path in audio}
    failed = False
    load = Load(len(audio), max(len(presets) for presets in chosen.values()))
    with open_captioner(settings, keep, console.warn, load) as captioner:
        announce(console, captioner)
        saved_to: set[Path] = set()
        for path in audio:
            track = track_for(path)
            info, problem = _read(track)
            if keep and track.sidecar in saved_to:
                problem = Outcome(track, skipped=f"another file has the same sidecar, {track.sidecar.name}")
            saved_to.add(track.sidecar)
            outcome = problem or captioner.caption(track, chosen[path.parent], info)
            failed |= bool(outcome.failures)
            show(console, outcome, load.is_single)
            console.json(outcome_json(outcome, captioner.engine.name, captioner.model.language_model.name))
    if failed:
        raise typer.Exit(EXIT_TRACK_FAILED)


def _read(track: "Track") -> "tuple[dict[str, object], Outcome | None]":
    """The sidecar's data for the prompt variables, or the outcome of a track whose sidecar is broken."""
    from musicflamingo_cli.sidecars.merge import read_sidecar
    from musicflamingo_cli.types import Failure, Outcome

    try:
        return read_sidecar(track.sidecar), None
    except SidecarError as error:
        return {}, Outcome(track, failures=(Failure("", error.kind, str(error), error.hint),))
