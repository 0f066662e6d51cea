"""A model as engines take it: a pair of GGUF files for llama.cpp, or a checkpoint for transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from musicflamingo_cli.models.catalog import quant_of
from musicflamingo_cli.system.identity import digest
from musicflamingo_cli.types import MAX_SECONDS

TINY = "tiny"  # the pair that comes with the program
PEFT_CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # of an adapter, as peft names them


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

    @property
    def adapter(self) -> Adapter | None:
        """The adapter that changes its answers (see ``adapters``)."""
        ...


@dataclass(frozen=True, slots=True)
class Adapter:
    """A trained adapter. ``base``: its base model's name; ``fingerprint``: of that model (see ``fingerprint``).

    ``has_projector``: it also changes the projector, which llama.cpp cannot. ``record``: all of adapter.json.
    """

    folder: Path
    name: str
    base: str
    fingerprint: str
    has_projector: bool
    record: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def files(self) -> list[Path]:
        """The files that decide what it changes."""
        return [self.folder / PEFT_CONFIG, self.folder / WEIGHTS]

    @property
    def identity(self) -> str:
        """What identifies its weights, for provenance: 16 hex digits."""
        return digest(self.files) or ""

    @property
    def size(self) -> int:
        """Of its weights, in bytes."""
        return (self.folder / WEIGHTS).stat().st_size


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
    adapter: Adapter | None = None

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
        """Language model and projector, and the adapter's."""
        return [self.language_model, self.projector, *(self.adapter.files if self.adapter else [])]

    @property
    def label(self) -> str:
        """Its name in sidecars: `gguf_Q6_K` and the like, with an adapter `gguf_Q6_K+mine`."""
        name = TINY if self.is_tiny else quant_of(self.language_model) or self.language_model.stem
        return f"gguf_{name}{_with(self.adapter)}"


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
    adapter: Adapter | None = None

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
        """Its configuration and its weights, and the adapter's."""
        return [self.folder / "config.json", *self.weights, *(self.adapter.files if self.adapter else [])]

    @property
    def weights(self) -> list[Path]:
        """The files of its weights."""
        return sorted(self.folder.glob("*.safetensors"))

    @property
    def label(self) -> str:
        """Its name in sidecars: `hf_` and the last part of its name, and `+` and the adapter's."""
        return f"hf_{TINY if self.is_tiny else self.name.rpartition('/')[2]}{_with(self.adapter)}"


def _with(adapter: Adapter | None) -> str:
    return f"+{adapter.name}" if adapter else ""


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
    adapter: Adapter | None = None  # always: the endpoint has its own

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
