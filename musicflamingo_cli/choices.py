"""The fixed sets of values that a user chooses from. Light, since the command line imports it at start-up."""

from __future__ import annotations

from enum import StrEnum


class EngineName(StrEnum):
    """What runs the model; `auto` chooses (see ``engines.open_engine``)."""

    AUTO = "auto"
    NATIVE = "native"
    SERVER = "server"
    MTMD_CLI = "mtmd-cli"
    EMBEDDED = "embedded"
    TRANSFORMERS = "transformers"
    REMOTE = "remote"


class Attention(StrEnum):
    """How transformers computes attention; the names are its own."""

    SDPA = "sdpa"
    EAGER = "eager"
    FLASH_ATTENTION_2 = "flash_attention_2"


class Quantization(StrEnum):
    """How transformers stores the language model's weights."""

    NONE = "none"
    INT8 = "int8"  # torchao
    EIGHT_BIT = "8bit"  # bitsandbytes
    NF4 = "nf4"  # bitsandbytes, 4 bits


class ExportFormat(StrEnum):
    """The formats of `musicflamingo export`; ``exports.FORMATS`` says how each is written."""

    AUDIOCRAFT = "audiocraft"
    STABLE_AUDIO = "stable-audio"
    WEBDATASET = "webdataset"
    AUDIOFOLDER = "audiofolder"
    ACE_STEP = "ace-step"
    TXT = "txt"
    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


class AudioPlacement(StrEnum):
    """How audio gets into an export."""

    LINK = "link"
    COPY = "copy"


class PathStyle(StrEnum):
    """How tables name the audio: below the dataset, or absolute."""

    RELATIVE = "relative"
    ABSOLUTE = "absolute"


class Alignment(StrEnum):
    """What the cuts between segments are moved to."""

    BEATS = "beats"


class Wanted(StrEnum):
    """Which captions of a track a run makes."""

    MISSING = "missing"
    OUTDATED = "outdated"  # and the missing ones
    CONTRADICTED = "contradicted"  # those with a claim that `check` found contradicted
    ALL = "all"


class Writer(StrEnum):
    """Who writes the sidecars of captions that a cluster made."""

    DRIVER = "driver"
    ACTORS = "actors"  # where they see the dataset's folder; else the driver
