"""Every setting with its one default, and where its value comes from: flag, environment, config file, default."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from musicflamingo_cli.choices import Attention, EngineName, Quantization
from musicflamingo_cli.errors import ConfigError, SettingError, shown, suggestion
from musicflamingo_cli.paths import LARGEST_YAML, default_models_dir, expanded, read_regular, user_config_dir
from musicflamingo_cli.types import LONGEST_SECONDS, MIN_SECONDS, Excerpt, Sampling

ENVIRONMENT_PREFIX = "MUSICFLAMINGO_"
DATASET_CONFIG = "musicflamingo-config.yaml"  # beside a dataset: settings of its own
_MAX_ENTRIES = 1000  # in one mapping of a YAML file
_PLAIN_NAME = re.compile(r"[\w-]+")  # a name that is no path
_CHOICES: dict[str, type[StrEnum]] = {each.__name__: each for each in (EngineName, Attention, Quantization)}
_NEVER_FROM_DATASETS = ("endpoint", "insecure", "gpus")
_SAMPLING, _EXCERPT = Sampling(), Excerpt()


def _limited(default: Any, low: float, high: float) -> Any:
    """A number that a person may set from ``low`` to ``high``."""
    return field(default=default, metadata={"limits": (low, high)})


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a person can set. A field's name is its name in the config file, too."""

    models_dir: Path | None = None  # None: see paths.default_models_dir
    llama_dir: Path | None = None  # None: the build script's newest build, then PATH
    model: str = "auto"
    mmproj: Path | None = None
    lora: Path | None = None  # the folder of an adapter; with an endpoint, the name that it has there
    engine: EngineName = EngineName.AUTO
    prompts: Path | None = None
    temperature: float = _limited(_SAMPLING.temperature, 0, 5)
    top_p: float = _limited(_SAMPLING.top_p, 0.01, 1)
    repeat_penalty: float = _limited(_SAMPLING.repeat_penalty, 0.5, 2)
    seed: int = _limited(_SAMPLING.seed, 0, 2**32 - 2)
    ctx_size: int | None = _limited(None, 256, 10_000_000)  # None: what the clip and the longest answer need
    slots: int | None = _limited(None, 1, 64)  # None: as many as there is memory for, up to 4; on a CPU 1
    gpu_layers: int | None = _limited(None, 0, 10_000)  # None: as many as fit, as llama.cpp itself decides
    threads: int | None = _limited(None, 1, 4096)  # None: llama.cpp's own choice, for transformers torch's
    flash_attention: bool | None = None  # of llama.cpp; None: its own choice
    gpus: str | None = None  # the GPUs to use, an engine on each: all, or numbers: 0,2; None: one engine over all
    endpoint: str | None = None  # URLs of endpoints that caption for us, separated by spaces
    insecure: bool = False  # endpoints: http to other machines is allowed, and so is any certificate
    device: str | None = None  # of torch, for transformers: cuda, cuda:1, mps, cpu; None: the best there is
    attention: Attention = Attention.SDPA  # of transformers
    quantize: Quantization = Quantization.NONE  # of transformers
    keep_reasoning: bool = False  # save what a model that thinks writes before its answer
    timeout: float = _limited(900.0, 1, 1e6)  # seconds for one prompt
    retries: int = _limited(2, 0, 100)
    max_seconds: float | None = _limited(None, MIN_SECONDS, LONGEST_SECONDS)  # None: the longest that the model takes
    min_seconds: float = _limited(MIN_SECONDS, MIN_SECONDS, 1e6)  # a batch skips tracks that are shorter
    start: float = _limited(_EXCERPT.start, 0, 1e6)  # seconds of each track that are skipped
    fraction: float = _limited(_EXCERPT.fraction, 0.01, 1)  # how much of the rest the model gets

    @property
    def models_folder(self) -> Path:
        """The folder of models, where none is set the default one."""
        return self.models_dir or default_models_dir()

    @property
    def sampling(self) -> Sampling:
        """How answers are sampled."""
        return Sampling(
            temperature=self.temperature, top_p=self.top_p, repeat_penalty=self.repeat_penalty, seed=self.seed
        )

    def excerpt(self, longest: float) -> Excerpt:
        """Return which part of each track a model gets that takes ``longest`` seconds at most."""
        return Excerpt(
            start=self.start,
            fraction=self.fraction,
            max_seconds=min(longest, self.max_seconds or longest),
            min_seconds=self.min_seconds,
        )


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How `listen` makes clips.

    ``seconds``: of the whole clip. ``start_seconds``: how much of the track it begins with. ``generator``: the model.
    """

    generator: str = "facebook/musicgen-small"
    seconds: float = _limited(10.0, 1, 30)  # MusicGen's positions end at 30 s
    guidance: float = _limited(3.0, 1, 20)  # 1: none
    temperature: float = _limited(1.0, 0, 5)  # 0: always the likeliest token
    top_k: int = _limited(250, 0, 1_000_000)  # of its authors; 0: all tokens
    seed: int = _limited(_SAMPLING.seed, 0, 2**32 - 2)
    start_seconds: float = 0.0
    at_once: int = _limited(4, 1, 64)  # clips in one batch

    def require_valid(self) -> GenerationSettings:
        """Return these settings. Raises SettingError for a value out of range."""
        _require_within_limits({each.name: getattr(self, each.name) for each in fields(self)}, "", GenerationSettings)
        if not 0 <= self.start_seconds < self.seconds:
            raise ConfigError(
                "--continue must be shorter than --seconds", f"for example: --continue {self.seconds / 2:g}"
            )
        return self


def load_settings(flags: Mapping[str, Any], config_file: Path | None = None, dataset: Path | None = None) -> Settings:
    """Return settings from defaults, the config files (the user's, the dataset's), the environment and ``flags``.

    Later ones win; a flag that is None was not given. Raises ConfigError for an unknown key or a value of the wrong
    type in a file, SettingError for a value out of range.
    """
    values: dict[str, Any] = {}
    for source, more in _layers(flags, config_file, dataset):
        _require_within_limits(more, "" if source == _FLAG else f"{source}: ")
        values |= more
    return replace(Settings(), **values)


def sources(flags: Mapping[str, Any], config_file: Path | None = None, dataset: Path | None = None) -> dict[str, str]:
    """Return where each setting's value comes from: `default`, a file's path, a variable's name, or `flag`."""
    found = {each.name: "default" for each in fields(Settings)}
    for source, values in _layers(flags, config_file, dataset):
        found |= dict.fromkeys(values, source)
    return found


_FLAG = "flag"


def _layers(
    flags: Mapping[str, Any], config_file: Path | None, dataset: Path | None
) -> list[tuple[str, dict[str, Any]]]:
    """Where values come from, and those values, the weakest first."""
    named = config_file or _environment_path("CONFIG")
    file = named or user_config_dir() / "config.yaml"
    layers = [(str(file), _read_file(file, required=named is not None))]
    if dataset is not None:
        beside = dataset_config(dataset)
        layers.append((str(beside), _harmless(beside, _read_file(beside, required=False))))
    for name in ("models_dir", "llama_dir"):
        if (path := _environment_path(name.upper())) is not None:
            layers.append((ENVIRONMENT_PREFIX + name.upper(), {name: path}))
    return [*layers, (_FLAG, {name: value for name, value in flags.items() if value is not None})]


def dataset_config(dataset: Path) -> Path:
    """Return the settings file of a dataset: in the folder, or beside a file."""
    return (dataset if dataset.is_dir() else dataset.parent) / DATASET_CONFIG


def _harmless(file: Path, values: dict[str, Any]) -> dict[str, Any]:
    """A dataset may come from others: it may say how to caption it, not which programs and files to use."""
    if paths := [name for name, value in values.items() if name in _NEVER_FROM_DATASETS or _names_a_file(value)]:
        own = user_config_dir() / "config.yaml"
        raise ConfigError(f"{file} may not name files or machines: {', '.join(paths)}", f"set it in {own}, or by flag")
    return values


def require_setting(name: str, value: float) -> None:
    """Raise SettingError for a number that the setting ``name`` cannot have."""
    _require_within_limits({name: value}, "")


def _require_within_limits(values: Mapping[str, Any], place: str, settings: Any = Settings) -> None:
    """Raise an error for a number out of range; ``place`` names the file that it came from, if any."""
    for each in fields(settings):
        value = values.get(each.name)
        if value is None or "limits" not in each.metadata:
            continue
        low, high = each.metadata["limits"]
        if not low <= value <= high:
            message = f"must be between {low:g} and {high:g}"
            if place:
                raise ConfigError(f"{place}{each.name} {message}", f"for example: {each.name}: {high:g}")
            raise SettingError(each.name, message, f"for example: {high:g}")


def yaml_loader() -> Any:
    """Return YAML's safe loader with a limit: merges of merges (`<<: [*a, *a]`) cannot fill the memory."""
    import yaml

    class Loader(yaml.SafeLoader):
        def flatten_mapping(self, node: Any) -> None:
            super().flatten_mapping(node)
            if len(node.value) > _MAX_ENTRIES:
                raise yaml.MarkedYAMLError(problem="too many entries", problem_mark=node.start_mark)

    return Loader


def _read_file(file: Path, required: bool) -> dict[str, Any]:
    if not file.exists() and not required:
        return {}
    import yaml

    hint = f"edit {file}, or name another one with --config"
    try:
        text = read_regular(file, LARGEST_YAML).decode("utf-8-sig")
        data = yaml.load(text, Loader=yaml_loader()) or {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: 5000 digits, 31 February
        raise ConfigError(f"{file} cannot be read as YAML: {error}", hint) from error
    if not isinstance(data, dict):
        raise ConfigError(f"{file} must hold `name: value` lines", hint)
    return _typed(data, file, hint)


def typed_settings(given: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return settings that a program gives, converted to their types, without those that are None.

    ``place`` begins the messages. Raises ConfigError.
    """
    hint = "list all settings with: musicflamingo doctor --json"
    return _typed({name: _plain(value) for name, value in given.items()}, Path(place), hint)


def _plain(value: Any) -> Any:
    """A path, or a number of numpy's, as YAML would have it."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if hasattr(value, "item") else value


def _typed(data: Mapping[str, Any], file: Path, hint: str) -> dict[str, Any]:
    kinds = {each.name: str(each.type) for each in fields(Settings)}
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in kinds:
            raise ConfigError(f"{file}: no setting {shown(key)}{suggestion(str(key), kinds)}", hint)
        if value is not None:
            values[key] = _converted(key, value, kinds[key], file, hint)
    return values


def _converted(key: str, value: Any, kind: str, file: Path, hint: str) -> Any:
    """A YAML value as the field's type; a relative path is relative to the config file's folder."""
    if kind in _CHOICES and isinstance(value, str):
        choices = list(_CHOICES[kind])
        if value not in choices:
            raise ConfigError(f"{file}: no {key} {shown(value)}{suggestion(value, choices)}", hint)
        return _CHOICES[kind](value)
    if "bool" in kind and isinstance(value, bool):
        return value
    if "Path" in kind and isinstance(value, str) and value:
        try:
            return file.parent / expanded(value)
        except ConfigError as error:
            raise ConfigError(f"{file}: {key} cannot be {shown(value)}: {error}", hint) from error
    if "float" in kind and isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise ConfigError(f"{file}: {key} cannot be {shown(value)}", hint) from error
    if "int" in kind and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind in ("str", "str | None") and isinstance(value, str):
        return value
    raise ConfigError(f"{file}: {key} cannot be {shown(value)}", hint)


def _names_a_file(value: Any) -> bool:
    return isinstance(value, Path) or (isinstance(value, str) and not _PLAIN_NAME.fullmatch(value))


def _environment_path(name: str) -> Path | None:
    value = os.environ.get(ENVIRONMENT_PREFIX + name)
    return expanded(value) if value else None
