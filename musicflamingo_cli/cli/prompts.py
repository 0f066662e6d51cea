"""`musicflamingo prompts`: show, copy, edit and check the presets."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musicflamingo_cli.cli import app, completion
from musicflamingo_cli.cli.options import Common, Json, command, console_for
from musicflamingo_cli.cli.usage import Group
from musicflamingo_cli.errors import ConfigError

if TYPE_CHECKING:
    from musicflamingo_cli.cli.console import Console
    from musicflamingo_cli.prompts import Preset

prompts_app = typer.Typer(cls=Group, no_args_is_help=True, help="Show, copy, edit and check the presets.")
app.add_typer(prompts_app, name="prompts")

PromptsFile = Annotated[
    Path | None, typer.Option("--prompts", help="Another presets file.", metavar="FILE", show_default=False)
]

OwnFolder = Annotated[
    Path | None,
    typer.Option("--dataset", help="Write it into this dataset's folder, not the settings folder.", metavar="DIR"),
]


@command(prompts_app, "list")
def list_(common: Common, json: Json, prompts: PromptsFile = None) -> None:
    """List the presets in force here, and the file that each comes from."""
    console = console_for(common, json.as_json)
    presets = list(_in_force(common, prompts).values())
    for preset in presets:
        console.json(
            {
                "name": preset.name,
                "default": preset.default,
                "max_tokens": preset.max_tokens,
                "prompt": preset.prompt,
                "origin": str(preset.origin),
            }
        )
    _list_presets(console, presets)


def _list_presets(console: "Console", presets: "list[Preset]") -> None:
    from musicflamingo_cli.cli.styled import shorten_middle
    from musicflamingo_cli.cli.tables import Sign, listing, marked

    table, symbols = listing(), console.symbols
    for heading in ("preset", "at most", "asked", "from"):
        table.add_column(heading, justify="right" if heading == "at most" else "left", no_wrap=True)
    taken = max((len(preset.name) for preset in presets), default=0) + len("  500 tokens  x default  ")
    for preset in presets:
        asked = marked(Sign.OK, "default", symbols) if preset.default else ""
        origin = str(preset.origin)
        if not console.is_piped:
            origin = shorten_middle(origin, max(16, console.width - taken), symbols.ellipsis)
        table.add_row(preset.name, f"{preset.max_tokens} tokens", asked, origin)
    console.listing(table)


@command(prompts_app)
def show(
    name: Annotated[str, typer.Argument(help="A preset.", autocompletion=completion.presets)],
    common: Common,
    json: Json,
    prompts: PromptsFile = None,
) -> None:
    """Show one preset's text."""
    from musicflamingo_cli.prompts import choose

    console = console_for(common, json.as_json)
    preset = choose(_in_force(common, prompts), [name])[0]
    if console.is_piped:
        console.data(preset.prompt)
        console.info(f"(at most {preset.max_tokens} tokens; from {preset.origin})")
    else:
        _show_preset(console, preset)
    console.json({"name": name, "prompt": preset.prompt, "system": preset.system, "max_tokens": preset.max_tokens})


def _show_preset(console: "Console", preset: "Preset") -> None:
    """Print all of a preset for a terminal."""
    from musicflamingo_cli.cli.tables import facts

    rows = [
        ("preset", preset.name),
        ("asked", "by default" if preset.default else f"with --preset {preset.name}"),
        ("answer", f"at most {preset.max_tokens} tokens"),
        ("from", str(preset.origin)),
        *([("system", preset.system)] if preset.system else []),
        ("prompt", preset.prompt),
    ]
    console.listing(facts(rows, 6))


@command(prompts_app)
def path(common: Common, json: Json) -> None:
    """List the prompts files in force, the strongest last."""
    from musicflamingo_cli.cli.presets import presets_files

    console = console_for(common, json.as_json)
    files = [str(file) for file in presets_files(common, Path.cwd())]
    for file in files:
        console.data(file)
    console.json(files)


@command(prompts_app)
def init(
    common: Common,
    json: Json,
    dataset: OwnFolder = None,
) -> None:
    """Copy the built-in presets to a file of your own."""
    console = console_for(common, json.as_json)
    file = _new_own_file(dataset)
    _copy_built_in(file)
    console.info("your presets file is ready; edit it, then: musicflamingo prompts check")
    console.data(str(file))
    console.json({"path": str(file)})


@command(prompts_app, "import")
def import_(
    file: Annotated[
        Path, typer.Argument(help="A pipeline's YAML settings with a `music_flamingo` section.", metavar="FILE")
    ],
    common: Common,
    json: Json,
    dataset: OwnFolder = None,
) -> None:
    """Make a presets file from the YAML settings of the MIR feature pipeline."""
    from musicflamingo_cli.imported_prompts import as_yaml, import_presets, others_off

    console = console_for(common, json.as_json)
    presets = import_presets(file)
    own = _new_own_file(dataset)
    _write_new(own, as_yaml([*presets, *others_off(presets)], file).encode())
    console.info(f"{len(presets)} presets are imported; look at them, then: musicflamingo prompts check")
    console.data(str(own))
    console.json({"path": str(own), "presets": [preset.name for preset in presets]})


@command(prompts_app)
def edit(common: Common, json: Json) -> None:
    """Open your presets in $EDITOR, and check them afterwards."""
    from musicflamingo_cli.prompts import read_presets
    from musicflamingo_cli.system.processes import run_in_terminal

    console = console_for(common, json.as_json)
    file = _own_file(None)
    if not file.exists():
        _copy_built_in(file)
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "nano"
    hint = f"edit {file} with another one"
    try:
        exit_code = run_in_terminal([*shlex.split(editor), str(file)])
    except (OSError, ValueError) as error:
        raise ConfigError(f"the editor {editor!r} cannot be started: {error}", hint) from error
    if exit_code:
        raise ConfigError(f"the editor {editor!r} failed with exit code {exit_code}", hint)
    presets = read_presets(file)
    console.info(f"{file}: {len(presets)} presets, no errors")
    console.json({"path": str(file), "presets": list(presets)})


@command(prompts_app)
def check(
    common: Common,
    json: Json,
    file: Annotated[
        Path | None, typer.Argument(help="A presets file.  \\[default: those in force]", metavar="FILE")
    ] = None,
) -> None:
    """Check a presets file, and report what is wrong."""
    from musicflamingo_cli.cli.presets import presets_files
    from musicflamingo_cli.prompts import read_presets

    console = console_for(common, json.as_json)
    for each in [file] if file else presets_files(common, Path.cwd()):
        presets = read_presets(each)
        console.data(f"{each}: {len(presets)} presets, no errors")
        console.json({"path": str(each), "presets": list(presets)})


def _in_force(common: Common, explicit: Path | None):  # type: ignore[no-untyped-def]  # its type is imported late
    from musicflamingo_cli.cli.presets import presets_files
    from musicflamingo_cli.prompts import load_presets

    return load_presets(presets_files(common, Path.cwd(), explicit))


def _own_file(dataset: Path | None) -> Path:
    from musicflamingo_cli.paths import user_config_dir
    from musicflamingo_cli.prompts import DATASET_FILE

    return dataset / DATASET_FILE if dataset else user_config_dir() / "prompts.yaml"


def _new_own_file(dataset: Path | None) -> Path:
    """Where a presets file of the user's own is to be written. Raises ConfigError where there is one."""
    file = _own_file(dataset)
    if dataset and not dataset.is_dir():
        raise ConfigError(f"no such folder: {dataset}", "check the path")
    if os.path.lexists(file):  # also where it is a link to nothing, which would be written through
        raise ConfigError(f"{file} exists already", "edit it with: musicflamingo prompts edit")
    return file


def _copy_built_in(file: Path) -> None:
    from musicflamingo_cli.paths import built_in_prompts

    _write_new(file, built_in_prompts().read_bytes())


def _write_new(file: Path, content: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb") as own:
            own.write(content)
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}", "check the folder's permissions") from error
