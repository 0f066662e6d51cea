"""The songs that come with the tiny model, and what is true of them: `demo`, `doctor` and tests know right words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from musicflamingo_cli.config import data_file
from musicflamingo_cli.errors import ModelError
from musicflamingo_cli.models.resolve import TINY


@dataclass(frozen=True, slots=True)
class Song:
    """``truth``: tempo, key, lead, bass and drums, in the words that the tiny model has for them, and the structure."""

    path: Path
    truth: Mapping[str, str]

    def missed(self, words: str, names: Sequence[str] = ("tempo", "key", "lead", "bass", "drums")) -> list[str]:
        """What of these is true of the song and is not said in ``words``."""
        return [self.truth[name] for name in names if self.truth[name] not in words]


def songs() -> list[Song]:
    """Made by ``tiny_flamingo/songs.py``; the same in every installation. Raises ModelError where it lacks them."""
    folder = data_file("models", TINY, "songs")
    try:
        truths = json.loads((folder / "songs.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        hint = "install again: pip install --force-reinstall musicflamingo"
        raise ModelError(f"the tiny model's songs are missing ({error})", hint) from error
    return [Song(folder / name, truth) for name, truth in truths.items()]
