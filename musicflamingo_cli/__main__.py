"""``python -m musicflamingo_cli`` and the ``musicflamingo`` command."""

import gc

# Importing makes many objects and no garbage; at the default of 700 the collector would walk them again and again,
# a tenth of the time of --help.
gc.set_threshold(50_000)

from musicflamingo_cli.cli import app  # noqa: E402


def main() -> None:
    app()


if __name__ == "__main__":
    main()
