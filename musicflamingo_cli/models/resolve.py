"""Which GGUF pair to use: by name, by path, or the best one that lies in the models folder."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from musicflamingo_cli.config import data_file
from musicflamingo_cli.errors import ConfigError, ModelError
from musicflamingo_cli.llamacpp.memory import Memory
from musicflamingo_cli.models.catalog import FAMILY_MARK, folder_of, load_catalog, parse_name, quant_of
from musicflamingo_cli.models.gguf import GgufHeader, read_header

TINY = "tiny"  # the pair that comes with the program
_FAMILY = "musicflamingo"  # letters of the models' names, and llama.cpp's kind of projector
_SOUND = struct.pack("<Q", len("<sound>")) + b"<sound>"  # the token for audio, as GGUF's list of tokens has it
_VOCABULARY_WITHIN = 1 << 24  # bytes of a file: the lists of 150 000 tokens and their merges take some five million
_QUANT_NAME = re.compile(r"I?Q\d[A-Z0-9_]*|BF16|F16|F32", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ModelPair:
    """A language model and the projector that gives it ears, both checked to belong together."""

    language_model: Path
    projector: Path
    context_length: int  # tokens
    is_toy: bool  # it knows no real music: its captions are for looking at only
    kv_bytes_per_token: int = 0  # of memory that a token of context takes, at f16
    size: int = 0  # bytes of both files
    architecture: str = ""  # of the language model
    projector_type: str = ""
    why: str = ""  # this one, where `auto` chose it

    @property
    def label(self) -> str:
        """What sidecars call it: `gguf_Q6_K` and the like."""
        if self.is_toy:
            return f"gguf_{TINY}"
        return f"gguf_{quant_of(self.language_model) or self.language_model.stem}"


def installed(folder: Path) -> list[Path]:
    """The language models in the models folder, sorted by name; not the tiny one, which a checkout has there."""
    if not folder.is_dir():
        return []
    shipped = data_file("models", TINY).resolve()
    files = (path for path in folder.rglob("*.gguf") if path.is_file() and not path.name.startswith("."))
    files = (path for path in files if path.parent.resolve() != shipped)
    return sorted(path for path in files if "mmproj" not in path.name.lower() and "imatrix" not in path.name.lower())


def resolve(
    name: str, folder: Path, mmproj: Path | None = None, memory: Callable[[], Memory] | None = None
) -> ModelPair:
    """The pair that ``name`` means: `auto`, `tiny`, a quant, `OWNER/NAME:QUANT`, or the path of a GGUF file.

    ``memory`` is asked only where `auto` has a choice. Raises ModelError when a half is missing, damaged or of
    another model, with what to type.
    """
    language_model, why = _find_auto(folder, memory) if name == "auto" else (_find_named(name, folder), "")
    return replace(check_pair(language_model, mmproj or _find_projector(language_model)), why=why)


def _find_auto(folder: Path, memory: Callable[[], Memory] | None) -> tuple[Path, str]:
    """The best of the published quants that are here and fit; else whatever Music Flamingo is here."""
    real = published(folder)
    if not real:
        raise ModelError(
            f"no Music Flamingo in {folder}", "get the best one for this machine: musicflamingo models pull auto"
        )
    catalog = load_catalog()
    here = {quant_of(path): path for path in reversed(real)}
    known = [quant.name for quant in catalog.quants if quant.name in here]
    if not known:
        return real[0], "it is what is here"
    if len(known) == 1 or memory is None:
        return here[known[0]], "it is what is here" if len(real) == 1 else "it is the best that is here"
    quant, why = catalog.best_for(memory(), known)
    return here[quant.name], why


def published(folder: Path) -> list[Path]:
    """The models that `auto` and a plain quant's name can mean: Music Flamingo's own.

    Models folders hold other people's models, too, and a Qwen of the same width, deaf as it is, would take Music
    Flamingo's projector and answer. What has a folder of another repository is asked for by that repository's name.
    """
    here = (path for path in installed(folder) if path.parent == folder or FAMILY_MARK not in path.parent.name)
    return [path for path in here if is_music_flamingo(path)]


def is_music_flamingo(language_model: Path) -> bool:
    """Whether a file is Music Flamingo's: so it says, or it knows the token for audio and says nothing else."""
    if _FAMILY in _letters(language_model.name):
        return True
    try:
        title = _letters(str(read_header(language_model).values.get("general.name", "")))
        if _FAMILY in title or "flamingo" in title + _letters(language_model.name):  # audio-flamingo-3 is another
            return _FAMILY in title
        with language_model.open("rb") as file:
            return _SOUND in file.read(_VOCABULARY_WITHIN)
    except (ModelError, OSError):
        return False


def _letters(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower())


def _find_named(name: str, folder: Path) -> Path:
    if name == TINY:
        return tiny_language_model()
    if name.endswith(".gguf") or name.startswith((".", "/", "~")):
        path = Path(name).expanduser()
        if not path.is_file():
            raise ModelError(f"no model file at {path}", "see what is here with: musicflamingo models list")
        return path
    repository, quant = parse_name(name)
    quant = quant.upper().removeprefix("I1-")
    place = folder / folder_of(repository) if repository else folder
    if matches := [path for path in (installed if repository else published)(place) if quant_of(path) == quant]:
        return matches[0]
    if not _QUANT_NAME.fullmatch(quant):
        raise ConfigError(f"--model {name} is neither a quant nor a path", "use auto, tiny, Q6_K or a path to a .gguf")
    raise ModelError(f"no {quant} model in {place}", f"get it with: musicflamingo models pull {name}")


def tiny_language_model() -> Path:
    """The language model of the pair that comes with the program. Raises ModelError where an installation lacks it."""
    found = sorted(path for path in data_file("models", TINY).glob("*.gguf") if "mmproj" not in path.name)
    if not found:
        raise ModelError("the tiny model is missing", "install again: pip install --force-reinstall musicflamingo")
    return found[0]


def _find_projector(language_model: Path) -> Path:
    beside = sorted(language_model.parent.glob("*mmproj*.gguf"))
    if not beside:
        raise ModelError(
            f"no projector (mmproj) beside {language_model.name}; without it the model is deaf",
            f"get both with: musicflamingo models pull {quant_of(language_model) or 'auto'}; or name it with --mmproj",
        )
    own = [path for path in beside if _kind_of(path) == _FAMILY] if is_music_flamingo(language_model) else []
    return max(own or beside, key=lambda path: (_common_prefix(path.name, language_model.name), path.name))


def _kind_of(projector: Path) -> str:
    try:
        return read_header(projector).projector_type
    except ModelError:  # told of by check_pair, if it is the one that is taken
        return ""


def _common_prefix(first: str, second: str) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def files_of(name: str, folder: Path) -> list[Path]:
    """What goes when a model is removed: its file, and the projectors beside it when it is the last one there.

    Raises ConfigError for a file outside the models folder: it is not ours to delete.
    """
    if name == TINY:
        raise ConfigError("the tiny model is part of this program", "name another: musicflamingo models list")
    language_model = _find_auto(folder, None)[0] if name == "auto" else _find_named(name, folder)
    here = [path for path in installed(folder) if path.resolve() == language_model.resolve()]
    if not here:
        raise ConfigError(f"{language_model} is no model in {folder}", f"delete it yourself: rm '{language_model}'")
    file = here[0]
    beside = [path for path in file.parent.glob("*.gguf") if path in installed(file.parent)]
    if [path for path in beside if path.name != file.name]:
        return [file]
    return [file, *sorted(file.parent.glob("*mmproj*.gguf"))]


def check_pair(language_model: Path, projector: Path) -> ModelPair:
    """Fail early what llama.cpp would fail late. Raises ModelError."""
    model, ears = read_header(language_model), read_header(projector)
    if model.is_projector:
        raise ModelError(f"{language_model.name} is a projector, not a language model", "swap --model and --mmproj")
    if not ears.is_projector:
        raise ModelError(f"{projector.name} is not a projector", "name the mmproj file with --mmproj")
    if not ears.values.get("clip.has_audio_encoder"):
        raise ModelError(f"{projector.name} has no audio encoder", "name the projector of an audio model with --mmproj")
    if model.embedding_length != ears.embedding_length:
        raise ModelError(
            f"{projector.name} gives vectors {ears.embedding_length} wide, {language_model.name} takes"
            f" {model.embedding_length}: they do not belong together",
            "name the projector made for this model with --mmproj",
        )
    _require_template(model)
    size = language_model.stat().st_size + projector.stat().st_size
    return ModelPair(
        language_model,
        projector,
        model.context_length,
        model.is_toy,
        model.kv_bytes_per_token,
        size,
        model.architecture,
        ears.projector_type,
    )


def _require_template(model: GgufHeader) -> None:
    if "tokenizer.chat_template" not in model.values:
        raise ModelError(f"{model.path.name} has no chat template", "use a GGUF of an instruction-tuned model")
