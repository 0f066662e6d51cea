"""`musicflamingo tags`: captions into the audio files' own tags, and back."""

from pathlib import Path
from typing import Annotated

import typer

from musicflamingo_cli.cli import app, completion
from musicflamingo_cli.cli.options import Common, FollowLinks, Json, command, console_for
from musicflamingo_cli.errors import ConfigError, ExitCode

_SHOWN = 60  # characters of a value


# Many parameters, as they are the command's options.
@command(app)
def tags(
    dataset: Annotated[Path, typer.Argument(help="A captioned dataset.", metavar="DIR")],
    common: Common,
    json: Json,
    preset: Annotated[
        list[str] | None,
        typer.Option(
            "--preset",
            "-p",
            help="Whose caption is written, repeatable.  \\[default: the first one]",
            autocompletion=completion.presets,
        ),
    ] = None,
    custom: Annotated[
        bool, typer.Option("--custom", help="Write the field MUSIC_FLAMINGO instead of the comment.")
    ] = False,
    bpm: Annotated[bool, typer.Option("--bpm", help="Write the tempo, too.")] = False,
    key: Annotated[bool, typer.Option("--key", help="Write the key, too.")] = False,
    approved: Annotated[bool, typer.Option("--approved", help="Only approved tracks.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Restore the tags that this command replaced.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be written; change nothing.")] = False,
    follow_links: FollowLinks = False,
) -> None:
    """Write captions into the audio files' own tags. The audio stays as it is, old tags are kept in the sidecars."""
    from musicflamingo_cli.cli.presets import presets_files, presets_to_read
    from musicflamingo_cli.exports.file_tags import TagField
    from musicflamingo_cli.exports.tagging import TagOptions, tag_all, undo_all

    console = console_for(common, json.as_json)
    if not dataset.is_dir():
        raise ConfigError(f"no such folder: {dataset}", "check the path")
    names = presets_to_read(presets_files(common, dataset), preset)
    options = TagOptions(
        presets=names if preset else names[:1],
        field=TagField.CUSTOM if custom else TagField.COMMENT,
        bpm=bpm,
        key=key,
        only_approved=approved,
        follow_links=follow_links,
    )
    counts = {"changed": 0, "unchanged": 0, "failed": 0}
    for result in (undo_all if undo else tag_all)(dataset, options, dry_run):
        counts["failed" if result.failed else "changed" if result.after else "unchanged"] += 1
        after = {str(name): list(values) for name, values in result.after.items()}
        before = {str(name): list(values) for name, values in result.before.items()}
        console.json(
            {"track": str(result.track.audio), "before": before, "after": after, "reason": result.reason or None}
        )
        if result.reason:
            (console.warn if result.failed else console.info)(f"{result.track.audio}: {result.reason}")
        for name, values in after.items() if dry_run else ():
            shown = " / ".join(values).replace("\n", " ")
            console.data(f"{result.track.audio}: {name} = {shown[:_SHOWN]}{'…' if len(shown) > _SHOWN else ''}")
    would = "would be " if dry_run else ""
    console.info(
        f"{counts['changed']} files {would}changed, {counts['unchanged']} unchanged, {counts['failed']} failed"
    )
    if counts["failed"]:
        raise typer.Exit(ExitCode.TRACK_FAILED)
