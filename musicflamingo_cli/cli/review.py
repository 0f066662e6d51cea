"""`musicflamingo review`: listen, read, correct and approve captions in the browser."""

from pathlib import Path
from typing import Annotated

import typer

from musicflamingo_cli.cli import app, completion
from musicflamingo_cli.cli.options import ChatOptions, Common, FollowLinks, command, console_for
from musicflamingo_cli.errors import ConfigError


# Many parameters, as they are the command's options.
@command(app)
def review(
    dataset: Annotated[Path, typer.Argument(help="A dataset, captioned or not.", metavar="DIR")],
    options: ChatOptions,
    common: Common,
    port: Annotated[
        int, typer.Option("--port", help="Port on 127.0.0.1.  \\[default: a free one]", min=0, max=65535, metavar="N")
    ] = 0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="Show everything, change nothing.")] = False,
    preset: Annotated[
        list[str] | None,
        typer.Option(
            "--preset",
            "-p",
            help="A preset to review, repeatable.  \\[default: those marked so]",
            autocompletion=completion.presets,
        ),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="Count T5 tokens with this tokenizer.json or model.")
    ] = None,
    follow_links: FollowLinks = False,
) -> None:
    """Listen, read, correct and approve captions in the browser, with the keyboard. Ends with Ctrl-C."""
    from musicflamingo_cli.cli.presets import presets_to_read
    from musicflamingo_cli.prompts import load_presets, prompts_files
    from musicflamingo_cli.review.server import listening, require_packages

    console = console_for(common)
    if not dataset.is_dir():
        raise ConfigError(f"no such folder: {dataset}", "check the path")
    require_packages()
    from musicflamingo_cli.review.asks import Asks
    from musicflamingo_cli.review.session import open_review, run
    from musicflamingo_cli.text.t5_tokens import token_counter

    settings = options.settings(common, [dataset])
    files = prompts_files(dataset, settings.prompts)
    asks = None if read_only else Asks(settings, load_presets(files))
    with (
        listening(port) as listener,
        open_review(dataset, presets_to_read(files, preset), token_counter(tokenizer), asks, follow_links) as opened,
    ):

        def show(url: str) -> None:
            console.data(url)

        console.info(f"reviewing {dataset}; stop with Ctrl-C. Open this URL, which lets one browser in:")
        run(opened, listener, show, open_browser)
        console.info("the review has ended; everything is saved")
