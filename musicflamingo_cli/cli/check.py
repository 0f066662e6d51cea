"""`musicflamingo check`: which captions can be trusted."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import Common, FollowLinks, Json, ModelOptions, command, console_for
from musicflamingo_cli.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from rich.table import Table

    from musicflamingo_cli.cli.console import Console
    from musicflamingo_cli.trust.check import TrackCheck
    from musicflamingo_cli.trust.scan import CheckedTrack

_SHOWN = 30  # rows of the table


@command(app)
def check(
    folders: Annotated[list[Path], typer.Argument(help="Captioned datasets, searched recursively.", metavar="DIR")],
    options: ModelOptions,
    common: Common,
    json: Json,
    samples: Annotated[
        int,
        typer.Option(
            "--samples", help="First ask the model N times for each caption, to see which claims it repeats.", min=0
        ),
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the result; write nothing.")] = False,
    show_all: Annotated[bool, typer.Option("--all", help="List every track, not only the most doubtful.")] = False,
    follow_links: FollowLinks = False,
) -> None:
    """Check captions against measurements, tags and each other; the result goes into the sidecars."""
    from musicflamingo_cli.cli.presets import require_existing
    from musicflamingo_cli.trust.scan import check_dataset

    console = console_for(common, json.as_json)
    require_existing(folders, "folder")
    if samples and dry_run:
        raise ConfigError("--samples and --dry-run exclude each other", "leave one of them out")
    if samples:
        from musicflamingo_cli.cli.check_samples import ask_for_samples

        ask_for_samples(console, options, common, folders, samples, follow_links)
    counts = {"tracks": 0, "captioned": 0, "doubtful": 0, "contradicted": 0, "unmeasured": 0, "failed": 0}
    doubtful: list[tuple[str, TrackCheck]] = []
    for folder in folders:
        for found in check_dataset(folder, save=not dry_run, follow_links=follow_links):
            _count(counts, found)
            if console.as_json:
                console.json(_as_json(found))
            if found.failure:
                console.track_failed(found.failure, found.track.audio)
            elif found.check and (show_all or found.check.reasons):
                name = found.track.audio.relative_to(folder) if found.track.audio != folder else found.track.audio
                doubtful.append((str(name), found.check))
    doubtful.sort(key=lambda row: (row[1].score, row[0]))
    listed = doubtful if show_all else doubtful[:_SHOWN]
    if listed:
        console.listing(_table(listed, console))
    if len(doubtful) > len(listed):
        console.info(f"and {len(doubtful) - len(listed)} more; list them with: --all")
    console.data(
        f"{counts['captioned']} of {counts['tracks']} tracks have captions: {counts['contradicted']} with a"
        f" contradiction, {counts['doubtful']} in doubt for another reason"
    )
    if counts["unmeasured"]:
        console.info(
            f"{counts['unmeasured']} without a known tempo or key; measure them with: musicflamingo measure DIR"
        )
    if counts["failed"]:
        raise typer.Exit(ExitCode.TRACK_FAILED)


def _count(counts: dict[str, int], found: "CheckedTrack") -> None:
    from musicflamingo_cli.trust.claims import Field

    counts["tracks"] += 1
    counts["failed"] += found.failure is not None
    if found.check is None:
        return
    counts["captioned"] += 1
    counts["contradicted"] += bool(found.check.contradicted)
    counts["doubtful"] += bool(found.check.reasons and not found.check.contradicted)
    numbers = [each for each in found.check.claims if each.claim.field in (Field.TEMPO, Field.KEY)]
    counts["unmeasured"] += bool(numbers) and not any(each.evidence for each in numbers)


def _as_json(found: "CheckedTrack") -> dict[str, Any]:
    """One line of --json (docs/trust.md)."""
    check, failure = found.check, found.failure
    return {
        "track": str(found.track.audio),
        "sidecar": str(found.track.sidecar),
        "score": check and check.score,
        "reasons": check.reasons if check else [],
        "contradicted": check.contradicted if check else [],
        "claims": [{"preset": each.preset, **each.as_json()} for each in check.claims] if check else [],
        "failure": failure and {"reason": failure.reason, "hint": failure.hint},
    }


def _table(rows: "list[tuple[str, TrackCheck]]", console: "Console") -> "Table":
    from musicflamingo_cli.cli.tables import Sign, listing, sign_text

    table = listing()
    table.add_column("")
    table.add_column("trust", no_wrap=True, justify="right")
    table.add_column("track", ratio=1, overflow="fold")
    table.add_column("reasons", ratio=2, overflow="fold")
    for name, check in rows:
        sign = Sign.FAILURE if check.contradicted else Sign.WARNING if check.reasons else Sign.OK
        reasons = ("; " if console.is_piped else "\n").join(check.reasons)
        table.add_row(sign_text(sign, console.symbols), f"{check.score:.2f}", name, reasons)
    table.expand = True
    return table
