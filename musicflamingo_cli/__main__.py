"""``python -m musicflamingo_cli`` and the ``musicflamingo`` command."""

import gc

# Importing makes many objects and no garbage; at the default threshold the collector would walk them again and again,
# a tenth of the time of --help.
_THRESHOLD = gc.get_threshold()
gc.set_threshold(50_000)

from typer.main import get_command  # noqa: E402

from musicflamingo_cli.cli import app  # noqa: E402


def main() -> None:
    """Run the command line."""
    command = get_command(app)
    gc.freeze()  # what start-up made stays; the collector need not look at it again
    gc.set_threshold(*_THRESHOLD)
    command()


if __name__ == "__main__":
    main()
