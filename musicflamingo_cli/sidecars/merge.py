"""Merging captions into the `.INFO` sidecar without touching a byte of other tools' data.

Values of other tools are never decoded and written again: the file's text is kept and only the spans of our
own keys are replaced. So NaN, 1e400, 0.10, duplicate keys and lone surrogates survive as they were.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musicflamingo_cli.sidecars.captions import APPROVED_KEY, DERIVED_KEYS, MODEL_KEY, PROVENANCE_KEY
from musicflamingo_cli.sidecars.file import left_untouched, read_text, rewrite
from musicflamingo_cli.types import KEY_PREFIX, REASONING_SUFFIX

_SPACE = re.compile(r"[ \t\r\n]*")
_decoder = json.JSONDecoder()


def read_sidecar(path: Path | str) -> dict[str, Any]:
    """Return all keys of a sidecar; an empty dict where there is no file. Raises SidecarError for anything else."""
    path = Path(path)
    text = read_text(path)
    return _parse(text, path) if text is not None else {}


def merge_sidecar(path: Path | str, ours: Mapping[str, Any], within: Path | None = None) -> bool:
    """Set our keys in a sidecar, under its lock and durably; return whether anything changed.

    ``ours`` maps keys that begin with ``music_flamingo_`` to JSON values. The provenance object is merged preset by
    preset, and captions that change are no longer approved. ``within``: see Track. Raises SidecarError, and then the
    file is unchanged.
    """
    path = Path(path)
    return rewrite(path, lambda text: merged_text(text, ours, path), within)


def merged_text(text: str | None, ours: Mapping[str, Any], path: Path) -> str:
    """Return a sidecar's text (None: there is none yet) with our keys set; see ``merge_sidecar``.

    ``path`` is for messages. Raises SidecarError.
    """
    foreign = [key for key in ours if not key.startswith(KEY_PREFIX)]
    if foreign:
        raise ValueError(f"keys must begin with {KEY_PREFIX}: {foreign}")
    try:
        return _merged(text, dict(ours), path)
    except RecursionError as error:
        raise left_untouched(path, "its values are nested too deeply") from error


def _merged(text: str | None, values: dict[str, Any], path: Path) -> str:
    ours = dict(values)
    before = _parse(text, path) if text is not None else {}
    if PROVENANCE_KEY in values and isinstance(before.get(PROVENANCE_KEY), dict):
        values[PROVENANCE_KEY] = {**before[PROVENANCE_KEY], **values[PROVENANCE_KEY]}
    made = {key: value for key, value in ours.items() if key not in DERIVED_KEYS}
    if before.get(APPROVED_KEY) and any(before.get(key) != value for key, value in made.items()):
        values.setdefault(APPROVED_KEY, False)  # not all of the captions are now those that were approved
        values[PROVENANCE_KEY] = _with_approvals(before, values)
    if PROVENANCE_KEY in values:
        values[PROVENANCE_KEY] = _finite(values[PROVENANCE_KEY])
    return splice(text, values, path)


def parse_sidecar(data: bytes, path: Path) -> dict[str, Any]:
    """Return all keys of a sidecar's bytes; ``path`` is for messages. Raises SidecarError."""
    try:
        return _parse(data.decode("utf-8"), path)
    except UnicodeDecodeError as error:
        raise left_untouched(path, "it is not UTF-8 text") from error


def _with_approvals(before: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance, with a mark on each approved caption that stays."""
    made = values.get(PROVENANCE_KEY) or before.get(PROVENANCE_KEY)
    made = dict(made) if isinstance(made, dict) else {}
    for key, caption in before.items():
        is_caption = key.startswith(KEY_PREFIX) and key != MODEL_KEY and not key.endswith(REASONING_SUFFIX)
        is_caption = is_caption and isinstance(caption, str)
        if is_caption and values.get(key, caption) == caption:
            known = made.get(preset := key.removeprefix(KEY_PREFIX))
            made[preset] = {**(known if isinstance(known, dict) else {}), "approved": True}
    return made


def _finite(value: Any) -> Any:
    """The value with null for numbers that JSON has no way to write, such as what 1e400 is read as."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def splice(text: str | None, values: Mapping[str, Any], path: Path = Path("sidecar")) -> str:
    """Return the JSON text with ``values`` set at its top level; every other byte stays as it is."""
    if text is None or not text.strip():
        return _json(dict(values), 2) + "\n"
    _parse(text, path)
    members = list(_members(text))
    if not members:  # `{}`: the first keys get lines of their own, inside what surrounds the braces
        return (
            text[: text.index("{")]
            + json.dumps(dict(values), indent=2, ensure_ascii=False)
            + text[text.rindex("}") + 1 :]
        )
    known = {member.key for member in members}
    pieces, position = [], 0
    for member in members:
        if member.key in values:
            pieces += [text[position : member.start], _dump(values[member.key], text)]
            position = member.end
    end = members[-1].end
    pieces.append(text[position:end])
    indent = _indent(text)
    pieces += [
        f",{indent}{_dump(key, text)}: {_dump(value, text)}" for key, value in values.items() if key not in known
    ]
    return "".join([*pieces, text[end:]])


@dataclass(frozen=True, slots=True)
class _Member:
    """A top-level key and the span of its value in the text."""

    key: str
    start: int
    end: int


def _members(text: str) -> Iterator[_Member]:
    """The members of a text that is one valid JSON object (RFC 8259, and Python's NaN)."""
    position = _skip_space(text, text.index("{") + 1)
    while text[position] == '"':
        key, position = _decoder.raw_decode(text, position)
        start = _skip_space(text, _skip_space(text, position) + 1)  # past the colon
        _, end = _decoder.raw_decode(text, start)
        yield _Member(key, start, end)
        position = _skip_space(text, end)
        if text[position] == ",":
            position = _skip_space(text, position + 1)


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match
    return match.end()


def _indent(text: str) -> str:
    """The white space before a new member: that before the first one, so that the style is kept."""
    start = text.index("{") + 1
    return text[start : _skip_space(text, start)] or " "


def _dump(value: Any, text: str) -> str:
    """A value as indented JSON for the top level of ``text``: on one line where the file is one line."""
    if "\n" not in text.strip():
        return _json(value)
    newline = "\r\n" if "\r\n" in text else "\n"
    return _json(value, 2).replace("\n", f"{newline}  ")


def _json(value: Any, indent: int | None = None) -> str:
    """JSON with letters as they are, escaped only where they could not be written (lone surrogates)."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text


def _parse(text: str, path: Path) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        data = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise left_untouched(path, f"it is not valid JSON ({error})") from error
    if not isinstance(data, dict):
        raise left_untouched(path, "it holds no JSON object")
    return data
