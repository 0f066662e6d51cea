"""`musicflamingo doctor`: one screen about this machine, and whether the model hears."""

from typing import Annotated

import typer

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import Asking, Common, Json, command, console_for


@command(app)
def doctor(
    asking: Asking,
    common: Common,
    json: Json,
    hearing: Annotated[bool, typer.Option("--hearing/--no-hearing", help="Ask about known songs.")] = True,
) -> None:
    """What is installed, what is missing, what to type next; and a proof that the model hears."""
    from dataclasses import asdict

    from musicflamingo_cli.config import sources
    from musicflamingo_cli.doctor import checks as examination
    from musicflamingo_cli.doctor.hearing import hearing_tests

    console = console_for(common, json.as_json)
    settings = asking.settings(common)
    marks = {examination.OK: "ok  ", examination.WARNING: "warn", examination.FAILURE: "FAIL"}
    checks = []

    def tell(check: examination.Check) -> None:
        checks.append(check)
        console.data(f"{marks[check.status]}  {check.name:15} {check.detail}")
        if check.hint:
            console.data(f"{'':21} -> {check.hint}")

    for check in examination.examine(settings):
        tell(check)
    can_answer = all(check.status != examination.FAILURE for check in checks)
    if hearing and can_answer:
        console.say("asking about known songs ...")
        for check in hearing_tests(settings, console.warn):
            tell(check)
    elif hearing:
        tell(examination.Check("hearing", examination.WARNING, "not tested", "mend the failures above first"))
    origin = sources(asking.flags(common), common.config)
    values = {name: {"value": _plain(value), "from": origin[name]} for name, value in asdict(settings).items()}
    for name, value in values.items():
        if value["from"] != "default":
            console.data(f"set   {name:15} {value['value']} (from {value['from']})")
    console.json({"checks": [examination.as_json(check) for check in checks], "settings": values})
    failures = [check for check in checks if check.status == examination.FAILURE]
    if failures:
        raise typer.Exit(failures[0].exit_code)


def _plain(value: object) -> object:
    return value if isinstance(value, (int, float, str, type(None))) else str(value)
