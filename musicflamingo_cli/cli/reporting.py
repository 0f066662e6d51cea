"""Around a command: exceptions become messages and exit codes, signals become interrupts."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import typer

from musicflamingo_cli.errors import ConfigError, ExitCode, MusicFlamingoError, SettingError

if TYPE_CHECKING:
    from musicflamingo_cli.cli.console import Console


@contextlib.contextmanager
def reporting(verbose: bool, console: Callable[[], Console]) -> Iterator[None]:
    """Turn exceptions into messages and exit codes; a traceback only if ``verbose``."""
    _interrupt_on_signals()
    try:
        yield
    except MusicFlamingoError as error:
        _show_traceback(verbose)
        console().fail(_as_option(error))
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        console().warn("interrupted; finished captions are saved, and the same command continues from here")
        raise typer.Exit(ExitCode.INTERRUPTED) from error
    except BrokenPipeError as error:
        sys.stderr.close()
        raise typer.Exit(ExitCode.TRACK_FAILED) from error
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        _show_traceback(verbose)
        hint = "this is a bug; run the command again with -v and report it"
        console().fail(MusicFlamingoError(f"{type(error).__name__}: {error}", hint))
        raise typer.Exit(ExitCode.TRACK_FAILED) from error


def _as_option(error: MusicFlamingoError) -> MusicFlamingoError:
    """The error with a setting's name as its option: --top-p for top_p."""
    if not isinstance(error, SettingError):
        return error
    option = "--" + error.field.replace("_", "-")
    hint = error.hint.replace("for example: ", f"for example: {option} ")
    return ConfigError(str(error).replace(error.field, option, 1), hint)


def _interrupt_on_signals() -> None:
    """Let SIGTERM and a lost terminal do what Ctrl-C does: finished work is saved, children are killed.

    The second signal ends the process at once. Children die with it (see system.processes), and the next run removes
    its leftovers.
    """
    import signal

    seen = 0

    def interrupt(number: int, frame: Any) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            if sys.stderr.isatty():
                os.write(2, b"\x1b[?25h\n")  # the cursor, which a live view hides; sys.stderr may be locked
            os._exit(ExitCode.INTERRUPTED)
        raise KeyboardInterrupt

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # ignored: nohup
            signal.signal(number, interrupt)


def _show_traceback(verbose: bool) -> None:
    if verbose:
        import traceback

        traceback.print_exc()
