"""Which GGUF pair to use: by name, by path, or the best one that lies in the models folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from musicflamingo_cli import tiny_model
from musicflamingo_cli.errors import ConfigError, ModelError
from musicflamingo_cli.gguf_header import GgufHeader, read_header

TINY = "tiny"
HUB_REPOSITORY = "mradermacher/music-flamingo-hf-GGUF"
HUB_PROJECTOR = "music-flamingo-hf.mmproj-f16.gguf"
# The quants known to be published, the recommended one first; what `auto` prefers, in this order.
QUANTS = ("Q6_K", "Q8_0", "Q4_K_M", "IQ3_M")

_QUANT = re.compile(r"(?:^|[.\-_])((?:I?Q\d[A-Z0-9_]*)|BF16|F16|F32)(?=\.gguf$|[.\-])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ModelPair:
    """A language model and the projector that gives it ears, both checked to belong together."""

    language_model: Path
    projector: Path
    context_length: int  # tokens
    is_noise: bool  # random weights: its answers are noise
    kv_bytes_per_token: int = 0  # of memory that a token of context takes, at f16
    size: int = 0  # bytes of both files

    @property
    def label(self) -> str:
        """What sidecars call it: `gguf_Q6_K` and the like."""
        if self.is_noise:
            return "gguf_tiny_noise"
        return f"gguf_{quant_of(self.language_model) or self.language_model.stem}"


def quant_of(path: Path) -> str:
    """The quant in a GGUF file's name, upper case, or an empty string.

    >>> quant_of(Path("music-flamingo-hf.i1-IQ3_M.gguf"))
    'IQ3_M'
    """
    match = _QUANT.search(path.name)
    return match[1].upper() if match else ""


def installed(folder: Path) -> list[Path]:
    """The language models in the models folder, sorted by name."""
    if not folder.is_dir():
        return []
    files = (path for path in folder.rglob("*.gguf") if not path.name.startswith("."))
    return sorted(path for path in files if "mmproj" not in path.name.lower() and "imatrix" not in path.name.lower())


def resolve(name: str, folder: Path, mmproj: Path | None = None) -> ModelPair:
    """The pair that ``name`` means: `auto`, `tiny`, a quant's name, or the path of a GGUF file.

    Raises ModelError when a half is missing, damaged or of another model, with what to type.
    """
    language_model = _find_language_model(name, folder)
    return check_pair(language_model, mmproj or _find_projector(language_model))


def _find_language_model(name: str, folder: Path) -> Path:
    if name.endswith(".gguf") or "/" in name:
        path = Path(name).expanduser()
        if not path.is_file():
            raise ModelError(f"no model file at {path}", "see what is here with: musicflamingo models list")
        return path
    if name == TINY:
        path = folder / tiny_model.LANGUAGE_MODEL_NAME
        if not path.is_file():
            raise ModelError("the tiny model is not here", "make it with: musicflamingo models pull tiny")
        return path
    real = [path for path in installed(folder) if path.name != tiny_model.LANGUAGE_MODEL_NAME]
    if name == "auto":
        if not real:
            raise ModelError(f"no model in {folder}", pull_command(QUANTS[0], folder))
        return min(real, key=_preference)
    matches = [path for path in real if quant_of(path) == name.upper()]
    if not matches:
        if name.upper() not in QUANTS and not _QUANT.search(f".{name}.gguf"):
            raise ConfigError(
                f"--model {name} is neither a quant nor a path", "use auto, tiny, Q6_K or a path to a .gguf"
            )
        raise ModelError(f"no {name} model in {folder}", pull_command(name.upper(), folder))
    return matches[0]


def _preference(path: Path) -> tuple[int, str]:
    quant = quant_of(path)
    return (QUANTS.index(quant) if quant in QUANTS else len(QUANTS)), path.name


def pull_command(quant: str, folder: Path) -> str:
    """The command that downloads a quant and its projector (the `hf` command comes with this product)."""
    return (
        f"download it with: hf download {HUB_REPOSITORY} music-flamingo-hf.{quant}.gguf {HUB_PROJECTOR}"
        f" --local-dir '{folder}'"
    )


def _find_projector(language_model: Path) -> Path:
    beside = sorted(language_model.parent.glob("*mmproj*.gguf"))
    if not beside:
        raise ModelError(
            f"no projector (mmproj) beside {language_model.name}; without it the model is deaf",
            f"name it with --mmproj, or put {HUB_PROJECTOR} into {language_model.parent}",
        )
    return max(beside, key=lambda path: (_common_prefix(path.name, language_model.name), path.name))


def _common_prefix(first: str, second: str) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def check_pair(language_model: Path, projector: Path) -> ModelPair:
    """Fail early what llama.cpp would fail late. Raises ModelError."""
    model, ears = read_header(language_model), read_header(projector)
    if model.is_projector:
        raise ModelError(f"{language_model.name} is a projector, not a language model", "swap --model and --mmproj")
    if not ears.is_projector:
        raise ModelError(f"{projector.name} is not a projector", "name the mmproj file with --mmproj")
    if not ears.values.get("clip.has_audio_encoder"):
        raise ModelError(f"{projector.name} has no audio encoder", f"use {HUB_PROJECTOR}")
    if model.embedding_length != ears.embedding_length:
        raise ModelError(
            f"{projector.name} gives vectors {ears.embedding_length} wide, {language_model.name} takes"
            f" {model.embedding_length}: they do not belong together",
            "name the projector made for this model with --mmproj",
        )
    _require_template(model)
    size = language_model.stat().st_size + projector.stat().st_size
    return ModelPair(language_model, projector, model.context_length, model.is_noise, model.kv_bytes_per_token, size)


def _require_template(model: GgufHeader) -> None:
    if "tokenizer.chat_template" not in model.values:
        raise ModelError(f"{model.path.name} has no chat template", "use a GGUF of an instruction-tuned model")


def pull_tiny(folder: Path) -> tuple[Path, Path]:
    """Write the random-weights pair into the models folder: the same bytes every time."""
    try:
        return tiny_model.write_tiny_pair(folder)
    except OSError as error:
        raise ModelError(
            f"cannot write to {folder}: {error.strerror}", "name another folder with --models-dir"
        ) from error
