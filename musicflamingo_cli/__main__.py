"""``python -m musicflamingo_cli`` and the ``musicflamingo`` command."""

from musicflamingo_cli.cli import app


def main() -> None:
    app()


if __name__ == "__main__":
    main()
