"""What `caption`, `batch` and `demo` share beyond their options: which presets, who answers, what was answered."""

from collections.abc import Sequence
from pathlib import Path

from musicflamingo_cli.captioning.batch import Dataset
from musicflamingo_cli.captioning.captioner import Captioner
from musicflamingo_cli.cli.console import Console, failure_line
from musicflamingo_cli.config import Settings, prompts_files
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.prompts import Preset, choose, load_presets, require_caption_name, validate
from musicflamingo_cli.types import Outcome

TOY = (
    "TOY MODEL: it was trained on simple synthesised music alone; its words about real music mean nothing."
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


def captions_for(dataset: Path, names: list[str] | None) -> list[str]:
    """Whose captions are read: the named presets', or those of the presets that a batch would ask. Raises ConfigError.

    A name need not be a preset any more, or may be one of --save-as.
    """
    for name in names or []:
        require_caption_name(name)
    return names or [preset.name for preset in choose(load_presets(prompts_files(dataset, None)), [])]


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
    lanes = f", {engine.lanes} tracks at once" if engine.lanes > 1 else ""
    console.detail(f"engine {engine.name} (llama.cpp {engine.version}{lanes}), because {captioner.why}")
    console.detail(f"model {model.language_model}{f', because {model.why}' if model.why else ''}")
    console.detail(f"projector {model.projector}")
    if model.is_toy:
        console.warn(TOY)


def show(console: Console, outcome: Outcome, alone: bool = False) -> None:
    """Print a track's captions as data, and tell the rest; ``alone``: only the text, since nothing else was asked."""
    if alone:
        for item in outcome.captions:
            console.data(item.text)
    elif outcome.captions:
        console.data(f"{outcome.track.audio}")
        for item in outcome.captions:
            console.data(f"  {item.preset}: {item.text}")
    if outcome.skipped:
        console.say(f"skipped {outcome.track.audio}: {outcome.skipped}")
    for note in outcome.notes:
        console.say(f"{outcome.track.audio}: {note}")
    for failure in outcome.failures:
        console.warn(failure_line(outcome.track.audio, failure))
    if outcome.saved:
        console.say(f"saved: {outcome.track.sidecar}")
