"""Every setting with its one default, and where its value comes from: flag, environment, config file, default."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from musicflamingo_cli.audio.clip import MAX_SECONDS, MIN_SECONDS
from musicflamingo_cli.errors import ConfigError, nearest
from musicflamingo_cli.types import Sampling

APP = "musicflamingo"
ENVIRONMENT_PREFIX = "MUSICFLAMINGO_"
_WORD = re.compile(r"[\w-]+")  # a name that is no path
DATASET_CONFIG = "musicflamingo-config.yaml"  # beside a dataset: settings of its own
_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent
_SAMPLING = Sampling()


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a person can set. A field's name is its name in the config file, too."""

    models_dir: Path | None = None  # None: see default_models_dir
    llama_dir: Path | None = None  # None: the bootstrap script's build, then PATH
    model: str = "auto"
    mmproj: Path | None = None
    engine: str = "auto"
    prompts: Path | None = None
    temperature: float = _SAMPLING.temperature
    top_p: float = _SAMPLING.top_p
    repeat_penalty: float = _SAMPLING.repeat_penalty
    seed: int = _SAMPLING.seed
    ctx_size: int | None = None  # None: what the clip and the longest answer need
    slots: int | None = None  # None: as many as there is memory for, up to 4; on a CPU 1
    gpu_layers: int | None = None  # None: as many as fit, by llama.cpp's own judgement
    threads: int | None = None
    timeout: float = 900.0  # seconds for one prompt
    retries: int = 2
    max_seconds: float = MAX_SECONDS
    start: float = 0.0  # seconds of each track that are not heard
    fraction: float = 1.0  # of what follows, how much is heard

    @property
    def models_folder(self) -> Path:
        return self.models_dir or default_models_dir()


def load_settings(flags: dict[str, Any], config_file: Path | None = None, dataset: Path | None = None) -> Settings:
    """Settings from defaults, the config files (the user's, the dataset's), the environment and ``flags``.

    What comes later counts; a flag that is None was not given. Raises ConfigError for an unknown key or a value of
    the wrong kind.
    """
    values: dict[str, Any] = {}
    for _, more in _layers(flags, config_file, dataset):
        values |= more
    return _checked(replace(Settings(), **values))


def sources(flags: dict[str, Any], config_file: Path | None = None, dataset: Path | None = None) -> dict[str, str]:
    """Where each setting's value comes from: `default`, a file's path, a variable's name, or `flag`."""
    found = {field.name: "default" for field in fields(Settings)}
    for source, values in _layers(flags, config_file, dataset):
        found |= dict.fromkeys(values, source)
    return found


def _layers(flags: dict[str, Any], config_file: Path | None, dataset: Path | None) -> list[tuple[str, dict[str, Any]]]:
    """Where values may come from, and those that do, the weakest first."""
    named = config_file or _environment_path("CONFIG")
    file = named or user_config_dir() / "config.yaml"
    layers = [(str(file), _read_file(file, required=named is not None))]
    if dataset is not None:
        beside = dataset_config(dataset)
        layers.append((str(beside), _harmless(beside, _read_file(beside, required=False))))
    for name in ("models_dir", "llama_dir"):
        if (path := _environment_path(name.upper())) is not None:
            layers.append((ENVIRONMENT_PREFIX + name.upper(), {name: path}))
    return [*layers, ("flag", {name: value for name, value in flags.items() if value is not None})]


def dataset_config(dataset: Path) -> Path:
    """The settings file beside (or for a file, next to) a dataset."""
    return (dataset if dataset.is_dir() else dataset.parent) / DATASET_CONFIG


def _harmless(file: Path, values: dict[str, Any]) -> dict[str, Any]:
    """A dataset may come from others: it says how it is to be captioned, not which programs and files are used."""
    if paths := [name for name, value in values.items() if _names_a_file(value)]:
        own = user_config_dir() / "config.yaml"
        raise ConfigError(f"{file} may not name files: {', '.join(paths)}", f"set it in {own}, or by flag")
    return values


def _checked(settings: Settings) -> Settings:
    limits = {
        "temperature": (0, 5),
        "top_p": (0.01, 1),
        "retries": (0, 100),
        "max_seconds": (MIN_SECONDS, MAX_SECONDS),
        "timeout": (1, 1e6),
        "seed": (0, 2**32 - 2),
        "repeat_penalty": (0.5, 2),
        "threads": (1, 4096),
        "ctx_size": (256, 10_000_000),
        "slots": (1, 64),
        "start": (0, 1e6),
        "fraction": (0.01, 1),
        "gpu_layers": (0, 10_000),
    }
    for name, (low, high) in limits.items():
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            option = "--" + name.replace("_", "-")
            raise ConfigError(f"{option} must be between {low:g} and {high:g}", f"for example: {option} {high:g}")
    return settings


def _read_file(file: Path, required: bool) -> dict[str, Any]:
    if not file.exists() and not required:
        return {}
    import yaml

    hint = f"edit {file}, or name another one with --config"
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8-sig")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read as YAML: {error}", hint) from error
    if not isinstance(data, dict):
        raise ConfigError(f"{file} must hold `name: value` lines", hint)
    return _typed(data, file, hint)


def typed_settings(given: dict[str, Any], place: str) -> dict[str, Any]:
    """Settings as a program gives them, of the right types, those that are None left out. Raises ConfigError."""
    hint = "see: musicflamingo doctor --json, which names all settings"
    return _typed({name: _plain(value) for name, value in given.items()}, Path(place), hint)


def _plain(value: Any) -> Any:
    """A path, or a number of numpy's, as YAML would have it."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if hasattr(value, "item") else value


def _typed(data: dict[str, Any], file: Path, hint: str) -> dict[str, Any]:
    kinds = {field.name: str(field.type) for field in fields(Settings)}
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in kinds:
            raise ConfigError(f"{file}: no setting {key!r}{nearest(str(key), kinds)}", hint)
        if value is not None:
            values[key] = _converted(key, value, kinds[key], file, hint)
    return values


def _converted(key: str, value: Any, kind: str, file: Path, hint: str) -> Any:
    """A YAML value as the field's type; a relative path is meant from the config file's folder."""
    if "Path" in kind and isinstance(value, str) and value:
        try:
            return file.parent / Path(value).expanduser()
        except RuntimeError as error:  # ~somebody who is not
            raise ConfigError(f"{file}: {key} cannot be {value!r}: {error}", hint) from error
    if "float" in kind and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if "int" in kind and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind == "str" and isinstance(value, str):
        return value
    raise ConfigError(f"{file}: {key} cannot be {value!r}", hint)


def _names_a_file(value: Any) -> bool:
    return isinstance(value, Path) or (isinstance(value, str) and not _WORD.fullmatch(value))


def _environment_path(name: str) -> Path | None:
    value = os.environ.get(ENVIRONMENT_PREFIX + name)
    return Path(value).expanduser() if value else None


# -- places -------------------------------------------------------------------------------------------


def data_file(*parts: str) -> Path:
    """A file of `configs/` or `scripts/`: beside the package in a checkout, inside it when installed."""
    installed = _PACKAGE.joinpath("_data", *parts)
    return installed if installed.exists() else _CHECKOUT.joinpath(*parts)


def default_models_dir() -> Path:
    """A checkout's own `models/`, else a folder of the user's."""
    if (_CHECKOUT / "pyproject.toml").exists() and (_CHECKOUT / "models").is_dir():
        return _CHECKOUT / "models"
    import platformdirs

    return platformdirs.user_data_path(APP) / "models"


def user_config_dir() -> Path:
    import platformdirs

    return platformdirs.user_config_path(APP)


def user_log_dir() -> Path:
    import platformdirs

    return platformdirs.user_log_path(APP)


def user_state_dir() -> Path:
    import platformdirs

    return platformdirs.user_state_path(APP)


def llama_cache_dir() -> Path:
    """Where scripts/build_llama_cpp.sh installs its builds; its link `current` is the newest."""
    import platformdirs

    return platformdirs.user_cache_path(APP) / "llama.cpp"


def built_in_prompts() -> Path:
    return data_file("configs", "prompts.yaml")


def prompts_files(dataset: Path | None, explicit: Path | None) -> list[Path]:
    """The prompts files in force, the weakest first: built in, the user's, the dataset's, the named one."""
    from musicflamingo_cli.prompts import DATASET_FILE

    optional = [user_config_dir() / "prompts.yaml"]
    if dataset is not None:
        optional.append((dataset if dataset.is_dir() else dataset.parent) / DATASET_FILE)
    found = [built_in_prompts(), *(file for file in optional if file.is_file())]
    return [*found, explicit] if explicit else found
