"""A model as engines take it: a pair of GGUF files for llama.cpp, or a checkpoint for transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from musicflamingo_cli.models.catalog import quant_of
from musicflamingo_cli.types import MAX_SECONDS

TINY = "tiny"  # the pair that comes with the program


class Model(Protocol):
    """What is known of any model, whichever engine runs it."""

    @property
    def name(self) -> str:
        """Its name in provenance and in `--json`: a GGUF's file name, a checkpoint's name on the hub."""
        ...

    @property
    def path(self) -> Path:
        """The language model's file, or the checkpoint's folder."""
        ...

    @property
    def label(self) -> str:
        """Its name in sidecars: `gguf_Q6_K`, `hf_music-flamingo-2601-hf`."""
        ...

    @property
    def projector_name(self) -> str | None:
        """The file name of its projector, where that is a file of its own."""
        ...

    @property
    def files(self) -> list[Path]:
        """The files that decide what it answers."""
        ...

    @property
    def context_length(self) -> int:
        """In tokens."""
        ...

    @property
    def kv_bytes_per_token(self) -> int:
        """The memory of a token of context."""
        ...

    @property
    def size(self) -> int:
        """Of all its files, in bytes."""
        ...

    @property
    def max_seconds(self) -> float:
        """The longest audio that it takes."""
        ...

    @property
    def is_tiny(self) -> bool:
        """Whether it knows no real music: its captions mean nothing."""
        ...

    @property
    def reasons(self) -> bool:
        """Whether it writes down its reasoning before its answer."""
        ...

    @property
    def reason(self) -> str:
        """Why `auto` chose it; empty where it was named."""
        ...


@dataclass(frozen=True, slots=True)
class ModelPair:
    """A language model and its projector (audio encoder), checked to belong together. See ``Model``."""

    language_model: Path
    projector: Path
    context_length: int  # tokens
    is_tiny: bool  # it knows no real music: its captions mean nothing
    kv_bytes_per_token: int = 0  # the memory of a token of context, at f16
    size: int = 0  # bytes, of both files
    architecture: str = ""  # of the language model
    projector_type: str = ""
    reason: str = ""  # why `auto` chose it
    max_seconds: float = MAX_SECONDS
    reasons: bool = False

    @property
    def name(self) -> str:
        """The language model's file name."""
        return self.language_model.name

    @property
    def path(self) -> Path:
        """The language model's file."""
        return self.language_model

    @property
    def projector_name(self) -> str | None:
        """The projector's file name."""
        return self.projector.name

    @property
    def files(self) -> list[Path]:
        """Language model and projector."""
        return [self.language_model, self.projector]

    @property
    def label(self) -> str:
        """Its name in sidecars: `gguf_Q6_K` and the like."""
        if self.is_tiny:
            return f"gguf_{TINY}"
        return f"gguf_{quant_of(self.language_model) or self.language_model.stem}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder of safetensors with a configuration, as transformers loads it. See ``Model``.

    ``model_type``: of its config.json, `audioflamingo3` or `musicflamingo`; it decides the class.
    """

    folder: Path
    name: str
    model_type: str
    context_length: int  # tokens
    max_seconds: float
    is_tiny: bool = False
    kv_bytes_per_token: int = 0  # at bf16
    size: int = 0  # bytes of the weights
    reasons: bool = False
    reason: str = ""

    @property
    def path(self) -> Path:
        """The folder."""
        return self.folder

    @property
    def projector_name(self) -> str | None:
        """None: the checkpoint holds the audio encoder, too."""
        return None

    @property
    def files(self) -> list[Path]:
        """Its configuration and its weights."""
        return [self.folder / "config.json", *sorted(self.folder.glob("*.safetensors"))]

    @property
    def label(self) -> str:
        """Its name in sidecars: `hf_` and the last part of its name."""
        return f"hf_{TINY if self.is_tiny else self.name.rpartition('/')[2]}"


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model that an endpoint runs. See ``Model``; ``identifier`` is the endpoint's own name for it."""

    name: str
    identifier: str
    context_length: int  # tokens
    is_tiny: bool = False
    max_seconds: float = MAX_SECONDS
    reasons: bool = False
    kv_bytes_per_token: int = 0
    size: int = 0
    reason: str = ""

    @property
    def path(self) -> Path:
        """Its name: its files are elsewhere."""
        return Path(self.name)

    @property
    def projector_name(self) -> str | None:
        """None: it is not known."""
        return None

    @property
    def files(self) -> list[Path]:
        """None that could be read here."""
        return []

    @property
    def label(self) -> str:
        """Its name in sidecars: `remote_` and its name without an extension."""
        return f"remote_{TINY if self.is_tiny else self.name.removesuffix('.gguf')}"
