"""Options that several commands share, declared once, and what every command does around its work."""

# No `from __future__ import annotations` here: Typer reads the annotations as objects.

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musicflamingo_cli.choices import Attention, EngineName, Quantization
from musicflamingo_cli.cli import completion
from musicflamingo_cli.cli.command_help import CommandWithDefaults
from musicflamingo_cli.cli.reporting import reporting
from musicflamingo_cli.errors import ConfigError

if TYPE_CHECKING:  # imported when a command runs, so that --version and --help stay quick
    from musicflamingo_cli.cli.console import Console
    from musicflamingo_cli.config import Settings

_EVERYWHERE = "Everywhere"
_MODEL = "Model and sampling"


def _flag(*names: str, help: str, panel: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


_common = functools.partial(_flag, panel=_EVERYWHERE)
_model = functools.partial(_flag, panel=_MODEL)

FollowLinks = Annotated[bool, typer.Option("--follow-links", help="Follow links that lead out of the dataset.")]


@dataclasses.dataclass(frozen=True)
class Common:
    """What every command takes."""

    models_dir: Annotated[Path | None, _common("--models-dir", help="Folder of models.", metavar="DIR")] = None
    llama_dir: Annotated[Path | None, _common("--llama-dir", help="Folder of llama.cpp's binaries.", metavar="DIR")] = (
        None
    )
    config: Annotated[Path | None, _common("--config", help="Another settings file.", metavar="FILE")] = None
    verbose: Annotated[bool, _common("-v", "--verbose", help="Show details, and tracebacks of errors.")] = False
    quiet: Annotated[bool, _common("-q", "--quiet", help="Show only warnings and errors.")] = False
    no_color: Annotated[bool, _common("--no-color", help="No colours.")] = False
    plain: Annotated[bool, _common("--plain", help="Lines of text only: no live view, colours or symbols.")] = False

    def merged_with(self, other: "Common") -> "Common":
        """Return the options given before the command's name, overridden by those given after it."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return Common(**{name: theirs[name] or mine[name] for name in mine})


@dataclasses.dataclass(frozen=True)
class Json:
    """Apart from Common, since it means nothing before a command's name."""

    as_json: Annotated[bool, _common("--json", help="Data as JSON on stdout.")] = False


@dataclasses.dataclass(frozen=True)
class ModelChoice:
    """Which model, and what runs it."""

    model: Annotated[
        str | None,
        _model(
            "--model",
            help="auto, tiny, a quant (Q6_K), a checkpoint (OWNER/NAME) or a path.",
            metavar="NAME",
            autocompletion=completion.models,
        ),
    ] = None
    mmproj: Annotated[
        Path | None, _model("--mmproj", help="The projector of a --model that is a path.", metavar="PATH")
    ] = None
    engine: Annotated[EngineName | None, _model("--engine", help="What runs the model.")] = None
    lora: Annotated[Path | None, _model("--lora", help="An adapter, trained by `finetune`.", metavar="ADAPTER")] = None


@dataclasses.dataclass(frozen=True)
class Questions:
    """What is asked, and how often at most."""

    preset: Annotated[
        list[str] | None,
        _model(
            "--preset",
            "-p",
            help="A preset to ask, repeatable.  \\[default: those marked so]",
            metavar="NAME",
            autocompletion=completion.presets,
        ),
    ] = None
    transcribe: Annotated[bool, _model("--transcribe", help="Ask for lyrics and speech: --preset transcription.")] = (
        False
    )
    ask: Annotated[str | None, _model("--ask", help="Ask one free question instead of presets.", metavar="TEXT")] = None
    retries: Annotated[
        int | None, _model("--retries", help="How often to retry a refused answer with another seed.", metavar="N")
    ] = None


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How answers are sampled, and which audio they are about. Help shows the defaults of ``Settings``."""

    prompts: Annotated[Path | None, _model("--prompts", help="Another presets file.", metavar="FILE")] = None
    temperature: Annotated[
        float | None, _model("--temperature", help="Randomness of the answers; 0: always the likeliest token.")
    ] = None
    top_p: Annotated[
        float | None, _model("--top-p", help="Sample only from the likeliest tokens that add up to this probability.")
    ] = None
    repeat_penalty: Annotated[
        float | None, _model("--repeat-penalty", help="Make repeated tokens less likely; 1: do not.")
    ] = None
    seed: Annotated[int | None, _model("--seed", help="Seed of the sampling.")] = None
    ctx_size: Annotated[
        int | None, _model("--ctx-size", help="Context size in tokens.  \\[default: what the clip needs]")
    ] = None
    gpu_layers: Annotated[
        int | None, _model("--gpu-layers", help="Model layers on the GPU.  \\[default: as many as fit]")
    ] = None
    threads: Annotated[int | None, _model("--threads", help="CPU threads.  \\[default: the engine's choice]")] = None
    flash_attention: Annotated[
        bool | None,
        _model(
            "--flash-attention/--no-flash-attention",
            help="llama.cpp's faster attention; off for drivers on which it fails.  \\[default: llama.cpp's choice]",
        ),
    ] = None
    device: Annotated[
        str | None,
        _model("--device", help="torch's device, for transformers.  \\[default: the best there is]", metavar="NAME"),
    ] = None
    attention: Annotated[Attention | None, _model("--attention", help="How transformers computes attention.")] = None
    quantize: Annotated[
        Quantization | None, _model("--quantize", help="Load a checkpoint's language model with fewer bits.")
    ] = None
    keep_reasoning: Annotated[
        bool | None,
        _model("--keep-reasoning", help="Save what a model that thinks writes before its answer."),
    ] = None
    timeout: Annotated[float | None, _model("--timeout", help="Seconds to wait for an answer.")] = None
    max_seconds: Annotated[
        float | None,
        _model(
            "--max-seconds",
            help="Use at most this many seconds of each track.  \\[default: as many as the model takes]",
            metavar="S",
        ),
    ] = None
    start: Annotated[
        float | None, _model("--start", help="Skip this many seconds at the start of each track.", metavar="S")
    ] = None
    fraction: Annotated[
        float | None, _model("--fraction", help="Use this share of each track (of what follows --start).", metavar="F")
    ] = None

    def settings(self, common: Common, datasets: Sequence[Path] = ()) -> "Settings":
        """Return these flags over environment, config files and defaults."""
        from musicflamingo_cli.config import load_settings

        return load_settings(self.flags(common), common.config, _dataset_with_settings(datasets))

    def flags(self, common: Common) -> dict[str, Any]:
        """Return what was given on the command line by the settings' names; None where it was not given."""
        from musicflamingo_cli.config import Settings

        names = {field.name for field in dataclasses.fields(Settings)}
        given = {**dataclasses.asdict(common), **dataclasses.asdict(self)}
        return {name: value for name, value in given.items() if name in names}


@dataclasses.dataclass(frozen=True)
class ChatOptions(RunOptions, ModelChoice):
    """All of a command that holds a conversation."""


@dataclasses.dataclass(frozen=True)
class AskOptions(RunOptions, Questions):
    """What is asked, and how answers are sampled."""


@dataclasses.dataclass(frozen=True)
class ModelOptions(AskOptions, ModelChoice):
    """All of a command that runs one model. The options of ModelChoice come first (dataclasses: bases from the end)."""

    save_as: Annotated[
        str | None, _model("--save-as", help="Save the answer to --ask as a preset of this name.", metavar="NAME")
    ] = None
    slots: Annotated[
        int | None,
        _model("--slots", help="Tracks at once.  \\[default: by memory, up to 4 on a GPU, 1 on a CPU]", metavar="N"),
    ] = None


def _dataset_with_settings(datasets: Sequence[Path]) -> Path | None:
    """The dataset whose settings count: an engine is opened once, so several must have the same. Raises ConfigError."""
    from musicflamingo_cli.config import dataset_config

    files = {file for file in map(dataset_config, datasets) if file.is_file()}
    if files and len({dataset_config(dataset) for dataset in datasets}) > 1:
        raise ConfigError(f"{min(files)} applies to its own folder only", "run the command for each folder")
    return datasets[0] if files else None


def command(app: typer.Typer, name: str | None = None, **more: Any) -> Callable[[Callable[..., None]], Any]:
    """Register a command; parameters whose type is one of the dataclasses above become their options.

    Around the call: errors become a message and an exit code, Ctrl-C exits 130, a reader that closed its pipe is no
    error.
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
            common = values.get("common", Common())
            with reporting(common.verbose, lambda: console_for(common)):
                function(**values)

        _present(wrapper, _expanded(parameters, groups))
        app.command(name, **{"cls": CommandWithDefaults, **more})(wrapper)
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
    """Return the console that the options ask for; from then on it shows what the package logs, too."""
    from musicflamingo_cli.cli.console import Console

    is_dumb = os.environ.get("TERM") in ("dumb", "unknown")
    colour = not (common.no_color or common.plain or os.environ.get("NO_COLOR") or is_dumb)
    console = Console(as_json=as_json, quiet=common.quiet, verbose=common.verbose, colour=colour, plain=common.plain)
    console.show_logs()
    return console


def register_callback(app: typer.Typer, function: Callable[..., None]) -> None:
    """Take the options of Common before a command's name, too (``musicflamingo -q batch …``)."""
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
