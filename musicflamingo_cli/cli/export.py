"""`musicflamingo export`: captions in the formats that trainers read."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musicflamingo_cli.choices import AudioPlacement, ExportFormat, PathStyle
from musicflamingo_cli.cli import app, completion
from musicflamingo_cli.cli.options import Common, FollowLinks, Json, command, console_for
from musicflamingo_cli.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from musicflamingo_cli.cli.console import Console
    from musicflamingo_cli.exports import ExportOptions, ExportStats
    from musicflamingo_cli.text.t5_tokens import TokenStats

_DEFAULT_PRESET = "full"  # whose caption is a track's text


# Long, as its parameters are the command's options.
@command(app)
def export(
    format: Annotated[ExportFormat, typer.Argument(help=f"One of {', '.join(ExportFormat)}.", metavar="FORMAT")],
    dataset: Annotated[Path, typer.Argument(help="A captioned dataset.", metavar="DIR")],
    common: Common,
    json: Json,
    out: Annotated[
        Path | None, typer.Argument(help="A new folder or file.  \\[default: named after DIR, here]", metavar="OUT")
    ] = None,
    preset: Annotated[
        list[str] | None,
        typer.Option(
            "--preset",
            "-p",
            help="Whose captions: NAME, or NAME:WEIGHT to mix several.  \\[default: full]",
            autocompletion=completion.presets,
        ),
    ] = None,
    prefix: Annotated[str, typer.Option("--prefix", help="Text before each caption, such as a trigger word.")] = "",
    suffix: Annotated[str, typer.Option("--suffix", help="Text after each caption.")] = "",
    min_words: Annotated[int, typer.Option("--min-words", help="Leave out shorter captions.", min=1)] = 1,
    max_words: Annotated[int | None, typer.Option("--max-words", help="Leave out longer captions.", min=1)] = None,
    complete: Annotated[bool, typer.Option("--complete", help="Only tracks with all of the presets.")] = False,
    approved: Annotated[
        bool, typer.Option("--approved", help="Only tracks whose sidecar says music_flamingo_approved: true.")
    ] = False,
    min_trust: Annotated[
        float | None,
        typer.Option("--min-trust", help="Only tracks that `check` gave at least this score.", min=0, max=1),
    ] = None,
    strike: Annotated[bool, typer.Option("--strike", help="Remove sentences with a contradicted claim.")] = False,
    correct: Annotated[
        bool,
        typer.Option("--correct", help="Replace a contradicted tempo or key by the measured one, where it is sure."),
    ] = False,
    validation: Annotated[
        float, typer.Option("--validation", help="Share of the tracks to set apart for validation.", min=0, max=0.9)
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Seed for mixing presets.")] = 42,
    audio: Annotated[
        AudioPlacement | None, typer.Option("--audio", help="How audio gets into the export.  \\[default: link]")
    ] = None,
    paths: Annotated[
        PathStyle | None, typer.Option("--paths", help="How tables name the audio.  \\[default: relative]")
    ] = None,
    shard_size: Annotated[
        int | None, typer.Option("--shard-size", help="Samples per tar (webdataset).  \\[default: 1000]", min=1)
    ] = None,
    raw_cells: Annotated[
        bool, typer.Option("--raw-cells", help="Leave CSV cells that a spreadsheet would take for a formula unmarked.")
    ] = False,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="Count T5 tokens with this tokenizer.json or model.")
    ] = None,
    segments: Annotated[
        bool, typer.Option("--segments", help="A row for each segment that `batch --segments` captioned.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    follow_links: FollowLinks = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be exported; write nothing.")] = False,
) -> None:
    """Export captions in the formats that trainers read."""
    from musicflamingo_cli.cli.presets import presets_files, presets_to_read
    from musicflamingo_cli.exports import ExportOptions, ExportStats, Target, default_out, rehearse
    from musicflamingo_cli.exports import export as run
    from musicflamingo_cli.sidecars.checks import SHORT, SUMMARY
    from musicflamingo_cli.text.t5_tokens import TokenStats, token_counter

    console = console_for(common, json.as_json)
    if not dataset.is_dir():
        raise ConfigError(f"no such folder: {dataset}", "check the path")
    target_options = _applicable(format, audio=audio, paths=paths, shard_size=shard_size, raw_cells=raw_cells or None)
    if segments:
        _require_segments(
            format,
            {
                "--audio": audio,
                "--approved": approved,
                "--min-trust": min_trust is not None,
                "--strike": strike,
                "--correct": correct,
            },
        )
    weights = _weights(preset or [_DEFAULT_PRESET])
    options = ExportOptions(
        weights=weights,
        columns=presets_to_read(
            presets_files(common, dataset), list(weights) if preset else None, also=[SHORT, SUMMARY]
        ),
        prefix=prefix.strip(),
        postfix=suffix.strip(),
        min_words=min_words,
        max_words=max_words,
        only_complete=complete,
        only_approved=approved,
        validation=validation,
        seed=seed,
        follow_links=follow_links,
        min_trust=min_trust,
        strike=strike,
        correct=correct,
        segments=segments,
    )
    tokens = TokenStats(token_counter(tokenizer))
    stats = ExportStats()
    target = Target(out or default_out(format, dataset), overwrite=overwrite, **target_options)
    try:
        (rehearse if dry_run else run)(format, dataset, target, options, stats, tokens)
    except KeyboardInterrupt as error:
        console.warn("interrupted; nothing was exported, an earlier export is unchanged")
        raise typer.Exit(ExitCode.INTERRUPTED) from error
    console.json(_as_json(format, None if dry_run else target.out, stats, options, tokens))
    what = "segments" if segments else "tracks"
    console.data(f"{stats.exported} {what} {'would be ' if dry_run else ''}exported as {format}: {target.out}")
    _show_remarks(console, stats, options, tokens)
    if stats.failures:
        raise typer.Exit(ExitCode.TRACK_FAILED)


def _applicable(format: ExportFormat, **options: Any) -> dict[str, Any]:
    """The options that were given. Raises ConfigError for one that the format has no use for."""
    from musicflamingo_cli.exports import FORMATS

    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in FORMATS[format].takes:
            raise ConfigError(f"--{name.replace('_', '-')} does not apply to {format}", "leave it out")
    return given


def _require_segments(format: ExportFormat, given: dict[str, Any]) -> None:
    """Raise ConfigError for a format that takes no segments, and for options that are about whole tracks."""
    from musicflamingo_cli.exports import FORMATS

    if not FORMATS[format].in_segments:
        raise ConfigError(
            f"{format} takes whole tracks", f"for segments: musicflamingo export {ExportFormat.WEBDATASET}"
        )
    if named := [name for name, value in given.items() if value]:
        raise ConfigError(f"{named[0]} is about whole tracks", "leave it out, or --segments")


def _as_json(
    format: ExportFormat, out: Path | None, stats: "ExportStats", options: "ExportOptions", tokens: "TokenStats"
) -> dict[str, Any]:
    return {
        "format": format,
        "out": None if out is None else str(out),
        "exported": stats.exported,
        "failed": stats.failures,
        "left_out": stats.left_out,
        "revised": stats.revised,
        "presets": options.presets,
        "splits": {name: number for name, number in stats.parts.items() if name},
        "tokens": tokens.as_json(),
    }


def _show_remarks(console: "Console", stats: "ExportStats", options: "ExportOptions", tokens: "TokenStats") -> None:
    from musicflamingo_cli.exports.rows import VALIDATION

    for reason, number in sorted(stats.left_out.items()):
        console.info(f"{number} left out: {reason}")
    if stats.revised:
        console.info(f"{stats.revised} with captions that --strike or --correct changed")
    if stats.failures:
        console.info(f"{stats.failures} failed")
    for remark, number in sorted(stats.remarks.items()):
        console.warn(f"{number} {remark}")
    if options.validation and VALIDATION not in stats.parts:
        console.warn("no track fell into the validation part: use a larger --validation")
    for line in tokens.lines():
        console.info(line)


def _weights(presets: list[str]) -> dict[str, float]:
    """`NAME` or `NAME:WEIGHT` for each preset. Raises ConfigError."""
    weights = {}
    for text in presets:
        name, _, weight = text.partition(":")
        try:
            weights[name] = float(weight) if weight else 1.0
        except ValueError:
            weights[name] = 0.0
        if not 0 < weights[name] < 1e6:
            raise ConfigError(f"--preset {text}: the weight must be a number above 0", f"for example: {name}:2")
    return weights
