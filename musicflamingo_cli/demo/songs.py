"""The songs that come with the tiny model, with their known attributes, for `demo`, `doctor` and tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from musicflamingo_cli.errors import ModelError
from musicflamingo_cli.models.model import TINY
from musicflamingo_cli.paths import data_file


@dataclass(frozen=True, slots=True)
class Song:
    """A song. ``truth``: its tempo, key, lead, bass, drums and structure, as the tiny model phrases them."""

    path: Path
    truth: Mapping[str, str]

    def missed(self, text: str, names: Sequence[str] = ("tempo", "key", "lead", "bass", "drums")) -> list[str]:
        """Return the values of these attributes that ``text`` does not mention."""
        return [self.truth[name] for name in names if self.truth[name] not in text]


def songs() -> list[Song]:
    """Return the songs, made by ``tiny_flamingo/songs.py``. Raises ModelError where they are missing."""
    folder = data_file("models", TINY, "songs")
    try:
        truths = json.loads((folder / "songs.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        hint = "install again: pip install --force-reinstall musicflamingo"
        raise ModelError(f"the tiny model's songs are missing ({error})", hint) from error
    return [Song(folder / name, truth) for name, truth in truths.items()]
