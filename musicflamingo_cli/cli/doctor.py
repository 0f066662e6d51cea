"""`musicflamingo doctor`: one screen about this machine, and whether the model hears."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import Common, Json, ModelOptions, command, console_for

if TYPE_CHECKING:
    from musicflamingo_cli.cli.console import Console
    from musicflamingo_cli.cli.tables import Sign
    from musicflamingo_cli.doctor.checks import Check


@command(app)
def doctor(
    options: ModelOptions,
    common: Common,
    json: Json,
    hearing: Annotated[
        bool, typer.Option("--hearing/--no-hearing", help="Test the model on songs whose attributes are known.")
    ] = True,
) -> None:
    """Show what is installed, what is missing and what to type next, and prove that the model hears."""
    from musicflamingo_cli.doctor.checks import Check, CheckStatus, as_json, examine
    from musicflamingo_cli.doctor.hearing import hearing_tests

    console = console_for(common, json.as_json)
    settings = options.settings(common)
    checks = []
    for check in examine(settings):
        checks.append(check)
        _show(console, check)
    can_answer = all(check.status != CheckStatus.FAILURE for check in checks)
    if hearing and can_answer:
        console.info("testing on known songs ...")
        for check in hearing_tests(settings):
            checks.append(check)
            _show(console, check)
    elif hearing:
        checks.append(Check.warning("hearing", "not tested", "fix the failures above first"))
        _show(console, checks[-1])
    values = _settings_with_origin(asdict(settings), options, common)
    for name, value in values.items():
        if value["from"] != "default":
            _print_row(console, None, name, f"{value['value']} (from {value['from']})")
    _show_end(console, checks)
    console.json({"checks": [as_json(check) for check in checks], "settings": values})
    failures = [check for check in checks if check.status == CheckStatus.FAILURE]
    if failures:
        raise typer.Exit(failures[0].exit_code)


def _show(console: "Console", check: "Check") -> None:
    """Print a line of the table at once: checks take seconds."""
    from musicflamingo_cli.cli.tables import Sign

    sign = Sign.ABSENT if check.absent else Sign(check.status)
    _print_row(console, sign, check.name, check.shown, check.hint)


def _print_row(console: "Console", sign: "Sign | None", name: str, text: str, hint: str = "") -> None:
    from rich.table import Table

    from musicflamingo_cli.cli.tables import NAME_WIDTH, sign_text, sign_width

    symbols = console.symbols
    table = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(width=sign_width(symbols), no_wrap=True)
    table.add_column(width=NAME_WIDTH, no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(sign_text(sign, symbols) if sign else "", name, text)
    if hint:
        table.add_row("", "", f"{symbols.hint} {hint}")
    console.listing(table)


def _show_end(console: "Console", checks: "list[Check]") -> None:
    """Print how many checks need attention."""
    from musicflamingo_cli.cli.tables import Sign
    from musicflamingo_cli.doctor.checks import CheckStatus

    failures, warnings = (
        sum(check.status == status for check in checks) for status in (CheckStatus.FAILURE, CheckStatus.WARNING)
    )
    counts = [f"{n} {word}{'s' if n > 1 else ''}" for n, word in ((failures, "failure"), (warnings, "warning")) if n]
    sign = Sign.FAILURE if failures else Sign.WARNING if warnings else Sign.OK
    _print_row(console, sign, "result", ", ".join(counts) or "everything works")


def _settings_with_origin(settings: dict[str, Any], options: ModelOptions, common: Common) -> dict[str, Any]:
    """Each setting's value, fit for JSON, and where it comes from."""
    from musicflamingo_cli.config import sources

    origin = sources(options.flags(common), common.config)
    return {
        name: {"value": value if isinstance(value, (int, float, str, type(None))) else str(value), "from": origin[name]}
        for name, value in settings.items()
    }
