"""`musicflamingo batch`: whole datasets into their sidecars."""

import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from musicflamingo_cli.batch import Dataset, Plan, Selection, Task, make_plan, run_batch, scan
from musicflamingo_cli.captioner import Captioner, open_captioner
from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.asking import announce, presets_for
from musicflamingo_cli.cli.options import Asking, Common, Json, command, console_for
from musicflamingo_cli.console import Console, failure_line, outcome_json, summary_lines
from musicflamingo_cli.errors import EXIT_TRACK_FAILED, ConfigError
from musicflamingo_cli.types import Outcome, Summary


@command(app)
def batch(
    folders: Annotated[list[Path], typer.Argument(help="Datasets, searched recursively.", metavar="DIR...")],
    asking: Asking,
    common: Common,
    json: Json,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write again what exists.")] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Only the first N tracks that need work.", min=1, metavar="N")
    ] = None,
    shard: Annotated[
        str, typer.Option("--shard", help="The I-th of N disjoint parts.", metavar="I/N", show_default=False)
    ] = "1/1",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, do nothing.")] = False,
) -> None:
    """Caption whole datasets, recursively, into .INFO sidecars. What is there already is not done again."""
    started = time.monotonic()
    console = console_for(common, json.as_json)
    settings = asking.settings(common)
    datasets = []
    for folder in folders:
        if not folder.exists():
            raise ConfigError(f"no such folder: {folder}", "check the path")
        presets = presets_for(folder, settings, asking.preset, asking.ask, asking.save_as)
        datasets.append(Dataset(folder, presets))
    save = asking.ask is None or asking.save_as is not None
    # An unsaved question leaves no trace in a sidecar, so it is always still to be asked.
    selection = Selection(overwrite or not save, limit, _parse_shard(shard), settings.model == "tiny")
    _interrupt_on_sigterm()
    plan = make_plan(datasets, selection)
    _tell_plan(console, plan)
    summary = Summary()
    if dry_run or not plan.tasks:
        for outcome in scan(datasets, selection):
            _dry(console, summary, outcome)
    else:
        with open_captioner(settings, save) as captioner:
            announce(console, captioner)
            _run(console, captioner, datasets, selection, plan, summary, started)
    if not dry_run:
        for line in summary_lines(summary, time.monotonic() - started):
            console.say(line)
    if summary.failed:
        raise typer.Exit(EXIT_TRACK_FAILED)


def _parse_shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"--shard {text} is not I/N with 1 <= I <= N", "for the first of four: --shard 1/4")
    return int(match[1]), int(match[2])


def _interrupt_on_sigterm() -> None:
    """What Ctrl-C does, SIGTERM does: finished work is saved, the child is killed."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def _tell_plan(console: Console, plan: Plan) -> None:
    wanted = ", ".join(f"{name} {count}" for name, count in plan.per_preset.items())
    console.say(f"{plan.tasks} tracks to caption{f' ({wanted})' if wanted else ''}, {plan.complete} complete")


def _run(
    console: Console,
    captioner: Captioner,
    datasets: Sequence[Dataset],
    selection: Selection,
    plan: Plan,
    summary: Summary,
    started: float,
) -> None:
    engine, model = captioner.engine.name, captioner.model.language_model.name

    def done(outcome: Outcome) -> None:
        if outcome.skipped:
            if outcome.skipped != "complete":
                console.say(f"skipped {outcome.track.audio}: {outcome.skipped}")
                console.json(outcome_json(outcome, engine, model))
            return
        bar.finished(outcome)
        for note in outcome.notes:
            console.say(f"{outcome.track.audio}: {note}")
        for failure in outcome.failures:
            console.warn(failure_line(outcome.track.audio, failure))
        if not captioner.policy.save:
            for item in outcome.captions:
                console.data(f"{outcome.track.audio}: {item.text}")
        console.json(outcome_json(outcome, engine, model))

    def caption(task: Task) -> Outcome:
        return captioner.caption(task.track, task.presets, task.info)

    with console.batch_bar(plan.tasks + plan.problems) as bar:
        try:
            run_batch(scan(datasets, selection), caption, lambda track: bar.starting(track.audio), done, summary)
        except KeyboardInterrupt:
            for line in summary_lines(summary, time.monotonic() - started):
                console.say(line)
            raise


def _dry(console: Console, summary: Summary, item: Task | Outcome) -> None:
    """Tell one item of a scan that is not acted on."""
    from musicflamingo_cli.batch import count

    if isinstance(item, Task):
        names = [preset.name for preset in item.presets]
        console.data(f"{item.track.audio}: {', '.join(names)}")
        console.json({"track": str(item.track.audio), "sidecar": str(item.track.sidecar), "would_ask": names})
        return
    count(summary, item)
    if item.skipped != "complete":
        for failure in item.failures:
            console.warn(failure_line(item.track.audio, failure))
        if item.skipped:
            console.say(f"skipped {item.track.audio}: {item.skipped}")
        console.json(outcome_json(item, "", ""))
