"""`musicflamingo doctor`: one screen about this machine, and whether the model hears."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import Common, Json, ModelOptions, command, console_for

if TYPE_CHECKING:
    from musicflamingo_cli.cli.console import Console
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
            console.data(f"set   {name:15} {value['value']} (from {value['from']})")
    console.json({"checks": [as_json(check) for check in checks], "settings": values})
    failures = [check for check in checks if check.status == CheckStatus.FAILURE]
    if failures:
        raise typer.Exit(failures[0].exit_code)


def _show(console: "Console", check: "Check") -> None:
    from musicflamingo_cli.doctor.checks import CheckStatus

    marks = {CheckStatus.OK: "ok  ", CheckStatus.WARNING: "warn", CheckStatus.FAILURE: "FAIL"}
    console.data(f"{marks[check.status]}  {check.name:15} {check.detail}")
    if check.hint:
        console.data(f"{'':21} -> {check.hint}")


def _settings_with_origin(settings: dict[str, Any], options: ModelOptions, common: Common) -> dict[str, Any]:
    """Each setting's value, fit for JSON, and where it comes from."""
    from musicflamingo_cli.config import sources

    origin = sources(options.flags(common), common.config)
    return {
        name: {"value": value if isinstance(value, (int, float, str, type(None))) else str(value), "from": origin[name]}
        for name, value in settings.items()
    }
