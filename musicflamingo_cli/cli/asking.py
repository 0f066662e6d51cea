"""What `caption`, `batch` and `demo` share beyond their options: which presets, and the warning about noise."""

from collections.abc import Sequence
from pathlib import Path

from musicflamingo_cli.batch import Dataset
from musicflamingo_cli.captioner import Captioner
from musicflamingo_cli.config import Settings, prompts_files
from musicflamingo_cli.console import Console
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.prompts import Preset, choose, load_presets, validate

NOISE = (
    "NOISE: the tiny model has random weights; its words say nothing about the music."
    " For real captions use a real model: musicflamingo models list"
)
_FREE_QUESTION = "ask"  # the name of an unsaved --ask in the output


def presets_for(
    dataset: Path | None, settings: Settings, names: list[str] | None, question: str | None, save_as: str | None
) -> list[Preset]:
    """The presets to ask about a dataset. Raises ConfigError for unknown names and contradictions."""
    if question is None:
        if save_as is not None:
            raise ConfigError("--save-as names an --ask question", "add --ask 'your question'")
        return choose(load_presets(prompts_files(dataset, settings.prompts)), names or [])
    if names:
        raise ConfigError("--ask and --preset exclude each other", "leave one of them out")
    return [validate(Preset(save_as or _FREE_QUESTION, question, min_words=1), Path("--ask"))]


def datasets_for(
    folders: Sequence[Path], settings: Settings, names: list[str] | None, question: str | None, save_as: str | None
) -> list[Dataset]:
    """The folders with their presets; a folder may bring presets of its own. Raises ConfigError."""
    for folder in folders:
        if not folder.exists():
            raise ConfigError(f"no such folder: {folder}", "check the path")
    return [Dataset(folder, presets_for(folder, settings, names, question, save_as)) for folder in folders]


def announce(console: Console, captioner: Captioner) -> None:
    """Say once who answers; louder when it is a model that knows nothing."""
    engine, model = captioner.engine, captioner.model
    console.detail(
        f"engine {engine.name} (llama.cpp {engine.version}), model {model.language_model}, projector {model.projector}"
    )
    if model.is_noise:
        console.warn(NOISE)
