"""The help of commands: the defaults of settings stand in it, though they are imported only when help is shown."""

import dataclasses
from typing import Any

from typer.core import TyperCommand


class CommandWithDefaults(TyperCommand):
    """A command whose help shows the defaults of ``Settings``, which is imported only then."""

    def defaults(self) -> dict[str, Any]:
        """Return the defaults by the names of options."""
        from musicflamingo_cli.config import Settings

        return dataclasses.asdict(Settings())

    def format_help(self, ctx: Any, formatter: Any) -> None:
        show_defaults(self)
        super().format_help(ctx, formatter)


def show_defaults(command: Any) -> None:
    """Add the default to the help of each option of a command that has one."""
    if not isinstance(command, CommandWithDefaults):
        return
    defaults = command.defaults()
    params: list[Any] = command.params
    for param in params:
        default = defaults.get(param.name)
        help_text = getattr(param, "help", None)
        if help_text and default is not None and default is not False and "[default: " not in help_text:
            shown = f"{default:g}" if isinstance(default, float) else default
            param.help = f"{help_text}  \\[default: {shown}]"
