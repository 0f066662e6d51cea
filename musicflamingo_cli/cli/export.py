"""`musicflamingo export`: captions in the formats that trainers read."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import Common, Json, command, console_for
from musicflamingo_cli.errors import EXIT_INTERRUPTED, EXIT_TRACK_FAILED, ConfigError

if TYPE_CHECKING:
    from musicflamingo_cli.cli.console import Console
    from musicflamingo_cli.exports import Choice, Tally
    from musicflamingo_cli.text.t5_tokens import Budget

FORMATS_HELP = "audiocraft, stable-audio, webdataset, audiofolder, ace-step, txt, csv, jsonl or parquet."
_DEFAULT_PRESET = "full"  # what a track's text is where nobody says


@command(app)
def export(
    format: Annotated[str, typer.Argument(help=FORMATS_HELP, metavar="FORMAT")],
    dataset: Annotated[Path, typer.Argument(help="A captioned dataset.", metavar="DIR")],
    common: Common,
    json: Json,
    out: Annotated[
        Path | None, typer.Argument(help="A new folder or file.  \\[named after DIR, here]", metavar="OUT")
    ] = None,
    preset: Annotated[
        list[str] | None,
        typer.Option("--preset", "-p", help="Whose captions: NAME, or NAME:WEIGHT to mix several.  \\[full]"),
    ] = None,
    prefix: Annotated[str, typer.Option("--prefix", help="Words before each caption: a trigger word.")] = "",
    suffix: Annotated[str, typer.Option("--suffix", help="Words after each caption.")] = "",
    min_words: Annotated[int, typer.Option("--min-words", help="Leave out shorter captions.", min=1)] = 1,
    max_words: Annotated[int | None, typer.Option("--max-words", help="Leave out longer captions.", min=1)] = None,
    complete: Annotated[bool, typer.Option("--complete", help="Only tracks with all of the presets.")] = False,
    approved: Annotated[
        bool, typer.Option("--approved", help="Only tracks whose sidecar says music_flamingo_approved: true.")
    ] = False,
    validation: Annotated[
        float, typer.Option("--validation", help="Keep this share of the tracks apart.", min=0, max=0.9)
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="For the mix.")] = 42,
    audio: Annotated[
        str | None, typer.Option("--audio", help="link or copy the audio into the export.  \\[link]")
    ] = None,
    paths: Annotated[
        str | None, typer.Option("--paths", help="relative (to DIR) or absolute, in tables.  \\[relative]")
    ] = None,
    shard_size: Annotated[
        int | None, typer.Option("--shard-size", help="Samples in a tar (webdataset).  [1000]", min=1)
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="Count T5 tokens with this tokenizer.json or model.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be exported, write nothing.")] = False,
) -> None:
    """Captions in the formats that trainers read."""
    from musicflamingo_cli.cli.asking import captions_for
    from musicflamingo_cli.cli.console import failure_line
    from musicflamingo_cli.exports import Choice, Tally, Target, default_out, rehearse
    from musicflamingo_cli.exports import export as run
    from musicflamingo_cli.text.t5_tokens import Budget, token_counter

    console = console_for(common, json.as_json)
    if not dataset.is_dir():
        raise ConfigError(f"no such folder: {dataset}", "check the path")
    how = _given(format, audio=audio, paths=paths, shard_size=shard_size)
    weights = _weights(preset or [_DEFAULT_PRESET])
    choice = Choice(
        weights=weights,
        columns=captions_for(dataset, list(weights) if preset else None),
        prefix=prefix.strip(),
        postfix=suffix.strip(),
        min_words=min_words,
        max_words=max_words,
        only_complete=complete,
        only_approved=approved,
        validation=validation,
        seed=seed,
    )
    budget = Budget(token_counter(tokenizer))
    tally = Tally(lambda path, failure: console.warn(failure_line(path, failure)))
    target = Target(out or default_out(format, dataset), overwrite=overwrite, **how)
    try:
        (rehearse if dry_run else run)(format, dataset, target, choice, tally, budget)
    except KeyboardInterrupt as error:
        console.warn("interrupted; an export is there whole or not at all")
        raise typer.Exit(EXIT_INTERRUPTED) from error
    _tell(console, format, target.out, dry_run, tally, budget, choice)
    if tally.failures:
        raise typer.Exit(EXIT_TRACK_FAILED)


def _given(format: str, **options: Any) -> dict[str, Any]:
    """The options that were given, if they mean something to the format. Raises ConfigError."""
    from musicflamingo_cli.exports import find_format

    takes = find_format(format).takes
    known = {"audio": ("link", "copy"), "paths": ("relative", "absolute")}
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if name not in takes:
            raise ConfigError(f"{option} means nothing to {format}", "leave it out")
        if name in known and value not in known[name]:
            raise ConfigError(
                f"{option} {value}: it is {' or '.join(known[name])}", f"for example: {option} {known[name][1]}"
            )
    return given


def _tell(
    console: "Console", format: str, out: Path, dry_run: bool, tally: "Tally", budget: "Budget", choice: "Choice"
) -> None:
    from musicflamingo_cli.exports.rows import VALIDATION

    console.json(
        {
            "format": format,
            "out": None if dry_run else str(out),
            "exported": tally.exported,
            "failed": tally.failures,
            "left_out": tally.left_out,
            "presets": choice.presets,
            "splits": {name: number for name, number in tally.parts.items() if name},
            "tokens": budget.as_json(),
        }
    )
    verb = "would be exported" if dry_run else "exported"
    console.data(f"{tally.exported} tracks {verb} as {format}: {out}")
    for reason, number in sorted(tally.left_out.items()):
        console.say(f"{number} left out: {reason}")
    if tally.failures:
        console.say(f"{tally.failures} failed")
    for remark, number in sorted(tally.remarks.items()):
        console.warn(f"{number} {remark}")
    if choice.validation and VALIDATION not in tally.parts:
        console.warn("no track fell into the validation part: take a larger --validation")
    for line in budget.lines():
        console.say(line)


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
