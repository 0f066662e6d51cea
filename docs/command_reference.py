"""Print docs/cli.md: every command and option, from the program's own help. `make docs` writes it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from enum import Enum
from typing import Any

import typer.main

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.command_help import show_defaults
from musicflamingo_cli.cli.options import AskOptions, ChatOptions, Common, Json, ModelOptions
from musicflamingo_cli.errors import ExitCode

HEAD = """# The command line

Generated from `musicflamingo --help` and the help of each command with `make docs`; do not edit.

Data goes to stdout, messages go to stderr. With `--json`, stdout carries JSON and nothing else: `caption` and `batch`
print one object a track,

    {"track": path, "sidecar": path or null, "captions": {preset: text},
     "failures": [{"preset", "reason", "hint"}], "skipped": reason or null,
     "engine": name, "model": file name, "audio_seconds": s, "seconds": s}

The objects of `compare` are in [compare.md](compare.md), those of `measure` in [measure.md](measure.md), those of
`listen` in [listen.md](listen.md).
"""
EXIT_CODES = {
    0: "all done",
    ExitCode.TRACK_FAILED: "at least one track failed; the others are done",
    ExitCode.USAGE: "wrong usage or settings",
    ExitCode.TOOL_MISSING: "a tool is missing (`musicflamingo build`)",
    ExitCode.MODEL: "a model is missing or unusable",
    ExitCode.INTERRUPTED: "interrupted; what was finished is saved",
}
SHARED = {"Options of every command": Common, "Model and sampling": ModelOptions}


def reference() -> str:
    """Return the whole page."""
    return "\n".join(lines()) + "\n"


def lines() -> Iterator[str]:
    yield HEAD
    yield "| exit code | meaning |\n|---|---|"
    yield from (f"| {int(code)} | {meaning} |" for code, meaning in EXIT_CODES.items())
    commands = list(all_commands(typer.main.get_command(app), "musicflamingo"))
    for name, command in commands:
        yield f"\n## {name}\n\n{command.help}\n"
        groups = (*SHARED.values(), AskOptions, ChatOptions, Json)
        shared = {field for group in groups if takes(command, group) for field in fields_of(group)}
        yield f"    {name} {' '.join(usage(command))}\n"
        yield from table([param for param in command.params if param.name not in shared])
        if takes(command, AskOptions) or takes(command, ChatOptions):
            yield f"\nTakes the [model and sampling](#model-and-sampling) options{exceptions(command)}."
    for title, group in SHARED.items():
        yield f"\n## {title}\n"
        names = fields_of(group) | (fields_of(Json) if group is Common else set())
        command = next(command for _, command in commands if takes(command, Json) and takes(command, group))
        yield from table([param for param in command.params if param.name in names])


def all_commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield each command that does something, with the words that call it, in the order of the help."""
    if not hasattr(command, "commands"):
        show_defaults(command)
        yield name, command
        return
    for word, child in command.commands.items():
        yield from all_commands(child, f"{name} {word}")


def takes(command: Any, group: Any) -> bool:
    return fields_of(group) <= {param.name for param in command.params}


def exceptions(command: Any) -> str:
    """Return which of the model and sampling options a command lacks, as the end of a sentence."""
    options = {option for param in command.params for option in param.opts}
    names = (f"--{name.replace('_', '-')}" for name in sorted(fields_of(ModelOptions)))
    missing = [f"`{name}`" for name in names if name not in options]
    return f" except {', '.join(missing)}" if missing else ""


def fields_of(group: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(group)}


def usage(command: Any) -> Iterator[str]:
    yield "[OPTIONS]"
    for param in command.params:
        if param.param_type_name == "argument":
            name = (param.metavar or param.name.upper()) + ("..." if param.nargs == -1 else "")
            yield name if param.required else f"[{name}]"


def table(params: list[Any]) -> Iterator[str]:
    rows = [param for param in params if getattr(param, "help", None)]
    if rows:
        yield "| option | meaning |\n|---|---|"
    for param in rows:
        is_argument = param.param_type_name == "argument"
        names = (
            (param.metavar or param.name.upper()) if is_argument else ", ".join([*param.opts, *param.secondary_opts])
        )
        kind = param.type_descriptor.annotation
        choices = list(kind) if isinstance(kind, type) and issubclass(kind, Enum) and not is_argument else []
        values = " " + "\\|".join(choice.value for choice in choices) if choices else ""
        metavar = "" if is_argument or param.metavar is None or choices else f" {param.metavar}"
        default = "" if not shows_default(param) else f"  [default: {param.default}]"
        text = f"{param.help}{default}".replace("\\[", "[").replace("|", "\\|")
        yield f"| `{names}{metavar}`{values} | {text} |"


def shows_default(param: Any) -> bool:
    """Whether the help shows a default that is not in the help text already."""
    hidden = param.default in (None, "", False, True, [], ()) or "[default: " in param.help
    return not hidden and param.show_default is not False and not callable(param.default)


if __name__ == "__main__":
    sys.stdout.write(reference())
