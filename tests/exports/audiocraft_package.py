"""audiocraft's own dataset and conditioner, where the package is installed (`pip install --no-deps audiocraft`).

It pins torch 2.1 and packages that do not exist for current ones. Its dataset and conditioners need little of that:
what is missing of the rest is replaced by empty modules, and the package's front, which imports all of it, is left out.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

# What reads no dataset: phonetics, a language's words, chroma, distribution, attention on a GPU, loudness.
_REPLACED = ("spacy", "librosa", "flashy", "flashy.distrib", "xformers", "torchaudio")
_NEEDED = ("torch", "transformers", "av", "soundfile", "julius", "einops", "num2words", "omegaconf")


@dataclass(frozen=True, slots=True)
class Audiocraft:
    """The two modules."""

    music_dataset: Any
    conditioners: Any


@functools.cache
def audiocraft() -> Audiocraft:
    """Import audiocraft's dataset and conditioners, or skip the test."""
    spec = importlib.util.find_spec("audiocraft")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("audiocraft is not installed")
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        pytest.skip(f"audiocraft needs {', '.join(missing)}")
    importlib.import_module("transformers")  # before the empty modules: it looks which packages there are
    front = types.ModuleType("audiocraft")
    front.__path__ = [str(Path(each)) for each in spec.submodule_search_locations]
    empty = [name for name in _REPLACED if importlib.util.find_spec(name.partition(".")[0]) is None]
    sys.modules |= {"audiocraft": front, **{name: MagicMock() for name in empty}}
    try:
        return Audiocraft(
            music_dataset=importlib.import_module("audiocraft.data.music_dataset"),
            conditioners=importlib.import_module("audiocraft.modules.conditioners"),
        )
    finally:
        for name in empty:  # other tests must not find them
            del sys.modules[name]
