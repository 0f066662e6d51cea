"""Captions for music libraries: NVIDIA's Music Flamingo under llama.cpp or transformers, written into `.INFO` sidecars.

What a program may use: ``MusicFlamingoGGUF`` and ``MusicFlamingoTransformers`` ask the model; ``normalize_text``,
``read_sidecar``, ``merge_sidecar`` and ``find_tracks`` are the parts that other tools want. Each is imported when it is
first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from musicflamingo_cli._version import __version__

if TYPE_CHECKING:
    from musicflamingo_cli.api import Analysis, AnalysisError, MusicFlamingoGGUF, MusicFlamingoTransformers
    from musicflamingo_cli.captioning.conversation import Chat
    from musicflamingo_cli.dataset.tracks import find_tracks
    from musicflamingo_cli.errors import (
        AnswerCancelledError,
        AnswerError,
        ConfigError,
        ModelError,
        MusicFlamingoError,
        ToolMissingError,
    )
    from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar
    from musicflamingo_cli.text.cleaning import normalize_text
    from musicflamingo_cli.types import Failure, Skipped, Track

__all__ = [
    "Analysis",
    "AnalysisError",
    "AnswerCancelledError",
    "AnswerError",
    "Chat",
    "ConfigError",
    "Failure",
    "ModelError",
    "MusicFlamingoError",
    "MusicFlamingoGGUF",
    "MusicFlamingoTransformers",
    "Skipped",
    "ToolMissingError",
    "Track",
    "__version__",
    "find_tracks",
    "merge_sidecar",
    "normalize_text",
    "read_sidecar",
]
_PUBLIC = {
    "Analysis": "api",
    "AnalysisError": "api",
    "AnswerCancelledError": "errors",
    "AnswerError": "errors",
    "Chat": "captioning.conversation",
    "ConfigError": "errors",
    "Failure": "types",
    "ModelError": "errors",
    "MusicFlamingoError": "errors",
    "MusicFlamingoGGUF": "api",
    "MusicFlamingoTransformers": "api",
    "Skipped": "types",
    "ToolMissingError": "errors",
    "Track": "types",
    "find_tracks": "dataset.tracks",
    "merge_sidecar": "sidecars.merge",
    "normalize_text": "text.cleaning",
    "read_sidecar": "sidecars.merge",
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
