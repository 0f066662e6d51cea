"""What shells offer after Tab: presets and models. Typer offers commands, options, engines and formats itself.

For files and folders nothing is offered here: the shell then does it, and quotes their names as it needs them.
"""

# No `from __future__ import annotations` here: Typer reads the annotations as objects.

import contextlib
import itertools
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musicflamingo_cli.config import Settings

Offers = list[tuple[str, str]]  # a word, and what it means

_GB = 1e9


def presets() -> Offers:
    """Return the presets in force: of --prompts, of the dataset that is named, or of this folder."""
    from musicflamingo_cli.config import load_settings
    from musicflamingo_cli.errors import MusicFlamingoError
    from musicflamingo_cli.prompts import load_presets, prompts_files

    words = _words()
    dataset = next((Path(word) for word in words[2:] if Path(word).is_dir()), Path.cwd())
    try:
        settings = load_settings({"prompts": _value(words, "--prompts")}, _value(words, "--config"), dataset)
        found = load_presets(prompts_files(dataset, settings.prompts))
    except (MusicFlamingoError, OSError):
        return []
    return [(each.name, f"{'default, ' if each.default else ''}{each.max_tokens} tokens") for each in found.values()]


def _words() -> list[str]:
    """What is on the command line. The context does not say: an option without its value ends its parsing."""
    line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS", "")
    try:
        return shlex.split(line)
    except ValueError:  # a quotation mark that is still open
        return []


def _value(words: list[str], option: str) -> Path | None:
    """Return the value of an option, which comes before what is completed."""
    found = None
    for word, after in itertools.pairwise([*(word for word in words if word != "="), ""]):  # bash splits at `=`
        if word == option:
            found = Path(after)
        elif word.startswith(f"{option}="):
            found = Path(word.removeprefix(f"{option}="))
    return found


def models() -> Offers:
    """Return the names of models: what chooses one, published quants and checkpoints, and others that are installed."""
    return [
        ("auto", "the best that fits"),
        ("tiny", "included, knows no real music"),
        *_rows("quant", "checkpoint"),
    ]


def all_models() -> Offers:
    """Return the names of ``models``, and those of MusicGen's."""
    return [*models(), *_rows("generator")]


def installed_models() -> Offers:
    """Return the names of the models that are installed."""
    return [row for row in _rows("quant", "checkpoint", "generator") if row[1].endswith(_INSTALLED)]


def generators() -> Offers:
    """Return the names of MusicGen's models."""
    return _rows("generator")


_INSTALLED = ", installed"


def _rows(*kinds: str) -> Offers:
    from musicflamingo_cli.cli.model_rows import rows_of
    from musicflamingo_cli.errors import MusicFlamingoError
    from musicflamingo_cli.llamacpp.memory import Memory

    nothing_known = Memory(free=0, total=0, where="RAM")  # asking costs a second
    with contextlib.suppress(MusicFlamingoError, OSError):
        rows = rows_of(_settings().models_folder, nothing_known)
        return list(dict.fromkeys(_offers(rows, kinds)))
    return []


def _offers(rows: list[dict[str, Any]], kinds: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for row in rows:
        name = next((row[kind] for kind in kinds if row.get(kind)), None)
        if name:
            yield name, f"{row['bytes'] / _GB:.1f} GB{_INSTALLED if row['path'] else ''}"


def _settings() -> "Settings":
    from musicflamingo_cli.config import load_settings

    words = _words()
    return load_settings({"models_dir": _value(words, "--models-dir")}, _value(words, "--config"))
