"""`musicflamingo caption`: a few files, answers on the screen."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import Common, Json, command, console_for
from musicflamingo_cli.cli.placement import EndpointOptions
from musicflamingo_cli.cli.second_pass import SecondPassOptions
from musicflamingo_cli.errors import ConfigError, ExitCode, SidecarError

if TYPE_CHECKING:
    from musicflamingo_cli.captioning.second_pass import SecondPass
    from musicflamingo_cli.cli.console import Console
    from musicflamingo_cli.types import Outcome, Track


@command(app)
def caption(
    audio: Annotated[list[Path], typer.Argument(help="Audio files.", metavar="AUDIO")],
    options: EndpointOptions,
    derived: SecondPassOptions,
    common: Common,
    json: Json,
    save: Annotated[bool, typer.Option("--save", help="Also merge the captions into the sidecars.")] = False,
) -> None:
    """Caption these files and print the captions."""
    from musicflamingo_cli.captioning.captioner import open_captioner
    from musicflamingo_cli.captioning.second_pass import SecondPass
    from musicflamingo_cli.cli.caption_stream import streamed
    from musicflamingo_cli.cli.outcomes import announce, outcome_json, show
    from musicflamingo_cli.cli.presets import presets_to_ask, require_files
    from musicflamingo_cli.dataset.tracks import SidecarOwners, track_for
    from musicflamingo_cli.types import Outcome, Workload

    console = console_for(common, json.as_json)
    require_files(audio)
    settings = options.settings(common, audio)
    wanted = derived.wanted(settings.engine)
    if save and options.ask is not None and options.save_as is None:
        raise ConfigError("an --ask answer has no key to be saved under", "name one with --save-as NAME")
    save = save or options.save_as is not None
    presets = {path.parent: presets_to_ask(options, settings, path, options.save_as) for path in audio}
    failed = False
    prompts = max(map(len, presets.values())) + (len(wanted.presets) if wanted else 0)
    workload = Workload(len(audio), prompts)
    with open_captioner(settings, workload) as captioner:
        announce(console, captioner)
        second = SecondPass(captioner, wanted) if wanted else None
        owners = SidecarOwners()
        for path in audio:
            track = track_for(path)
            info, problem = _read(track)
            if save and (skipped := owners.claim(track)):
                problem = Outcome(track, skipped=skipped.reason)
            names = [preset.name for preset in presets[path.parent]]
            with streamed(console, path, names, captioner.model.reasons) as observer:
                asked = presets[path.parent]
                outcome = problem or captioner.caption(track, asked, info, save=save, observer=observer)
            failed |= bool(outcome.failures)
            show(console, outcome, text_only=workload.is_single)
            console.json(outcome_json(outcome, captioner.engine.name, captioner.model.name))
            if second and not problem:
                failed |= _second_pass(console, second, outcome, info)
    if failed:
        raise typer.Exit(ExitCode.TRACK_FAILED)


def _second_pass(console: "Console", second: "SecondPass", outcome: "Outcome", info: "dict[str, object]") -> bool:
    """Show fields and short version of a track's new captions; save them where those are; return whether it failed."""
    import json

    from musicflamingo_cli.cli.second_pass import show_derived
    from musicflamingo_cli.sidecars.captions import caption_key
    from musicflamingo_cli.sidecars.merge import read_sidecar
    from musicflamingo_cli.types import Failure

    track = outcome.track
    try:
        if outcome.saved:
            info = read_sidecar(track.sidecar)
        else:
            info = {caption_key(caption.preset): caption.text for caption in outcome.captions}
        derived = second.derive(info)
        if outcome.saved:
            second.save(track, info, derived)
    except SidecarError as error:
        console.track_failed(Failure.for_track(error), track.audio)
        return True
    for key, value in derived.values.items():
        console.data(f"  {key}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
    show_derived(console, track, derived, derived.values)
    return bool(derived.failures)


def _read(track: "Track") -> "tuple[dict[str, object], Outcome | None]":
    """The sidecar's data for the prompt variables, or the outcome of a track whose sidecar is broken."""
    from musicflamingo_cli.sidecars.merge import read_sidecar
    from musicflamingo_cli.types import Failure, Outcome

    try:
        return read_sidecar(track.sidecar), None
    except SidecarError as error:
        return {}, Outcome(track, failures=(Failure.for_track(error),))
