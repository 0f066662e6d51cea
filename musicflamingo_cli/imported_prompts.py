"""Presets out of the settings of the MIR feature pipeline that this program grew out of, and of tools like it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from musicflamingo_cli.config import yaml_loader
from musicflamingo_cli.errors import ConfigError, shown
from musicflamingo_cli.paths import LARGEST_YAML, built_in_prompts, read_regular
from musicflamingo_cli.prompts import Preset, read_preset, read_presets, validate

_SECTIONS = ("music_flamingo", "flamingo")
_PROMPTS = ("prompts", "flamingo_prompts")
_TOKENS = ("max_tokens", "token_limits", "flamingo_token_limits")


def import_presets(file: Path) -> list[Preset]:
    """Return the presets that a pipeline's YAML asks for, each with `default` as it is there.

    The file has a section `music_flamingo` with `prompts`, which maps names to texts, or to true or false for the
    built-in ones; `max_tokens` beside it maps names to limits. Raises ConfigError.
    """
    hint = f"edit {file}; see docs/migrating.md for what is read"
    section = _section(_read(file, hint))
    prompts = next((section[key] for key in _PROMPTS if isinstance(section.get(key), dict)), None)
    if not prompts:
        raise ConfigError(f"{file} has no `music_flamingo:` with `prompts:`", hint)
    limits: Mapping[str, Any] = next((section[key] for key in _TOKENS if isinstance(section.get(key), dict)), {})
    built_in = read_presets(built_in_prompts())
    presets: dict[str, Preset] = {}
    for name, value in prompts.items():
        preset = _preset(str(name), value, limits.get(name), built_in, file, hint)
        if preset.name in presets:
            raise ConfigError(f"{file}: two prompts are named {preset.name}", hint)
        presets[preset.name] = preset
    return list(presets.values())


def others_off(presets: Sequence[Preset]) -> list[Preset]:
    """Return the built-in presets that are asked by default and not by the pipeline, with that turned off."""
    named = {preset.name for preset in presets}
    others = [each for each in read_presets(built_in_prompts()).values() if each.default and each.name not in named]
    return [replace(each, default=False) for each in others]


def _read(file: Path, hint: str) -> dict[str, Any]:
    import yaml

    try:
        data = yaml.load(read_regular(file, LARGEST_YAML).decode("utf-8-sig"), Loader=yaml_loader())
    except FileNotFoundError as error:
        raise ConfigError(f"no such file: {file}", "check the path") from error
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read as YAML: {error}", hint) from error
    if isinstance(data, dict) and "presets" in data:
        raise ConfigError(f"{file} is a presets file already", f"use it as it is: --prompts '{file}'")
    return data if isinstance(data, dict) else {}


def _section(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part about Music Flamingo; a file that is nothing but that part is one, too."""
    return next((data[name] for name in _SECTIONS if isinstance(data.get(name), dict)), data)


def _preset(name: str, value: object, limit: object, built_in: Mapping[str, Preset], file: Path, hint: str) -> Preset:
    place = f"{file}: prompt {shown(name)}"
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool)):
        raise ConfigError(f"{place}: its limit of tokens must be a whole number, not {shown(limit)}", hint)
    limits = {} if limit is None else {"max_tokens": limit}
    if isinstance(value, bool):
        if name not in built_in:
            raise ConfigError(f"{place} has no text, and no built-in preset has this name", hint)
        known = built_in[name]
        tokens = known.max_tokens if limit is None else limit
        return validate(replace(known, default=value, max_tokens=tokens), place, hint)
    if not isinstance(value, str):
        raise ConfigError(f"{place} must be a text, true or false, not {shown(value)}", hint)
    try:
        return read_preset(_name(name), {"prompt": " ".join(value.split()), "default": True, **limits}, file)
    except ConfigError as error:
        raise ConfigError(str(error), f"change it in a copy of {file}, and import the copy") from error


def _name(name: str) -> str:
    """A name as presets have it: `Genre-Mood` is `genre_mood`."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def as_yaml(presets: list[Preset], source: Path) -> str:
    """Return the text of a presets file."""
    import yaml

    entries = {preset.name: _entry(preset) for preset in presets}
    body = yaml.safe_dump({"presets": entries}, sort_keys=False, allow_unicode=True, width=118)
    return f"# Imported from {source.name}. A preset here replaces the built-in preset of the same name.\n{body}"


def _entry(preset: Preset) -> dict[str, Any]:
    always = {"prompt": preset.prompt, "max_tokens": preset.max_tokens, "default": preset.default}
    always["min_words"] = preset.min_words
    return always | {name: value for name in ("system", "lines") if (value := getattr(preset, name))}
