"""Which model to use, a GGUF pair or a checkpoint: by name, by path, or the best one that is installed."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from musicflamingo_cli._version import __version__
from musicflamingo_cli.choices import EngineName
from musicflamingo_cli.config import Settings
from musicflamingo_cli.errors import ConfigError, ModelError, ToolMissingError
from musicflamingo_cli.llamacpp import memory as system_memory
from musicflamingo_cli.llamacpp.memory import Memory
from musicflamingo_cli.models.adapters import adapter_for
from musicflamingo_cli.models.catalog import FAMILY_MARK, best_match, folder_of, load_catalog, parse_name, quant_of
from musicflamingo_cli.models.checkpoints import (
    HOW_TO_INSTALL,
    check_checkpoint,
    find_checkpoint,
    installed_checkpoints,
    is_checkpoint_name,
)
from musicflamingo_cli.models.endpoints import resolve_remote
from musicflamingo_cli.models.gguf import GgufHeader, read_header
from musicflamingo_cli.models.model import TINY, Checkpoint, Model, ModelPair
from musicflamingo_cli.paths import checkpoint_cache_dir, data_file, expanded

_FAMILY = "musicflamingo"  # the letters in the models' names; also llama.cpp's name for the kind of projector
_SOUND = struct.pack("<Q", len("<sound>")) + b"<sound>"  # the token for audio, as in GGUF's list of tokens
_VOCABULARY_BYTES = 1 << 24  # at a file's start: the lists of 150 000 tokens and their merges take five million
_QUANT_NAME = re.compile(r"I?Q\d[A-Z0-9_]*|BF16|F16|F32", re.IGNORECASE)


def installed(folder: Path) -> list[Path]:
    """Return the language models in a models folder, sorted; without the tiny one, which a checkout has there."""
    if not folder.is_dir():
        return []
    shipped = data_file("models", TINY).resolve()
    files = (path for path in folder.rglob("*.gguf") if path.is_file() and not path.name.startswith("."))
    files = (path for path in files if path.parent.resolve() != shipped)
    return sorted(path for path in files if "mmproj" not in path.name.lower() and "imatrix" not in path.name.lower())


def resolve_model(settings: Settings) -> Model:
    """Return the model that the settings name: an endpoint's, a GGUF pair, or the checkpoint that they ask for.

    `auto` looks at the available memory, and means a checkpoint where no Music Flamingo in GGUF is installed. Raises
    as ``resolve`` and ``resolve_checkpoint`` do, and ModelError for an adapter of another model.
    """
    if settings.endpoint:
        return resolve_remote(settings)
    model = _resolve_here(settings)
    return model if settings.lora is None else replace(model, adapter=adapter_for(model, settings.lora))


def _resolve_here(settings: Settings) -> ModelPair | Checkpoint:
    """The model without its adapter."""
    name, folder = settings.model, settings.models_folder
    if settings.engine == EngineName.TRANSFORMERS or is_checkpoint_name(name):
        return resolve_checkpoint(name, folder)
    try:
        return resolve(
            name,
            folder,
            settings.mmproj,
            lambda: system_memory.available(settings.llama_dir, settings.gpu_layers, settings.gpus),
        )
    except ModelError:
        if (
            name != "auto"
            or settings.engine != EngineName.AUTO
            or published(folder)
            or not installed_checkpoints(folder)
        ):
            raise
    return replace(resolve_checkpoint(name, folder), reason="no GGUF model is installed")


def resolve(
    name: str, folder: Path, mmproj: Path | None = None, memory: Callable[[], Memory] | None = None
) -> ModelPair:
    """Return the pair that ``name`` means: `auto`, `tiny`, a quant, `OWNER/NAME:QUANT`, or a path to a GGUF file.

    ``folder`` is the models folder, ``mmproj`` the projector where it is not the one beside the model. ``memory`` is
    called only where `auto` has a choice. Raises ConfigError for a name that means nothing, ModelError where a file is
    missing, damaged or of another model.
    """
    language_model, reason = _find_auto(folder, memory) if name == "auto" else (_find_named(name, folder), "")
    return replace(check_pair(language_model, mmproj or _find_projector(language_model)), reason=reason)


def resolve_checkpoint(name: str, folder: Path) -> Checkpoint:
    """Return the checkpoint that ``name`` means: `auto`, `tiny`, a name (see ``is_checkpoint_name``) or a path.

    ``folder`` is the models folder. Raises ConfigError for a name of something else, ModelError where a file is missing
    or damaged, ToolMissingError where `tiny` cannot be made without the extra `transformers`.
    """
    if name == TINY:
        return check_checkpoint(_tiny_checkpoint(), f"musicflamingo-{TINY}")
    if name == "auto":
        found = installed_checkpoints(folder)
        if not found:
            hint = f"get the best one for music: musicflamingo models pull {load_catalog().checkpoints[0].repository}"
            raise ModelError(f"no checkpoint in {folder}", hint)
        reason = "no other is installed" if len(found) == 1 else "it is the best that is installed"
        return replace(check_checkpoint(found[0]), reason=reason)
    hint = "leave --engine out, or name a checkpoint: musicflamingo models list"
    if name.endswith(".gguf") or _QUANT_NAME.fullmatch(name.rpartition(":")[2].removeprefix("i1-")):
        raise ConfigError(f"{name} is a GGUF model, which runs under llama.cpp only", hint)
    if not is_checkpoint_name(name) and not _is_path(name):
        raise ConfigError(f"--model {name} is neither a checkpoint nor a path", hint)
    return check_checkpoint(find_checkpoint(name, folder))


def _tiny_checkpoint() -> Path:
    """Return the folder of the tiny model's checkpoint, which is made from the GGUF pair when it is first needed."""
    language_model = tiny_language_model()
    pair = (language_model, _find_projector(language_model))
    digest = hashlib.sha256(__version__.encode())
    for file in pair:
        data = file.read_bytes()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    folder = checkpoint_cache_dir() / f"musicflamingo-{TINY}-{digest.hexdigest()[:12]}"
    try:
        from musicflamingo_cli.models.tiny_checkpoint import write_checkpoint

        write_checkpoint(*pair, folder)
    except ImportError as error:
        package = error.name or "a package"
        raise ToolMissingError(f"the tiny model's checkpoint needs {package}", HOW_TO_INSTALL) from error
    except OSError as error:
        problem = f"cannot write the tiny model's checkpoint {folder}: {error.strerror or error}"
        raise ModelError(problem, "make room, or set XDG_CACHE_HOME") from error
    return folder


def _find_auto(folder: Path, memory: Callable[[], Memory] | None) -> tuple[Path, str]:
    """Return the best published quant that is installed and fits, else any installed Music Flamingo; and the reason."""
    candidates = published(folder)
    if not candidates:
        raise ModelError(
            f"no Music Flamingo in {folder}", "get the best one for this machine: musicflamingo models pull auto"
        )
    catalog = load_catalog()
    by_quant = {quant_of(path): path for path in reversed(candidates)}
    known = [quant.name for quant in catalog.quants if quant.name in by_quant]
    if not known:
        return candidates[0], "no quant of the catalog is installed"
    if len(known) == 1 or memory is None:
        reason = "no other is installed" if len(candidates) == 1 else "it is the best that is installed"
        return by_quant[known[0]], reason
    quant, reason = catalog.best_for(memory(), known)
    return by_quant[quant.name], reason


def published(folder: Path) -> list[Path]:
    """Return the models that `auto` and a plain quant's name can mean: Music Flamingo's own.

    A models folder may also hold unrelated models, and a Qwen of the same width, which cannot process audio, would
    accept Music Flamingo's projector and answer. Models of other repositories are named with their repository.
    """
    own = (path for path in installed(folder) if path.parent == folder or FAMILY_MARK not in path.parent.name)
    return [path for path in own if is_music_flamingo(path)]


def is_music_flamingo(language_model: Path) -> bool:
    """Return whether a file is Music Flamingo, by its name, its title, or a token for audio and no other name."""
    if _FAMILY in _letters(language_model.name):
        return True
    try:
        title = _letters(str(read_header(language_model).values.get("general.name", "")))
        if _FAMILY in title or "flamingo" in title + _letters(language_model.name):  # audio-flamingo-3 is another model
            return _FAMILY in title
        with language_model.open("rb") as file:
            return _SOUND in file.read(_VOCABULARY_BYTES)
    except (ModelError, OSError):
        return False


def _letters(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower())


def _find_named(name: str, folder: Path) -> Path:
    """Return the language model that a name other than `auto` means. Raises ConfigError and ModelError."""
    if name == TINY:
        return tiny_language_model()
    if name.endswith(".gguf") or _is_path(name):
        path = expanded(name)
        if path.is_dir():
            raise ModelError(f"{path} holds no checkpoint (no config.json)", "name a checkpoint or a .gguf file")
        if not path.is_file():
            raise ModelError(f"no model file at {path}", "list the installed models with: musicflamingo models list")
        return path
    repository, quant = parse_name(name)
    place = folder / folder_of(repository) if repository else folder
    if found := best_match((installed if repository else published)(place), quant):
        return found
    quant = quant.upper()
    if not _QUANT_NAME.fullmatch(quant.removeprefix("I1-")):
        raise ConfigError(f"--model {name} is neither a quant nor a path", "use auto, tiny, Q6_K or a path to a .gguf")
    raise ModelError(f"no {quant} model in {place}", f"get it with: musicflamingo models pull {name}")


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~"))


def tiny_language_model() -> Path:
    """Return the language model of the pair that comes with the program. Raises ModelError where it is missing."""
    found = sorted(path for path in data_file("models", TINY).glob("*.gguf") if "mmproj" not in path.name)
    if not found:
        raise ModelError("the tiny model is missing", "install again: pip install --force-reinstall musicflamingo")
    return found[0]


def _find_projector(language_model: Path) -> Path:
    """Return the projector beside a model: of the same kind, with the most similar name. Raises ModelError."""
    beside = sorted(language_model.parent.glob("*mmproj*.gguf"))
    if not beside:
        raise ModelError(
            f"no projector (mmproj) beside {language_model.name}; the model cannot process audio without it",
            f"get both with: musicflamingo models pull {quant_of(language_model) or 'auto'}; or name it with --mmproj",
        )
    own = [path for path in beside if _kind_of(path) == _FAMILY] if is_music_flamingo(language_model) else []
    return max(own or beside, key=lambda path: (_common_prefix(path.name, language_model.name), path.name))


def _kind_of(projector: Path) -> str:
    try:
        return read_header(projector).projector_type
    except ModelError:  # check_pair reports it, if it is the one that is chosen
        return ""


def _common_prefix(first: str, second: str) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def files_of(name: str, folder: Path) -> list[Path]:
    """Return the files to remove with a model: its own, and its projector when it is the last model there.

    Raises ConfigError for the tiny model and for a file outside the models folder, which we must not delete.
    """
    if name == TINY:
        raise ConfigError("the tiny model is part of this program", "name another: musicflamingo models list")
    language_model = _find_auto(folder, None)[0] if name == "auto" else _find_named(name, folder)
    found = [path for path in installed(folder) if path.resolve() == language_model.resolve()]
    if not found:
        raise ConfigError(f"{language_model} is not in {folder}", f"delete it yourself: rm '{language_model}'")
    file = found[0]
    beside = [path for path in file.parent.glob("*.gguf") if path in installed(file.parent)]
    if [path for path in beside if path.name != file.name]:
        return [file]
    try:
        check_pair(file, projector := _find_projector(file))
    except ModelError:  # a projector beside it, if any, is another model's
        return [file]
    return [file, projector]


def check_pair(language_model: Path, projector: Path) -> ModelPair:
    """Return the pair, after checks that llama.cpp makes only later. Raises ModelError."""
    model, encoder = read_header(language_model), read_header(projector)
    if model.is_projector:
        raise ModelError(f"{language_model.name} is a projector, not a language model", "swap --model and --mmproj")
    if not encoder.is_projector:
        raise ModelError(f"{projector.name} is not a projector", "name the mmproj file with --mmproj")
    if not encoder.values.get("clip.has_audio_encoder"):
        raise ModelError(f"{projector.name} has no audio encoder", "name the projector of an audio model with --mmproj")
    if model.embedding_length != encoder.embedding_length:
        raise ModelError(
            f"{projector.name} outputs vectors {encoder.embedding_length} wide, {language_model.name} takes"
            f" {model.embedding_length}: they do not belong together",
            "name the projector made for this model with --mmproj",
        )
    _require_template(model)
    size = language_model.stat().st_size + projector.stat().st_size
    return ModelPair(
        language_model=language_model,
        projector=projector,
        context_length=model.context_length,
        is_tiny=model.is_tiny,
        kv_bytes_per_token=model.kv_bytes_per_token,
        size=size,
        architecture=model.architecture,
        projector_type=encoder.projector_type,
    )


def _require_template(model: GgufHeader) -> None:
    if "tokenizer.chat_template" not in model.values:
        raise ModelError(f"{model.path.name} has no chat template", "use a GGUF of an instruction-tuned model")
