"""The presets: read strictly from YAML, overridden preset by preset, filled with what is known of a track."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musicflamingo_cli.errors import ConfigError, PromptError, nearest
from musicflamingo_cli.text.cleaning import TEMPLATE_TOKEN
from musicflamingo_cli.types import Prompt

DATASET_FILE = "musicflamingo-prompts.yaml"  # beside a dataset: presets of its own
VARIABLES = ("metadata", "title", "artist", "album", "year", "genre", "bpm", "key", "duration")
RESERVED_NAMES = ("model", "provenance", "approved")  # their sidecar keys mean something else

_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "prompt": str,
    "max_tokens": int,
    "default": bool,
    "system": str,
    "min_words": int,
    "lines": bool,
}
_VARIABLE = re.compile(r"\{([^{}]*)\}")
_OPTIONAL = re.compile(r"\[\[(.*?)\]\]", re.DOTALL)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, slots=True)
class Preset:
    """A question before its variables are filled in; ``origin`` is the file that it was read from."""

    name: str
    prompt: str
    max_tokens: int = 300
    default: bool = False
    system: str = ""
    min_words: int = 3
    lines: bool = False
    origin: Path | None = field(default=None, compare=False)

    @property
    def template_hash(self) -> str:
        """Names the question: it changes with the text, the system prompt or the token limit."""
        asked = "\0".join((self.prompt, self.system, str(self.max_tokens)))
        return hashlib.sha256(asked.encode()).hexdigest()[:16]

    def render(self, values: Mapping[str, str]) -> Prompt:
        """The prompt for one track. Raises PromptError when nothing of it is left."""
        text = fill(self.prompt, values)
        if not text:
            needed = ", ".join(dict.fromkeys(_VARIABLE.findall(self.prompt)))
            raise PromptError(
                f"the prompt {self.name} needs {needed}, which this track lacks",
                f"tag the track, or put that part in [[double brackets]]: musicflamingo prompts show {self.name}",
            )
        return Prompt(self.name, text, self.max_tokens, self.system, self.min_words, self.lines, self.template_hash)


def fill(template: str, values: Mapping[str, str]) -> str:
    """Fill in variables; a bracketed part or a sentence that lacks one goes, and leaves no hole.

    >>> fill("A song[[ by {artist}]]. It is in {key}. Describe it.", {"artist": "Nina"})
    'A song by Nina. Describe it.'
    """
    known = {name: _one_line(value) for name, value in values.items() if value and value.strip()}
    known.setdefault("metadata", "")  # a sentence by itself: without it nothing around it is lost

    def missing(part: str) -> bool:
        return any(name not in known for name in _VARIABLE.findall(part))

    text = _OPTIONAL.sub(lambda match: "" if missing(match[1]) else match[1], template)
    # Sentences are told apart before the values are in, since a value may hold a full stop of its own.
    kept = [sentence for sentence in _SENTENCE.split(text.strip()) if not missing(sentence)]
    filled = (_VARIABLE.sub(lambda match: known[match[1]], sentence) for sentence in kept)
    return " ".join(" ".join(filled).split())


def _one_line(value: str) -> str:
    """A tag as prompt text: short, on one line, without what would act as a template or move the audio."""
    value = value.encode("utf-8", "replace").decode()  # a lone surrogate cannot be passed on
    value = "".join(character if character.isprintable() else " " for character in value)
    return " ".join(TEMPLATE_TOKEN.sub(" ", value).replace("<__", " ").split())[:200].strip()


# -- reading ------------------------------------------------------------------------------------------


def load_presets(files: Iterable[Path]) -> dict[str, Preset]:
    """Presets from several files, later ones overriding earlier ones name by name."""
    presets: dict[str, Preset] = {}
    for file in files:
        presets.update(read_presets(file))
    return presets


def read_presets(file: Path) -> dict[str, Preset]:
    """The presets of one file. Raises ConfigError, which names the file, the place and the nearest right word."""
    import yaml

    try:
        data = yaml.load(file.read_text(encoding="utf-8-sig"), Loader=_strict_loader())
    except FileNotFoundError as error:
        raise ConfigError(f"no prompts file at {file}", "make one with: musicflamingo prompts init") from error
    except (OSError, UnicodeDecodeError, TypeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read as YAML: {error}", _check(file)) from error
    if not isinstance(data, dict) or not data:
        raise ConfigError(f"{file} must begin with `presets:`", _check(file))
    for key in data:
        _expect(key, ("presets",), file, "the top level")
    presets = data["presets"]
    if not isinstance(presets, dict) or not presets:
        raise ConfigError(f"{file}: `presets` must map names to prompts", _check(file))
    return {str(name): _read_preset(str(name), value, file) for name, value in presets.items()}


def _strict_loader() -> Any:
    """YAML's safe loader, but a key that stands twice is an error instead of a prompt lost in silence."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key_node, _ in node.value:
                if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor`
                    continue
                key = self.construct_object(key_node, deep=True)
                if key in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key!r} stands here twice", problem_mark=key_node.start_mark)
                seen.add(key)
            return super().construct_mapping(node, deep)

    return Loader


def _read_preset(name: str, value: object, file: Path) -> Preset:
    place = f"preset {name}"
    fields = {"prompt": value} if isinstance(value, str) else value
    if not isinstance(fields, dict):
        raise ConfigError(f"{file}: {place} must be a text, or a mapping with `prompt`", _check(file))
    for key, entry in fields.items():
        _expect(key, _FIELDS, file, place)
        if not isinstance(entry, _FIELDS[key]) or (isinstance(entry, bool) and _FIELDS[key] is not bool):
            raise ConfigError(f"{file}: {key} of {place} must be {_kind(_FIELDS[key])}, not {entry!r}", _check(file))
    preset = Preset(name, **{"prompt": "", **fields}, origin=file)
    return validate(preset, file)


def validate(preset: Preset, file: Path) -> Preset:
    """The preset, if it can be asked. Raises ConfigError, which names ``file`` as the place to mend."""
    place = f"{file}: preset {preset.name}"
    if not _NAME.fullmatch(preset.name) or preset.name in RESERVED_NAMES:
        allowed = f"lower-case letters, digits and _, but not {' or '.join(RESERVED_NAMES)}"
        raise ConfigError(f"{place}: a preset's name holds {allowed}", _check(file))
    if not preset.prompt.strip():
        raise ConfigError(f"{place} has no prompt", _check(file))
    if not 1 <= preset.max_tokens <= 4096 or preset.min_words < 1:
        raise ConfigError(f"{place}: max_tokens must be 1 to 4096 and min_words at least 1", _check(file))
    if not all(c.isprintable() or c in "\n\t" for c in preset.prompt + preset.system):
        raise ConfigError(f"{place} holds characters that cannot be shown", _check(file))
    if TEMPLATE_TOKEN.search(preset.prompt + preset.system):
        raise ConfigError(f"{place} holds a token of the chat template; the audio is placed for you", _check(file))
    for variable in _VARIABLE.findall(preset.prompt):
        _expect(variable, VARIABLES, file, f"the variables of preset {preset.name}")
    return preset


def _expect(word: object, known: Iterable[str], file: Path, place: str) -> None:
    known = list(known)
    if word not in known:
        raise ConfigError(f"{file}: {word!r} is not known in {place}{nearest(str(word), known)}", _check(file))


def _kind(expected: type | tuple[type, ...]) -> str:
    return {str: "text", int: "a whole number", bool: "true or false"}[expected]  # type: ignore[index]


def _check(file: Path) -> str:
    if file.name == "--ask":  # a question from the command line, not a file
        return "mend the question and ask again"
    return f"edit it, then: musicflamingo prompts check '{file}'"


def require_caption_name(name: str) -> None:
    """Raises ConfigError where a preset's name is that of a sidecar key which is no caption."""
    if name in RESERVED_NAMES:
        raise ConfigError(f"--preset {name}: that key of a sidecar is no caption", "see: musicflamingo prompts list")


def choose(presets: Mapping[str, Preset], names: Sequence[str]) -> list[Preset]:
    """The named presets in the order given, or the default ones. Raises ConfigError for an unknown name."""
    if not names:
        if not (chosen := [preset for preset in presets.values() if preset.default]):
            raise ConfigError(
                "no preset has `default: true`", "name one with --preset; see: musicflamingo prompts list"
            )
        return chosen
    for name in names:
        if name not in presets:
            raise ConfigError(f"no preset {name!r}{nearest(name, presets)}", "see: musicflamingo prompts list")
    return [presets[name] for name in dict.fromkeys(names)]
