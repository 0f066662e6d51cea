"""`musicflamingo batch`: whole datasets into their sidecars."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import Asking, Common, Json, command, console_for
from musicflamingo_cli.errors import EXIT_TRACK_FAILED, ConfigError

_WHICH = "Which tracks"


def _which(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=_WHICH, show_default=False, **more)


@command(app)
def batch(
    folders: Annotated[list[Path], typer.Argument(help="Datasets, searched recursively.", metavar="DIR...")],
    asking: Asking,
    common: Common,
    json: Json,
    overwrite: Annotated[bool, _which("--overwrite", help="Write again what exists.")] = False,
    stale: Annotated[bool, _which("--stale", help="And what another prompt, model or setting made.")] = False,
    retry_failed: Annotated[bool, _which("--retry-failed", help="Only what failed in the last run here.")] = False,
    include: Annotated[list[str] | None, _which("--include", help="Only these, repeatable.", metavar="GLOB")] = None,
    exclude: Annotated[list[str] | None, _which("--exclude", help="Not these, repeatable.", metavar="GLOB")] = None,
    extensions: Annotated[str, _which("--extensions", help="Only these: flac,wav.", metavar="LIST")] = "",
    limit: Annotated[int | None, _which("--limit", help="The first N that need work.", min=1, metavar="N")] = None,
    shard: Annotated[str, _which("--shard", help="The I-th of N disjoint parts.", metavar="I/N")] = "1/1",
    sample: Annotated[
        float, _which("--sample", help="This share of them, the same each time (see --seed).", metavar="P")
    ] = 1.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, do nothing.")] = False,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Do not stop when all tracks fail.")] = False,
    run_log: Annotated[Path | None, typer.Option("--run-log", help="Where the log goes.", metavar="FILE")] = None,
) -> None:
    """Caption whole datasets, recursively, into .INFO sidecars. What is there already is not done again."""
    from musicflamingo_cli.captioning import run_log as runlog
    from musicflamingo_cli.cli.asking import datasets_for
    from musicflamingo_cli.cli.batch_run import BatchRun, parse_shard
    from musicflamingo_cli.dataset.selection import ALL, MISSING, STALE, Selection

    console = console_for(common, json.as_json)
    settings = asking.settings(common, folders)
    datasets = datasets_for(folders, settings, asking.preset, asking.ask, asking.save_as)
    save = asking.ask is None or asking.save_as is not None
    if overwrite and stale:
        raise ConfigError("--overwrite and --stale exclude each other", "leave one of them out")
    if not 0 < sample <= 1:
        raise ConfigError(f"--sample {sample:g} is not a share", "for a tenth of the tracks: --sample 0.1")
    selection = Selection(
        # An unsaved question leaves no trace in a sidecar, so it is always still to be asked.
        wanted=ALL if overwrite or not save else STALE if stale else MISSING,
        # Two processes that overwrite one tree share it: what one has made since then is done.
        since=datetime.now(UTC).isoformat(timespec="milliseconds") if overwrite and save else "",
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        extensions=tuple(part.strip().lower().lstrip(".") for part in extensions.split(",") if part.strip()),
        shard=parse_shard(shard),
        sample=sample,
        seed=settings.seed,
        only=_failed_before(folders, run_log) if retry_failed else None,
        limit=limit,
        save=save,
    )
    # A log that failures were read from is gone on with.
    run_log = run_log or (runlog.latest(folders) if retry_failed else None)
    summary = BatchRun(console, settings, datasets, selection, keep_going).start(dry_run, run_log)
    if summary.failed:
        raise typer.Exit(EXIT_TRACK_FAILED)


def _failed_before(folders: list[Path], run_log: Path | None) -> frozenset[Path]:
    from musicflamingo_cli.captioning import run_log as runlog

    log = run_log or runlog.latest(folders)
    if log is None:
        raise ConfigError("no run over this is on record", "run without --retry-failed")
    return frozenset(runlog.failed(log))
