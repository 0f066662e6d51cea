"""Checkpoints that make music from text (MusicGen), for `listen`: found, checked and listed like those that caption.

Neither torch nor transformers is imported; nothing of a checkpoint is executed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musicflamingo_cli.errors import ModelError, shown
from musicflamingo_cli.models.catalog import load_catalog
from musicflamingo_cli.models.checkpoints import (
    CONFIG,
    GENERATOR_TYPES,
    MELODY,
    find_checkpoint,
    name_of,
    read_json,
    repository_of,
    weights_of,
)
from musicflamingo_cli.models.hub import cached_snapshot
from musicflamingo_cli.models.safetensors import require_whole
from musicflamingo_cli.paths import expanded
from musicflamingo_cli.system.identity import digest

_NEEDED = ("tokenizer.json", "tokenizer_config.json")
_WHOLE = "model.safetensors"
_RATES = (8_000, 192_000)  # Hz; beyond them a configuration is damaged


@dataclass(frozen=True, slots=True)
class Generator:
    """A MusicGen checkpoint.

    ``rate``: of its audio, in Hz. ``channels``: 1 or 2. ``size``: of its weights, in bytes. ``identity``: a hash of
    parts of its files, which tells checkpoints of one name apart.
    """

    folder: Path
    name: str
    model_type: str
    rate: int
    channels: int
    size: int
    licence: str = ""
    identity: str | None = None

    @property
    def takes_melody(self) -> bool:
        """Whether a clip can follow the melody of other audio."""
        return self.model_type == MELODY

    def as_json(self) -> dict[str, Any]:
        """Return the row of `models check`."""
        return {
            "model": str(self.folder),
            "good": True,
            "generator": self.name,
            "architecture": self.model_type,
            "rate": self.rate,
            "channels": self.channels,
            "licence": self.licence or None,
        }


def resolve_generator(name: str, models_folder: Path) -> Generator:
    """Return the generator of that name: a published one's, OWNER/NAME, or a folder. Raises ModelError."""
    if repository_of(name) is None and not expanded(name).is_dir():
        known = ", ".join(each.repository for each in load_catalog().generators)
        raise ModelError(f"no generator {name}", f"name a folder, or one of {known}")
    return check_generator(find_checkpoint(name, models_folder))


def is_generator(folder: Path) -> bool:
    """Return whether a folder holds the configuration of a generator."""
    if not (folder / CONFIG).is_file():
        return False
    try:
        return read_json(folder / CONFIG).get("model_type") in GENERATOR_TYPES
    except ModelError:
        return False


def is_generator_name(name: str, models_folder: Path) -> bool:
    """Return whether a name or path means a generator, installed or published."""
    if load_catalog().generator(name):
        return True
    try:
        return is_generator(find_checkpoint(name, models_folder))
    except ModelError:
        return False


def check_generator(folder: Path, name: str = "") -> Generator:
    """Return the generator in a folder, all of whose files are there and whole. Raises ModelError."""
    name = name or name_of(folder)
    again = f"get it again: musicflamingo models pull {name if repository_of(name) else 'OWNER/NAME'}"
    config = read_json(folder / CONFIG)
    kind = config.get("model_type")
    if kind not in GENERATOR_TYPES:
        hint = f"name one of {', '.join(each.repository for each in load_catalog().generators)}"
        raise ModelError(f"{name} is a checkpoint of type {shown(kind)}; listen needs one of musicgen", hint)
    weights = weights_of(folder)
    missing = [each for each in (*_NEEDED, *([] if weights else [_WHOLE])) if not (folder / each).is_file()]
    if missing := missing + [each.name for each in weights if not each.is_file()]:
        raise ModelError(f"{folder} lacks {', '.join(missing)}", again)
    audio, decoder = config.get("audio_encoder"), config.get("decoder")
    rate = audio.get("sampling_rate", 24_000) if isinstance(audio, dict) else None
    channels = decoder.get("audio_channels", 1) if isinstance(decoder, dict) else None
    if not isinstance(rate, int) or not _RATES[0] <= rate <= _RATES[1] or channels not in (1, 2):
        raise ModelError(f"{folder / CONFIG} has rate {shown(rate)} and channels {shown(channels)}", again)
    published = load_catalog().generator(name)
    return Generator(
        folder=folder,
        name=name,
        model_type=str(kind),
        rate=rate,
        channels=int(channels),
        size=sum(require_whole(file, f"delete it, then {again}") for file in weights),
        licence=published.licence if published else "",
        identity=digest([folder / CONFIG, *weights]),
    )


def installed_generators(models_folder: Path) -> list[Path]:
    """Return the generators' folders: those in the models folder, and published ones in the hub's cache."""
    found: dict[str, Path] = {}
    if models_folder.is_dir():
        folders = (each for each in sorted(models_folder.iterdir()) if not each.name.startswith("."))
        found = {name_of(each): each for each in folders if is_generator(each)}
    for published in load_catalog().generators:
        cached = cached_snapshot(published.repository) if published.repository not in found else None
        if cached is not None and is_generator(cached) and weights_of(cached):
            found[published.repository] = cached
    return list(found.values())
