"""Wrong usage is shown like every other error, with suggestions for misspelt commands, options and values."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from musicflamingo_cli.errors import ConfigError, suggestion

USAGE_ERROR: Any = typer.BadParameter.__mro__[1]  # click's, or that of Typer's copy of click
_ANY_ERROR: Any = typer.BadParameter.__mro__[2]
_HELP_IS_SHOWN = "NoArgsIsHelpError"
_NO_OPTION = "NoSuchOption"
_CHOICE = re.compile(r"(?:Value error, )?'(?P<word>.*)' is not one of (?P<known>.*?)\.?", re.DOTALL)


class Group(TyperGroup):
    """Commands whose usage errors have the layout of ``error_layout``."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, and exit with the command's code; not ``standalone_mode``: return it, and raise errors."""
        run = functools.partial(super().main, args, prog_name, complete_var, False, windows_expand_args, **extra)
        if not standalone_mode:
            return run()
        try:
            code = run()
        except _ANY_ERROR as error:
            if type(error).__name__ != _HELP_IS_SHOWN:
                _show(error)
            sys.exit(error.exit_code)
        except typer.Abort:
            from musicflamingo_cli.cli.console import write_message

            write_message("cancelled")
            sys.exit(1)
        sys.exit(code if isinstance(code, int) else 0)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command. Raises a usage error with a suggestion."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise USAGE_ERROR(f"no command {args[0]!r}{suggestion(args[0], self.list_commands(ctx))}", ctx)
        return super().resolve_command(ctx, args)


def _show(error: Any) -> None:
    from musicflamingo_cli.cli.options import Common, console_for

    words = sys.argv[1:]  # options are not parsed yet
    console = console_for(Common(no_color="--no-color" in words, plain="--plain" in words))
    path = error.ctx.command_path if getattr(error, "ctx", None) else "musicflamingo"
    console.fail(ConfigError(_text(error), f"see: {path} --help"))


def _text(error: Any) -> str:
    """What is wrong, in our words."""
    param = getattr(error, "param", None)
    name = _name(param) if param is not None else ""
    if choice := _CHOICE.fullmatch(error.message or ""):
        values = [word.strip("' ") for word in choice["known"].split(",")]
        return f"{name or 'a value'} cannot be {choice['word']!r}{suggestion(choice['word'], values)}"
    if option := getattr(error, "option_name", ""):
        known = getattr(error, "possibilities", None) or []
        if type(error).__name__ == _NO_OPTION:
            return f"no option {option}{suggestion(option, known) if known else ''}"
    text = " ".join(str(error.format_message()).replace("Value error, ", "").split()).rstrip(".")
    return text[:1].lower() + text[1:]


def _name(param: Any) -> str:
    """An option, or an argument, as its help calls it."""
    if getattr(param, "param_type_name", "") == "option":
        return str(max(param.opts, key=len))
    return str(param.metavar or param.name)
