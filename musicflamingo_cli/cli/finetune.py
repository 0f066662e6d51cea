"""`musicflamingo finetune`: train an adapter on captions that a person approved."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musicflamingo_cli.choices import Quantization
from musicflamingo_cli.cli import app, completion
from musicflamingo_cli.cli.options import Common, FollowLinks, Json, command, console_for
from musicflamingo_cli.errors import ConfigError

if TYPE_CHECKING:
    from musicflamingo_cli.finetuning.plan import TrainingSettings

_TRAINING = "Training"


def _training(name: str, help: str, **more: Any) -> Any:
    return typer.Option(name, help=help, rich_help_panel=_TRAINING, show_default=False, **more)


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """How an adapter is trained; what is not given has the default of ``TrainingSettings``."""

    rate: Annotated[float | None, _training("--rate", "The highest learning rate.  \\[default: 1e-4]", metavar="R")] = (
        None
    )
    rank: Annotated[int | None, _training("--rank", "Rank of the matrices.  \\[default: 16]", metavar="N")] = None
    epochs: Annotated[int | None, _training("--epochs", "Epochs at most.  \\[default: 10]", metavar="N")] = None
    batch: Annotated[
        int | None, _training("--batch", "Captions before each change of the weights.  \\[default: 8]", metavar="N")
    ] = None
    patience: Annotated[
        int | None,
        _training("--patience", "Stop after so many epochs without a lower validation loss.  \\[default: 2]"),
    ] = None
    validation: Annotated[
        float | None,
        _training("--validation", "Share of the tracks to validate on, not to train on.  \\[default: 0.1]"),
    ] = None
    projector: Annotated[
        bool, _training("--projector", "Train the projector, too; such an adapter runs in transformers only.")
    ] = False
    cache_gb: Annotated[
        float | None, _training("--cache-gb", "Disk space for encoded audio.  \\[default: 20]", metavar="GB")
    ] = None

    def settings(self, seed: int | None) -> "TrainingSettings":
        """Return the settings of the training. Raises ConfigError for a value out of range."""
        from musicflamingo_cli.finetuning.plan import LIMITS, TrainingSettings

        given: dict[str, Any] = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        for name, value in given.items():
            low, high = LIMITS.get(name, (value, value))
            if not low <= value <= high:
                option = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{option} must be between {low:g} and {high:g}", f"for example: {option} {low:g}")
        given |= {} if seed is None else {"seed": seed}
        return TrainingSettings(**given)


# Long, as its parameters are the command's options.
@command(app)
def finetune(
    folders: Annotated[list[Path], typer.Argument(help="Reviewed datasets, searched recursively.", metavar="DIR")],
    out: Annotated[Path, typer.Option("--out", help="The adapter's folder.", metavar="ADAPTER")],
    training: TrainingOptions,
    common: Common,
    json: Json,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="The checkpoint to train on.  \\[default: auto]",
            show_default=False,
            autocompletion=completion.models,
        ),
    ] = "auto",
    preset: Annotated[
        list[str] | None,
        typer.Option(
            "--preset",
            "-p",
            help="Whose captions, repeatable.  \\[default: those marked so]",
            autocompletion=completion.presets,
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Also captions that nobody approved or edited.")] = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the training.  \\[default: 42]")] = None,
    max_seconds: Annotated[
        float | None, typer.Option("--max-seconds", help="Use at most this many seconds of each track.", metavar="S")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="torch's device.  \\[default: the best there is]", metavar="NAME")
    ] = None,
    gpus: Annotated[
        str | None, typer.Option("--gpus", help="Train on several GPUs: all, or numbers: 0,1.", metavar="LIST")
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", help="CPU threads.", min=1)] = None,
    quantize: Annotated[
        Quantization, typer.Option("--quantize", help="Load the base model with fewer bits.", show_default=False)
    ] = Quantization.NONE,
    memory_check: Annotated[
        bool, typer.Option("--memory-check/--no-memory-check", help="Refuse what will not fit into memory.")
    ] = True,
    restart: Annotated[bool, typer.Option("--restart", help="Discard an unfinished training.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the adapter at --out.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be trained; train nothing.")] = False,
    follow_links: FollowLinks = False,
) -> None:
    """Train an adapter on the captions that a person approved or edited, for use with --lora.

    The base model stays as it is. An interrupted training continues with the same command.
    """
    from musicflamingo_cli.cli.presets import require_existing
    from musicflamingo_cli.cli.training_run import TrainingRun
    from musicflamingo_cli.config import load_settings

    console = console_for(common, json.as_json)
    require_existing(folders, "folder")
    flags = {"models_dir": common.models_dir, "llama_dir": common.llama_dir, "max_seconds": max_seconds}
    settings = load_settings({**flags, "device": device, "gpus": gpus, "threads": threads}, common.config)
    run = TrainingRun(
        console=console,
        settings=dataclasses.replace(settings, model=model, quantize=quantize),
        training=training.settings(seed),
        folders=folders,
        out=out,
        preset_names=preset or [],
        takes_all=every,
        follow_links=follow_links,
        checks_memory=memory_check,
    )
    run.start(restart=restart, overwrite=overwrite, dry_run=dry_run)
