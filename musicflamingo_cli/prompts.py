"""The presets: read strictly from YAML, overridden preset by preset, filled with what is known of a track."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musicflamingo_cli.config import yaml_loader
from musicflamingo_cli.errors import ConfigError, PromptError, shown, suggestion
from musicflamingo_cli.paths import LARGEST_YAML, built_in_prompts, read_regular, user_config_dir
from musicflamingo_cli.text.cleaning import TEMPLATE_TOKEN
from musicflamingo_cli.text.schema import schema_problem
from musicflamingo_cli.types import REASONING_SUFFIX, Failure, Prompt

DATASET_FILE = "musicflamingo-prompts.yaml"  # beside a dataset: presets of its own
VARIABLES = (
    *("metadata", "title", "artist", "album", "year", "genre", "bpm", "key", "duration"),
    *("measured_bpm", "measured_key"),  # by `musicflamingo measure`
)
# Their sidecar keys mean something else.
RESERVED_NAMES = (
    *("model", "provenance", "approved", "measured", "check", "samples", "excluded", "note", "tags_backup"),
    *("fields", "short", "segments", "summary"),
)

_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")
_FIELDS: dict[str, type] = {
    "prompt": str,
    "max_tokens": int,
    "default": bool,
    "system": str,
    "min_words": int,
    "lines": bool,
    "schema": dict,
}
_TYPE_NAMES = {str: "text", int: "a whole number", bool: "true or false", dict: "a JSON schema"}
_ONE_LINE_TOKENS = 64  # up to here a question is about one thing, which a word may answer: "techno"
_VARIABLE = re.compile(r"\{([^{}]*)\}")
_OPTIONAL = re.compile(r"\[\[(.*?)\]\]", re.DOTALL)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, slots=True)
class Preset:
    """A question before its variables are filled in; ``origin`` is the file that it was read from.

    ``schema``: see Prompt.
    """

    name: str
    prompt: str
    max_tokens: int = 300
    default: bool = False
    system: str = ""
    min_words: int = 3
    lines: bool = False
    schema: str = ""
    origin: Path | None = field(default=None, compare=False)

    @property
    def template_hash(self) -> str:
        """Identifies the question: it changes with the text, the system prompt, the token limit and the schema."""
        asked = "\0".join((self.prompt, self.system, str(self.max_tokens), *([self.schema] if self.schema else [])))
        return hashlib.sha256(asked.encode()).hexdigest()[:16]

    def render(self, values: Mapping[str, str]) -> Prompt:
        """Return the prompt for one track. Raises PromptError when nothing of it is left."""
        text = fill(self.prompt, values)
        if not text:
            needed = ", ".join(dict.fromkeys(_VARIABLE.findall(self.prompt)))
            raise PromptError(
                f"the prompt {self.name} needs {needed}, which this track lacks",
                f"tag the track, or put that part in [[double brackets]]: musicflamingo prompts show {self.name}",
            )
        return Prompt(
            preset=self.name,
            text=text,
            max_tokens=self.max_tokens,
            system=self.system,
            min_words=self.min_words,
            lines=self.lines,
            template_hash=self.template_hash,
            schema=self.schema,
        )


def render_all(presets: Iterable[Preset], values: Mapping[str, str]) -> tuple[list[Prompt], list[Failure]]:
    """Return the prompts for one track, and a failure for each preset of which nothing is left."""
    prompts, failures = [], []
    for preset in presets:
        try:
            prompts.append(preset.render(values))
        except PromptError as error:
            failures.append(Failure.for_preset(preset.name, error))
    return prompts, failures


def fill(template: str, values: Mapping[str, str]) -> str:
    """Fill in variables; drop each sentence or [[bracketed part]] that has a variable without a value.

    >>> fill("A song[[ by {artist}]]. It is in {key}. Describe it.", {"artist": "Nina"})
    'A song by Nina. Describe it.'
    """
    cleaned = {name: _one_line(value) for name, value in values.items() if value}
    known = {name: value for name, value in cleaned.items() if value}
    known.setdefault("metadata", "")  # a sentence by itself: without it nothing around it is dropped

    def missing(part: str) -> bool:
        return any(name not in known for name in _VARIABLE.findall(part))

    text = _OPTIONAL.sub(lambda match: "" if missing(match[1]) else match[1], template)
    # Sentences are split before the values are filled in, since a value may hold a full stop of its own.
    kept = [sentence for sentence in _SENTENCE.split(text.strip()) if not missing(sentence)]
    filled = (_VARIABLE.sub(lambda match: known[match[1]], sentence) for sentence in kept)
    return " ".join(" ".join(filled).split())


def _one_line(value: str) -> str:
    """A tag as prompt text: short, on one line, without anything that acts as a template or moves the audio."""
    value = value.encode("utf-8", "replace").decode()  # a lone surrogate cannot be passed on
    value = "".join(character if character.isprintable() else " " for character in value)
    return " ".join(TEMPLATE_TOKEN.sub(" ", value).replace("<__", " ").split())[:200].strip()


# -- files --------------------------------------------------------------------------------------------


def prompts_files(dataset: Path | None, explicit: Path | None) -> list[Path]:
    """Return the prompts files in force, the weakest first: built in, the user's, the dataset's, ``explicit``."""
    optional = [user_config_dir() / "prompts.yaml"]
    if dataset is not None:
        optional.append((dataset if dataset.is_dir() else dataset.parent) / DATASET_FILE)
    found = [built_in_prompts(), *(file for file in optional if file.is_file())]
    return [*found, explicit] if explicit else found


def load_presets(files: Iterable[Path]) -> dict[str, Preset]:
    """Return the presets of several files, later ones overriding earlier ones name by name."""
    presets: dict[str, Preset] = {}
    for file in files:
        presets.update(read_presets(file))
    return presets


def read_presets(file: Path) -> dict[str, Preset]:
    """Return the presets of one file. Raises ConfigError that names the file, the place and the nearest right word."""
    import yaml

    hint = _edit_hint(file)
    try:
        data = yaml.load(read_regular(file, LARGEST_YAML).decode("utf-8-sig"), Loader=_strict_loader())
    except FileNotFoundError as error:
        raise ConfigError(f"no prompts file at {file}", "make one with: musicflamingo prompts init") from error
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read as YAML: {error}", hint) from error
    if not isinstance(data, dict) or not data:
        raise ConfigError(f"{file} must begin with `presets:`", hint)
    for key in data:
        _require_known(key, ("presets",), f"{file}: the top level", hint)
    presets = data["presets"]
    if not isinstance(presets, dict) or not presets:
        raise ConfigError(f"{file}: `presets` must map names to prompts", hint)
    return {str(name): read_preset(str(name), value, file) for name, value in presets.items()}


def _strict_loader() -> Any:
    """YAML's safe loader, but a duplicate key is an error instead of a prompt lost in silence."""
    import yaml

    class Loader(yaml_loader()):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key_node, _ in node.value:
                if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor`
                    continue
                key = self.construct_object(key_node, deep=True)
                if key in seen:
                    raise yaml.MarkedYAMLError(problem=f"duplicate key {shown(key)}", problem_mark=key_node.start_mark)
                seen.add(key)
            found: dict[Any, Any] = super().construct_mapping(node, deep)
            return found

    return Loader


def read_preset(name: str, value: object, file: Path) -> Preset:
    """Return a preset as ``file`` has it: its prompt, or a mapping of its fields. Raises ConfigError."""
    place, hint = f"{file}: preset {name[:80]}", _edit_hint(file)
    entries = {"prompt": value} if isinstance(value, str) else value
    if not isinstance(entries, dict):
        raise ConfigError(f"{place} must be a text, or a mapping with `prompt`", hint)
    for key, entry in entries.items():
        _require_known(key, _FIELDS, place, hint)
        expected = _FIELDS[key]
        if not isinstance(entry, expected) or (isinstance(entry, bool) and expected is not bool):
            raise ConfigError(f"{place}: {key} must be {_TYPE_NAMES[expected]}, not {shown(entry)}", hint)
    if "max_tokens" in entries and entries["max_tokens"] <= _ONE_LINE_TOKENS:
        entries = {"min_words": 1, **entries}
    if "schema" in entries:
        if problem := schema_problem(entries["schema"]):
            raise ConfigError(f"{place}: the schema is not usable: {problem}", hint)
        entries = {**entries, "schema": json.dumps(entries["schema"], ensure_ascii=False)}
    return validate(Preset(name, **{"prompt": "", **entries}, origin=file), place, hint)


def validate(preset: Preset, place: str, hint: str) -> Preset:
    """Return the preset if it can be asked; else raise ConfigError. ``place`` begins the message, ``hint`` ends it."""
    if not _NAME.fullmatch(preset.name) or _is_reserved(preset.name):
        allowed = f"lower-case letters, digits and _, but not {' or '.join(RESERVED_NAMES)}, nor ...{REASONING_SUFFIX}"
        raise ConfigError(f"{place}: a preset's name holds {allowed}", hint)
    if not preset.prompt.strip():
        raise ConfigError(f"{place} has no prompt", hint)
    if not 1 <= preset.max_tokens <= 4096 or preset.min_words < 1:
        raise ConfigError(f"{place}: max_tokens must be 1 to 4096 and min_words at least 1", hint)
    if not all(c.isprintable() or c in "\n\t" for c in preset.prompt + preset.system):
        raise ConfigError(f"{place} holds control characters", hint)
    if TEMPLATE_TOKEN.search(preset.prompt + preset.system):
        raise ConfigError(f"{place} holds a token of the chat template; the audio is added automatically", hint)
    for variable in _VARIABLE.findall(preset.prompt):
        _require_known(variable, VARIABLES, f"{place}: the variables", hint)
    return preset


def _is_reserved(name: str) -> bool:
    return name in RESERVED_NAMES or name.endswith(REASONING_SUFFIX)


def free_question(text: str, name: str) -> Preset:
    """Return a question of the user's own as a preset called ``name``. Raises ConfigError."""
    return validate(Preset(name, text, min_words=1), f"the question {name!r}", "change the question and ask again")


def _require_known(word: object, known: Iterable[str], place: str, hint: str) -> None:
    known = list(known)
    if word not in known:
        raise ConfigError(f"{place}: unknown name {shown(word)}{suggestion(str(word), known)}", hint)


def _edit_hint(file: Path) -> str:
    return f"edit it, then: musicflamingo prompts check '{file}'"


# -- choosing -----------------------------------------------------------------------------------------


def require_caption_name(name: str) -> None:
    """Raise ConfigError where a preset's name is that of a sidecar key which holds no caption."""
    if _is_reserved(name):
        raise ConfigError(f"{name} is not a preset: that sidecar key is no caption", "see: musicflamingo prompts list")


def choose(presets: Mapping[str, Preset], names: Sequence[str]) -> list[Preset]:
    """Return the named presets in the order given, or the default ones. Raises ConfigError for an unknown name."""
    if not names:
        if not (chosen := [preset for preset in presets.values() if preset.default]):
            raise ConfigError(
                "no preset has `default: true`", "name one with --preset; see: musicflamingo prompts list"
            )
        return chosen
    for name in names:
        if name not in presets:
            raise ConfigError(f"no preset {name!r}{suggestion(name, presets)}", "see: musicflamingo prompts list")
    return [presets[name] for name in dict.fromkeys(names)]
