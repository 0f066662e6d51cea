"""Which presets a command asks or reads, from its options and the prompts files in force."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from musicflamingo_cli.captioning.batch import Dataset
from musicflamingo_cli.cli.options import AskOptions, Common, ModelOptions
from musicflamingo_cli.config import Settings, load_settings
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.prompts import Preset, choose, free_question, load_presets, prompts_files, require_caption_name

_FREE_QUESTION = "ask"  # the name of an unsaved --ask in the output
_TRANSCRIPTION = "transcription"  # the preset that --transcribe asks


def presets_to_ask(
    options: AskOptions, settings: Settings, dataset: Path | None, save_as: str | None = None
) -> list[Preset]:
    """Return the presets to ask about a dataset. Raises ConfigError for unknown names and contradictions.

    ``save_as``: the name under which the answer to --ask is saved, if it is.
    """
    if options.transcribe and (options.preset or options.ask is not None):
        raise ConfigError("--transcribe excludes --preset and --ask", f"name both: -p full -p {_TRANSCRIPTION}")
    if options.ask is None:
        if save_as is not None:
            raise ConfigError("--save-as names an --ask question", "add --ask 'your question'")
        names = [_TRANSCRIPTION] if options.transcribe else options.preset or []
        return choose(load_presets(prompts_files(dataset, settings.prompts)), names)
    if options.preset:
        raise ConfigError("--ask and --preset exclude each other", "leave one of them out")
    return [free_question(options.ask, save_as or _FREE_QUESTION)]


def presets_files(common: Common, folder: Path, explicit: Path | None = None) -> list[Path]:
    """Return the presets files in force for a folder, that of the settings included; ``explicit``: of --prompts."""
    return prompts_files(folder, load_settings({"prompts": explicit}, common.config, folder).prompts)


def presets_to_read(files: Sequence[Path], names: list[str] | None, also: Sequence[str] = ()) -> list[str]:
    """Return whose captions are read: the named presets', or those that a batch would ask. Raises ConfigError.

    ``files``: see ``presets_files``. A name need not be a preset any more, may be one of --save-as, or one of ``also``.
    """
    for name in names or []:
        if name not in also:
            require_caption_name(name)
    return names or [preset.name for preset in choose(load_presets(files), [])]


def datasets_to_ask(options: ModelOptions, settings: Settings, folders: Sequence[Path]) -> list[Dataset]:
    """Return the folders with their presets; a folder may have presets of its own. Raises ConfigError."""
    return [Dataset(folder, presets_to_ask(options, settings, folder, options.save_as)) for folder in folders]


def require_files(paths: Sequence[Path]) -> None:
    """Raise ConfigError for the first path that is not a file."""
    require_existing(paths, "file")
    for path in paths:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder", f"caption it with: musicflamingo batch '{path}'")


def require_existing(paths: Sequence[Path], kind: str) -> None:
    """Raise ConfigError for the first path that does not exist; ``kind`` is `file` or `folder`."""
    for path in paths:
        if not path.exists():
            raise ConfigError(f"no such {kind}: {path}", "check the path")
