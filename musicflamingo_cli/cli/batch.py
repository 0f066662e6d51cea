"""`musicflamingo batch`: whole datasets into their sidecars."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musicflamingo_cli.choices import Wanted
from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import Common, FollowLinks, Json, command, console_for
from musicflamingo_cli.cli.placement import BatchOptions, CommandWithRay
from musicflamingo_cli.cli.second_pass import SecondPassOptions
from musicflamingo_cli.cli.segments import SegmentOptions
from musicflamingo_cli.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from musicflamingo_cli.config import Settings

_PANEL = "Which tracks"


def _which(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=_PANEL, show_default=False, **more)


# Long, as its parameters are the command's options; the work is in batch_run.
@command(app, cls=CommandWithRay)
def batch(
    folders: Annotated[list[Path], typer.Argument(help="Datasets, searched recursively.", metavar="DIR")],
    options: BatchOptions,
    derived: SecondPassOptions,
    segments: SegmentOptions,
    common: Common,
    json: Json,
    overwrite: Annotated[bool, _which("--overwrite", help="Regenerate existing captions.")] = False,
    edited: Annotated[
        bool, _which("--edited", help="With --overwrite: also captions that a person edited in the review.")
    ] = False,
    stale: Annotated[bool, _which("--stale", help="Also redo outdated captions.")] = False,
    redo_doubtful: Annotated[
        bool,
        _which("--redo-doubtful", help="Ask again where `check` found a contradiction; keep the better caption."),
    ] = False,
    retry_failed: Annotated[bool, _which("--retry-failed", help="Only tracks that failed in the last run.")] = False,
    include: Annotated[
        list[str] | None, _which("--include", help="Only tracks that match, repeatable.", metavar="GLOB")
    ] = None,
    exclude: Annotated[
        list[str] | None, _which("--exclude", help="No tracks that match, repeatable.", metavar="GLOB")
    ] = None,
    extensions: Annotated[
        str, _which("--extensions", help="Only files of these types, such as flac,wav.", metavar="LIST")
    ] = "",
    min_seconds: Annotated[
        float | None, _which("--min-seconds", help="Skip tracks shorter than this.", metavar="S")
    ] = None,
    limit: Annotated[
        int | None, _which("--limit", help="Only the first N tracks that need captions.", min=1, metavar="N")
    ] = None,
    shard: Annotated[
        str, _which("--shard", help="Only the I-th of N disjoint parts; auto: as a Slurm array.", metavar="I/N")
    ] = "1/1",
    sample: Annotated[
        float,
        _which("--sample", help="Only this share of the tracks, the same each time (see --seed).", metavar="P"),
    ] = 1.0,
    follow_links: FollowLinks = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="First measure tempo, key and loudness, as `measure` does.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Do not stop when many tracks in a row fail.")
    ] = False,
    run_log: Annotated[
        Path | None,
        typer.Option("--run-log", help="File for the run's log.  \\[default: in your state folder]", metavar="FILE"),
    ] = None,
) -> None:
    """Caption whole datasets, recursively, into .INFO sidecars. Existing captions are kept."""
    from musicflamingo_cli.captioning import run_log as logs
    from musicflamingo_cli.cli.batch_run import BatchRun, parse_shard
    from musicflamingo_cli.cli.presets import datasets_to_ask, presets_to_ask, require_existing
    from musicflamingo_cli.cli.store_run import StoreRun
    from musicflamingo_cli.config import require_setting
    from musicflamingo_cli.dataset.selection import Selection

    console = console_for(common, json.as_json)
    urls = _store_urls(folders)
    if not urls:
        require_existing(folders, "folder")
    settings = options.settings(common, [] if urls else folders)
    if min_seconds is not None:
        require_setting("min_seconds", min_seconds)
        settings = replace(settings, min_seconds=min_seconds)
    datasets = [] if urls else datasets_to_ask(options, settings, folders)
    sample_seed = settings.seed
    save = options.ask is None or options.save_as is not None
    wanted = derived.wanted_in_batch(settings.engine, options.ray, save, segments.summary)
    cutting = segments.cutting(settings)
    segments.refuse_others(
        {
            "a store": urls,
            "--ray": options.ray,
            "--redo-doubtful": redo_doubtful,
            "--fields": derived.fields,
            "--short": derived.short,
            "--ask without --save-as": not save,
        }
    )
    if overwrite + stale + redo_doubtful > 1:
        raise ConfigError("--overwrite, --stale and --redo-doubtful exclude each other", "name one of them")
    if edited and not overwrite:
        raise ConfigError("--edited needs --overwrite", "to replace edited captions, too: --overwrite --edited")
    if redo_doubtful:
        settings = _with_another_seed(settings, options.seed)
    if not 0 < sample <= 1:
        raise ConfigError(f"--sample {sample:g} is not a share", "for a tenth of the tracks: --sample 0.1")
    selection = Selection(
        # An unsaved question leaves no trace in a sidecar, so it is asked about every track.
        wanted=_wanted(overwrite or not save, stale, redo_doubtful),
        edited=edited,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        extensions=tuple(part.strip().lower().lstrip(".") for part in extensions.split(",") if part.strip()),
        shard=parse_shard(shard),
        sample=sample,
        seed=sample_seed,
        only=_failed_before(folders, run_log) if retry_failed and not urls else None,
        limit=limit,
        save=save,
        follow_links=follow_links,
        cutting=cutting,
    )
    if urls:
        _refuse_with_stores(
            {
                "--ray": options.ray,
                "--retry-failed": retry_failed,
                "--run-log": run_log,
                "--measure": measure,
                "--redo-doubtful": redo_doubtful,
                "--fields": derived.fields,
                "--short": derived.short,
            }
        )
        options.cluster()  # its options need --ray
        presets = presets_to_ask(options, settings, None, options.save_as)
        stores = StoreRun(console, settings, urls, presets, selection, options.single_writer, keep_going)
        if stores.start(dry_run).failed:
            raise typer.Exit(ExitCode.TRACK_FAILED)
        return
    if retry_failed and run_log is None:
        earlier = logs.latest(folders)  # the log that failures were read from is continued
        run_log = earlier if earlier and os.access(earlier, os.W_OK) else None
    run = BatchRun(console, settings, datasets, selection, keep_going, options.cluster(), wanted)
    summary = run.start(dry_run, run_log, measure)
    if summary.failed or run.failed_in_second_pass:
        raise typer.Exit(ExitCode.TRACK_FAILED)


def _wanted(all_captions: bool, stale: bool, redo_doubtful: bool) -> Wanted:
    if all_captions:
        return Wanted.ALL
    return Wanted.CONTRADICTED if redo_doubtful else Wanted.OUTDATED if stale else Wanted.MISSING


def _with_another_seed(settings: "Settings", given: int | None) -> "Settings":
    """The settings with a seed that has not been tried, unless one was given."""
    import secrets

    if settings.temperature == 0:
        raise ConfigError("--redo-doubtful needs other answers, which --temperature 0 does not give", "raise it")
    return settings if given is not None else replace(settings, seed=secrets.randbelow(2**31))


def _failed_before(folders: list[Path], run_log: Path | None) -> frozenset[Path]:
    from musicflamingo_cli.captioning import run_log as logs

    log = run_log or logs.latest(folders)
    if log is None:
        raise ConfigError("there is no log of a previous run over this dataset", "run without --retry-failed")
    return frozenset(logs.failed(log))


def _store_urls(folders: list[Path]) -> list[str]:
    """The datasets as URLs of stores, if that is what they are. Raises ConfigError for some of each."""
    from musicflamingo_cli.stores.store import is_store_url

    urls = [str(folder) for folder in folders if is_store_url(str(folder))]
    if urls and len(urls) < len(folders):
        raise ConfigError("stores and folders cannot be captioned in one run", "run the command for each of them")
    return urls


def _refuse_with_stores(given: dict[str, object]) -> None:
    if named := [name for name, value in given.items() if value]:
        raise ConfigError(f"{named[0]} is not available for stores", "leave it out")
