"""Checkpoints: folders of safetensors with a configuration, as Hugging Face transformers loads them.

A checkpoint comes from other people: nothing of it is executed or believed here, and its files are read up to a limit.
Neither torch nor transformers is imported.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from musicflamingo_cli.errors import ConfigError, ModelError
from musicflamingo_cli.models.catalog import FAMILY_MARK, load_catalog
from musicflamingo_cli.models.hub import cached_snapshot
from musicflamingo_cli.models.model import Checkpoint
from musicflamingo_cli.models.safetensors import require_whole
from musicflamingo_cli.types import LONGEST_SECONDS

CONFIG = "config.json"
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"  # the weights: in one file, or a list of its parts
HOW_TO_INSTALL = "pip install 'musicflamingo[transformers]'"  # what runs them

# By the `model_type` of config.json: the longest audio in seconds, where nothing else says.
AUDIO_FLAMINGO_3, MUSIC_FLAMINGO = "audioflamingo3", "musicflamingo"  # `model_type` in config.json
MAX_SECONDS = {AUDIO_FLAMINGO_3: 600.0, MUSIC_FLAMINGO: 1200.0}
MUSICGEN, MELODY = "musicgen", "musicgen_melody"  # those that make music (generators.py)
GENERATOR_TYPES = (MUSICGEN, MELODY)
_PROCESSOR, _TOKENIZER = "processor_config.json", "tokenizer_config.json"
_NEEDED = (_PROCESSOR, _TOKENIZER, "tokenizer.json")
_TEMPLATES = ("chat_template.jinja", "chat_template.json")
TINY_KEY = "musicflamingo.toy"  # in config.json, as in GGUF files: whatever shows its answers says what they are worth
# What transformers takes for a key that config.json's text_config lacks (Qwen2Config).
_QWEN2 = {
    "max_position_embeddings": 32768,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "hidden_size": 4096,
}
_BYTES_AT_BF16 = 2
_MAX_COUNT = 1 << 24  # of layers, heads, tokens: a greater number is none
_MAX_JSON = 16 << 20  # bytes
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*")


def is_checkpoint_name(name: str) -> bool:
    """Return whether a name means a checkpoint: OWNER/NAME, a published one's name, or a folder with a config.json."""
    return repository_of(name) is not None or (_is_path(name) and _holds_config(_as_path(name)))


def repository_of(name: str) -> str | None:
    """Return the repository of the hub that a checkpoint's name means; None where it means none."""
    if published := load_catalog().checkpoint(name) or load_catalog().generator(name):
        return published.repository
    return name if _REPOSITORY.fullmatch(name) and not name.endswith(".gguf") else None


def folder_for(repository: str, models_folder: Path) -> Path:
    """Return the folder of a repository's checkpoint in the models folder."""
    return models_folder / repository.replace("/", FAMILY_MARK)


def find_checkpoint(name: str, models_folder: Path) -> Path:
    """Return the folder of a checkpoint: the one at that path, else in the models folder, else in the hub's cache.

    Raises ModelError where there is none.
    """
    repository = repository_of(name)
    if repository is None or (_is_path(name) and _holds_config(_as_path(name))):
        return _as_path(name)
    own = folder_for(repository, models_folder)
    if _holds_config(own):
        return own
    if (cached := cached_snapshot(repository)) and _holds_config(cached):
        return cached
    hint = f"get it with: {_pull(repository)}"
    if not (load_catalog().checkpoint(repository) or load_catalog().generator(repository)):
        hint += f"; of a GGUF repository, name a quant: {repository}:Q6_K"
    raise ModelError(f"no checkpoint {repository} in {models_folder} or in the hub's cache", hint)


def installed_checkpoints(models_folder: Path) -> list[Path]:
    """Return the checkpoints' folders: published ones, the best first, then others in the models folder.

    Of the hub's cache, published checkpoints count whose files are all there.
    """
    found = {}
    if models_folder.is_dir():
        folders = (each for each in sorted(models_folder.iterdir()) if not each.name.startswith("."))
        found = {name_of(each): each for each in folders if _model_type(each) in MAX_SECONDS}
    names = [each.repository for each in load_catalog().checkpoints]
    for name in names:
        cached = cached_snapshot(name) if name not in found else None
        if cached is not None and _is_complete(cached):
            found[name] = cached
    ranks = {name: rank for rank, name in enumerate(names)}
    return [found[name] for name in sorted(found, key=lambda name: (ranks.get(name, len(ranks)), name))]


def name_of(folder: Path) -> str:
    """Return a checkpoint's name: its name on the hub where the folder says so, else the folder's.

    >>> name_of(Path("/models/nvidia--music-flamingo-2601-hf"))
    'nvidia/music-flamingo-2601-hf'
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100  (a link's name may say more than its target's)
    name = folder.name
    if folder.parent.name == "snapshots":  # the hub's cache: models--OWNER--NAME/snapshots/COMMIT
        name = folder.parent.parent.name.removeprefix(f"models{FAMILY_MARK}")
    repository = name.replace(FAMILY_MARK, "/", 1)
    return repository if _REPOSITORY.fullmatch(repository) else name


def check_checkpoint(folder: Path, name: str = "") -> Checkpoint:
    """Return the checkpoint in a folder, after checks that transformers makes only later. ``name``: see ``name_of``.

    All files that loading needs must be there, and the weights as long as they say that they are. Raises ModelError.
    """
    name = name or name_of(folder)
    config = read_config(folder, name)
    if missing := _missing(folder):
        raise ModelError(f"{folder} lacks {', '.join(missing)}", _again(name))
    processor = read_json(folder / _PROCESSOR)
    if not any((folder / template).is_file() for template in _TEMPLATES) and not (
        "chat_template" in processor or "chat_template" in read_json(folder / _TOKENIZER)
    ):
        raise ModelError(f"{folder} has no chat template ({_TEMPLATES[0]})", _again(name))
    published = load_catalog().checkpoint(name)
    text = config["text_config"]
    return Checkpoint(
        folder=folder,
        name=name,
        model_type=config["model_type"],
        context_length=_count(text, "max_position_embeddings", folder),
        max_seconds=_max_seconds(processor, folder)
        or (published.max_seconds if published else MAX_SECONDS[config["model_type"]]),
        is_tiny=config.get(TINY_KEY) is True,
        kv_bytes_per_token=_kv_bytes_per_token(text, folder),
        size=sum(require_whole(file, f"delete it, then: {_pull(name)}") for file in weights_of(folder)),
        reasons=published.reasons if published else "think" in name.lower(),
    )


def size_of(folder: Path) -> int:
    """Return the size of a checkpoint's weights in bytes."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors") if file.is_file())


def removable(name: str, models_folder: Path) -> Path:
    """Return the folder to delete with a checkpoint. Raises ConfigError for one that is not in the models folder."""
    folder = Path(os.path.abspath(find_checkpoint(name, models_folder)))  # noqa: PTH100  (a link is deleted itself)
    if read_json(folder / CONFIG).get("model_type") not in GENERATOR_TYPES:
        read_config(folder)
    if folder.parent.resolve() == models_folder.resolve():
        return folder
    if folder.parent.name == "snapshots":
        hint = f"other programs use it, too; delete it with: hf cache rm model/{name_of(folder)}"
        raise ConfigError(f"{folder} is in the hub's cache", hint)
    raise ConfigError(f"{folder} is not in {models_folder}", f"delete it yourself: rm -r '{folder}'")


def delete(folder: Path) -> None:
    """Delete a checkpoint's folder; an interrupt leaves nothing that is taken for a checkpoint."""
    if folder.is_symlink():
        folder.unlink()
        return
    hidden = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(hidden, ignore_errors=True)  # of an interrupted removal
    folder.rename(hidden)
    shutil.rmtree(hidden)


def read_config(folder: Path, name: str = "") -> dict[str, Any]:
    """Return a checkpoint's configuration. Raises ModelError where it is not that of a model that we can run."""
    file, name = folder / CONFIG, name or name_of(folder)
    if not folder.is_dir():
        raise ModelError(f"no checkpoint at {folder}", "list the installed models with: musicflamingo models list")
    config = read_json(file)
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in MAX_SECONDS:
        if load_catalog().generator(name):
            raise ModelError(f"{name} makes music; it writes no captions", f"musicflamingo listen --model {name}")
        raise ModelError(
            f"{name} is a checkpoint of type {_shown(kind)}; supported: {', '.join(MAX_SECONDS)}",
            "name another: musicflamingo models list",
        )
    if not isinstance(config.get("text_config"), dict):
        raise ModelError(f"{file} has no text_config", _again(name))
    return config


def _holds_config(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def _is_path(name: str) -> bool:
    """Whether it may be a path. A plain name is none: a dataset's settings may hold one, but may not name files."""
    return "/" in name or name.startswith((".", "~"))


def _as_path(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # ~somebody who does not exist
        return Path(name)


def _model_type(folder: Path) -> str:
    """Return the type of the checkpoint in a folder, also of an incomplete one; empty where there is none."""
    if not _holds_config(folder):
        return ""
    try:
        return str(read_config(folder)["model_type"])
    except ModelError:
        return ""


def _is_complete(folder: Path) -> bool:
    try:
        return _holds_config(folder) and not _missing(folder)
    except ModelError:
        return False


def _missing(folder: Path) -> list[str]:
    """Return the names of the files that loading needs and that are not there. Raises ModelError for a bad index."""
    weights = [file.name for file in weights_of(folder)] or [WHOLE]
    return [name for name in (*_NEEDED, *weights) if not (folder / name).is_file()]


def weights_of(folder: Path) -> list[Path]:
    """Return the files of the weights, as the index lists them where there is no single file."""
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    if not (folder / INDEX).is_file():
        return []
    parts = read_json(folder / INDEX).get("weight_map")
    names = set(parts.values()) if isinstance(parts, dict) and all(map(_is_part, parts.values())) else set()
    if not names:
        raise ModelError(f"{folder / INDEX} lists no parts", _again(name_of(folder)))
    return [folder / name for name in sorted(names)]


def _is_part(name: Any) -> bool:
    """Whether it is a plain file name, which leads to nowhere else."""
    return isinstance(name, str) and name.endswith(".safetensors") and not {"/", "\\", "\0"} & set(name)


def read_json(file: Path) -> dict[str, Any]:
    """Return a JSON object. Raises ModelError for anything else, and for an unreasonably large file."""
    hint = _again(name_of(file.parent))
    try:
        if not file.is_file():
            raise ModelError(f"{file.parent} lacks {file.name}", hint)
        with file.open("rb") as stream:
            data = stream.read(_MAX_JSON + 1)
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror}", "check its permissions") from error
    try:
        values = json.loads(data) if len(data) <= _MAX_JSON else None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ModelError(f"{file} is not a configuration in JSON", hint)
    return values


def _max_seconds(processor: Mapping[str, Any], folder: Path) -> float | None:
    """Return the longest audio that the processor takes, in seconds; None where it does not say."""
    value = processor.get("max_audio_len")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value < math.inf:
        raise ModelError(f"{folder / _PROCESSOR} has max_audio_len {_shown(value)}", _again(name_of(folder)))
    return float(min(value, LONGEST_SECONDS))


def _kv_bytes_per_token(text: Mapping[str, Any], folder: Path) -> int:
    """Return the memory of a token of context at bf16: a key and a value in each layer for each KV head."""
    heads = _count(text, "num_attention_heads", folder)
    key_value_heads = _count(text, "num_key_value_heads", folder)
    if text.get("head_dim") is not None:
        width = _count(text, "head_dim", folder)
    else:
        width = _count(text, "hidden_size", folder) // heads
    return _count(text, "num_hidden_layers", folder) * key_value_heads * width * 2 * _BYTES_AT_BF16


def _count(values: Mapping[str, Any], key: str, folder: Path) -> int:
    """Return a positive number of text_config. Raises ModelError for anything else."""
    value = values.get(key, _QWEN2.get(key))
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX_COUNT:
        raise ModelError(f"{folder / CONFIG} has {key} {_shown(value)}", _again(name_of(folder)))
    return value


def _shown(value: Any) -> str:
    return f"{value!r:.40}"


def _again(name: str) -> str:
    return f"get it again: {_pull(name)}"


def _pull(name: str) -> str:
    return f"musicflamingo models pull {name if repository_of(name) else 'OWNER/NAME'}"
