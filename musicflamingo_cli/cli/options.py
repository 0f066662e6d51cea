"""Options that several commands share, declared once, and what every command does around its work."""

# No `from __future__ import annotations` here: Typer reads the annotations as objects.

import contextlib
import dataclasses
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musicflamingo_cli.errors import EXIT_INTERRUPTED, EXIT_TRACK_FAILED, ConfigError, MusicFlamingoError

if TYPE_CHECKING:  # imported when a command runs, so that --version and --help stay quick
    from musicflamingo_cli.cli.console import Console
    from musicflamingo_cli.config import Settings

_EVERYWHERE = "Everywhere"
_ASKING = "Model and sampling"


def _flag(*names: str, help: str, panel: str, **more: Any) -> Any:
    help = help.replace("[", "\\[")  # rich would take [auto] for a style and show nothing
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


@dataclasses.dataclass(frozen=True)
class Common:
    """What every command takes."""

    models_dir: Annotated[
        Path | None, _flag("--models-dir", help="Folder of GGUF files.", panel=_EVERYWHERE, metavar="DIR")
    ] = None
    llama_dir: Annotated[
        Path | None, _flag("--llama-dir", help="Folder of llama.cpp's binaries.", panel=_EVERYWHERE, metavar="DIR")
    ] = None
    config: Annotated[
        Path | None, _flag("--config", help="Another settings file.", panel=_EVERYWHERE, metavar="FILE")
    ] = None
    verbose: Annotated[bool, _flag("-v", "--verbose", help="Say more.", panel=_EVERYWHERE)] = False
    quiet: Annotated[bool, _flag("-q", "--quiet", help="Say only what went wrong.", panel=_EVERYWHERE)] = False
    no_color: Annotated[bool, _flag("--no-color", help="No colours.", panel=_EVERYWHERE)] = False

    def merged_with(self, other: "Common") -> "Common":
        """Options given before the command's name, overridden by those given after it."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return Common(**{name: theirs[name] or mine[name] for name in mine})


@dataclasses.dataclass(frozen=True)
class Json:
    """Apart from Common, since it means nothing before a command's name."""

    as_json: Annotated[bool, _flag("--json", help="Data as JSON on stdout.", panel=_EVERYWHERE)] = False


@dataclasses.dataclass(frozen=True)
class Asking:
    """What `caption` and `batch` share: whom to ask, what, and how."""

    model: Annotated[
        str | None,
        _flag("--model", help="auto, tiny, a quant (Q6_K) or a .gguf.  [auto]", panel=_ASKING, metavar="NAME"),
    ] = None
    mmproj: Annotated[
        Path | None, _flag("--mmproj", help="The projector of a --model path.", panel=_ASKING, metavar="PATH")
    ] = None
    engine: Annotated[
        str | None,
        _flag("--engine", help="auto, native, server, mtmd-cli or embedded.  [auto]", panel=_ASKING, metavar="NAME"),
    ] = None
    preset: Annotated[
        list[str] | None,
        _flag("--preset", "-p", help="A preset, repeatable.  [the default ones]", panel=_ASKING, metavar="NAME"),
    ] = None
    ask: Annotated[
        str | None, _flag("--ask", help="One free question instead of presets.", panel=_ASKING, metavar="TEXT")
    ] = None
    save_as: Annotated[
        str | None, _flag("--save-as", help="Save --ask under this preset name.", panel=_ASKING, metavar="NAME")
    ] = None
    prompts: Annotated[Path | None, _flag("--prompts", help="Another presets file.", panel=_ASKING, metavar="FILE")] = (
        None
    )
    temperature: Annotated[float | None, _flag("--temperature", help="[0.7]", panel=_ASKING)] = None
    top_p: Annotated[float | None, _flag("--top-p", help="[0.9]", panel=_ASKING)] = None
    repeat_penalty: Annotated[float | None, _flag("--repeat-penalty", help="[1.05]", panel=_ASKING)] = None
    seed: Annotated[int | None, _flag("--seed", help="[42]", panel=_ASKING)] = None
    ctx_size: Annotated[
        int | None, _flag("--ctx-size", help="Tokens.  [what the clip needs]", panel=_ASKING, min=256)
    ] = None
    slots: Annotated[
        int | None,
        _flag("--slots", help="Tracks at once (batch).  [GPU: up to 4]", panel=_ASKING, min=1, metavar="N"),
    ] = None
    gpu_layers: Annotated[
        int | None, _flag("--gpu-layers", help="Layers on the GPU.  [as many as fit]", panel=_ASKING, min=0)
    ] = None
    threads: Annotated[int | None, _flag("--threads", help="CPU threads.", panel=_ASKING, min=1)] = None
    timeout: Annotated[float | None, _flag("--timeout", help="Seconds for one prompt.  [900]", panel=_ASKING)] = None
    retries: Annotated[
        int | None, _flag("--retries", help="Ask a refused answer again N times.  [2]", panel=_ASKING, metavar="N")
    ] = None
    max_seconds: Annotated[
        float | None, _flag("--max-seconds", help="Hear at most S seconds.  [1200]", panel=_ASKING, metavar="S")
    ] = None
    start: Annotated[
        float | None, _flag("--start", help="Hear tracks from second S on.", panel=_ASKING, metavar="S")
    ] = None
    fraction: Annotated[
        float | None, _flag("--fraction", help="Hear this share of each track.  [1]", panel=_ASKING, metavar="F")
    ] = None

    def settings(self, common: Common, datasets: Sequence[Path] = ()) -> "Settings":
        """These flags over environment, config files and defaults."""
        from musicflamingo_cli.config import load_settings

        return load_settings(self.flags(common), common.config, _one_dataset(datasets))

    def flags(self, common: Common) -> dict[str, Any]:
        """What was given on the command line, by the settings' names; None where it was not."""
        from musicflamingo_cli.config import Settings

        names = {field.name for field in dataclasses.fields(Settings)}
        given = {**dataclasses.asdict(common), **dataclasses.asdict(self)}
        return {name: value for name, value in given.items() if name in names}


def _one_dataset(datasets: Sequence[Path]) -> Path | None:
    """The dataset whose settings count: an engine is opened once, so several must have the same. Raises ConfigError."""
    from musicflamingo_cli.config import dataset_config

    files = {file for file in map(dataset_config, datasets) if file.is_file()}
    if files and len({dataset_config(dataset) for dataset in datasets}) > 1:
        raise ConfigError(f"{min(files)} counts for its own folder only", "run the command for each folder")
    return datasets[0] if files else None


def command(app: typer.Typer, name: str | None = None, **more: Any) -> Callable[[Callable[..., None]], Any]:
    """Register a command; parameters whose type is one of the dataclasses above become their options.

    Around the call: errors become a sentence and an exit code, Ctrl-C exits 130, a reader that closed its
    pipe is no error.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        parameters = inspect.signature(function).parameters
        groups: dict[str, Any] = {
            key: p.annotation for key, p in parameters.items() if dataclasses.is_dataclass(p.annotation)
        }

        @functools.wraps(function)
        def wrapper(ctx: typer.Context, **values: Any) -> None:
            for key, group in groups.items():
                values[key] = group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
            if "common" in values and isinstance(ctx.obj, Common):
                values["common"] = ctx.obj.merged_with(values["common"])
            with reporting(values.get("common", Common())):
                function(**values)

        _present(wrapper, _expanded(parameters, groups))
        app.command(name, **more)(wrapper)
        return function

    return register


def _expanded(parameters: Any, groups: dict[str, Any]) -> inspect.Signature:
    kind = inspect.Parameter.KEYWORD_ONLY
    expanded = [inspect.Parameter("ctx", kind, annotation=typer.Context)]
    expanded += [p.replace(kind=kind) for key, p in parameters.items() if key not in groups]
    for group in groups.values():
        expanded += [
            inspect.Parameter(field.name, kind, default=field.default, annotation=field.type)
            for field in dataclasses.fields(group)
        ]
    return inspect.Signature(expanded)


def console_for(common: Common, as_json: bool = False) -> "Console":
    from musicflamingo_cli.cli.console import Console

    colour = not common.no_color and "NO_COLOR" not in os.environ
    return Console(as_json=as_json, quiet=common.quiet, verbose=common.verbose, colour=colour)


@contextlib.contextmanager
def reporting(common: Common) -> Iterator[None]:
    """One table from exception to sentence and exit code; a traceback only with -v."""
    _interrupt_on_signals()
    try:
        yield
    except MusicFlamingoError as error:
        _show_traceback(common)
        console_for(common).fail(error)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        console_for(common).warn("interrupted; what was finished is saved, and the same command goes on from here")
        raise typer.Exit(EXIT_INTERRUPTED) from error
    except BrokenPipeError as error:
        sys.stderr.close()
        raise typer.Exit(EXIT_TRACK_FAILED) from error
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        _show_traceback(common)
        told = f"error: {type(error).__name__}: {error}"
        console_for(common).warn(f"{told}\n  this is a fault of ours; run it again with -v and report it")
        raise typer.Exit(EXIT_TRACK_FAILED) from error


def _interrupt_on_signals() -> None:
    """What Ctrl-C does, SIGTERM and a lost terminal do: finished work is saved, children are killed.

    A second time means now: no more waiting for anything. Children die with us (see process), and the next run
    removes what lies about.
    """
    import signal

    seen = 0

    def interrupt(number: int, frame: Any) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            if sys.stderr.isatty():
                sys.stderr.write("\x1b[?25h\n")  # the cursor, which a live bar hides
            os._exit(EXIT_INTERRUPTED)
        raise KeyboardInterrupt

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup means it
            signal.signal(number, interrupt)


def _show_traceback(common: Common) -> None:
    if common.verbose:
        import traceback

        traceback.print_exc()


def register_callback(app: typer.Typer, function: Callable[..., None]) -> None:
    """The options of Common before a command's name, too (``musicflamingo -q batch …``)."""
    parameters = dict(inspect.signature(function).parameters)
    own = {name: p for name, p in parameters.items() if name != "ctx" and p.kind is not p.VAR_KEYWORD}

    @functools.wraps(function)
    def wrapper(**values: Any) -> None:
        function(**values)

    _present(wrapper, _expanded(own, {"common": Common}))
    app.callback()(wrapper)


def _present(wrapper: Any, signature: inspect.Signature) -> None:
    """Make Typer read ``signature`` instead of the one behind functools.wraps."""
    del wrapper.__wrapped__
    wrapper.__signature__ = signature
    wrapper.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
