"""Merging captions into the `.INFO` sidecar without touching a byte of other tools' data.

Values of other tools are never decoded and written again: the file's text is kept and only the spans of our
own keys are replaced. So NaN, 1e400, 0.10, duplicate keys and lone surrogates survive as they were.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from musicflamingo_cli.sidecars.captions import APPROVED_KEY, MARKS, PROVENANCE_KEY, captions_in
from musicflamingo_cli.sidecars.file import left_untouched, read_text, rewrite
from musicflamingo_cli.types import KEY_PREFIX

_SPACES = " \t\r\n"
_SPACE = re.compile(rf"[{_SPACES}]*")
_SPACE_AND_SEPARATOR = re.compile(rf"[{_SPACES}]*[:,]?[{_SPACES}]*")
_DEEPEST, _TOO_DEEP = 100, "its values are nested too deeply"
_decoder = json.JSONDecoder()


class Removal(Enum):
    """The value of a key that is to be removed from a sidecar."""

    REMOVED = "removed"


REMOVED = Removal.REMOVED


def read_sidecar(path: Path | str) -> dict[str, Any]:
    """Return all keys of a sidecar; an empty dict where there is no file. Raises SidecarError for anything else."""
    path = Path(path)
    text = read_text(path)
    return _parse(text, path) if text is not None else {}


def merge_sidecar(path: Path | str, ours: Mapping[str, Any], within: Path | None = None) -> bool:
    """Set our keys in a sidecar, under its lock and durably; return whether anything changed.

    ``ours`` maps keys that begin with ``music_flamingo_`` to JSON values, or to REMOVED. The provenance object is
    merged preset by preset (an empty provenance goes), and captions that change are no longer approved. ``within``: see
    Track. Raises SidecarError, and then the file is unchanged.
    """
    path = Path(path)
    return rewrite(path, lambda text: merged_text(text, lambda before: ours, path)[1], within)


@dataclass(frozen=True, slots=True)
class Update:
    """What a sidecar held before and after it was updated, and whether the file changed."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    changed: bool


def update_sidecar(
    path: Path | str, decide: Callable[[Mapping[str, Any]], Mapping[str, Any]], within: Path | None = None
) -> Update:
    """Set the keys that ``decide`` returns for a sidecar's data, all under its lock, as ``merge_sidecar`` does.

    What ``decide`` raises is re-raised, and then the file is unchanged; it may be called again where a program that
    does not lock changed the file meanwhile.
    """
    path = Path(path)
    found: dict[str, Mapping[str, Any]] = {}

    def change(text: str | None) -> str | None:
        before, after = merged_text(text, decide, path)
        found["before"] = found["after"] = before
        if after is not None and after != text:
            found["after"] = _parse(after, path)
        return after

    was_written = rewrite(path, change, within)
    return Update(before=found["before"], after=found["after"], changed=was_written)


def merged_text(
    text: str | None, decide: Callable[[Mapping[str, Any]], Mapping[str, Any]], path: Path
) -> tuple[Mapping[str, Any], str | None]:
    """Return a sidecar's data, and its text with the keys that ``decide`` returns for them; see ``merge_sidecar``.

    ``text``: None where there is no sidecar, and the new one where there is nothing to write. ``path`` is for messages.
    Raises SidecarError.
    """
    try:
        before = _parse(text, path) if text is not None else {}
        values = _merged(before, decide(before))
        return before, _spliced(text, values, before) if values else text
    except RecursionError as error:
        raise left_untouched(path, _TOO_DEEP) from error


def parse_sidecar(data: bytes, path: Path) -> dict[str, Any]:
    """Return all keys of a sidecar's bytes; ``path`` is for messages. Raises SidecarError."""
    try:
        return _parse(data.decode("utf-8"), path)
    except UnicodeDecodeError as error:
        raise left_untouched(path, "it is not UTF-8 text") from error


def _merged(before: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """The values to set, with the provenance of other presets and without approvals that no longer hold."""
    if foreign := [key for key in ours if not key.startswith(KEY_PREFIX)]:
        raise ValueError(f"keys must begin with {KEY_PREFIX}: {foreign}")
    values = dict(ours)
    known = before.get(PROVENANCE_KEY)
    if isinstance(values.get(PROVENANCE_KEY), dict) and isinstance(known, dict):
        values[PROVENANCE_KEY] = {**known, **values[PROVENANCE_KEY]}
    # How captions were made, and of which file, may be recorded again: what was approved is their text.
    made = {key: value for key, value in ours.items() if key not in MARKS and key != PROVENANCE_KEY}
    is_other = any(before.get(key) != value for key, value in made.items())
    if before.get(APPROVED_KEY) and is_other and APPROVED_KEY not in values:
        values[APPROVED_KEY] = False  # not all of the captions are now those that were approved
        values[PROVENANCE_KEY] = _with_approvals(before, values)
    if isinstance(merged := values.get(PROVENANCE_KEY), dict):
        values[PROVENANCE_KEY] = _finite({preset: each for preset, each in merged.items() if each != {}}) or REMOVED
    return values


def _with_approvals(before: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance, with a mark on each approved caption that stays."""
    made = values.get(PROVENANCE_KEY) or before.get(PROVENANCE_KEY)
    made = dict(made) if isinstance(made, dict) else {}
    for key, caption in captions_in(before).items():
        if values.get(key, caption) == caption:
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
    """Return the JSON text with ``values`` set (or REMOVED) at its top level; every other byte stays as it is.

    Raises SidecarError where the text is not a JSON object.
    """
    return _spliced(text, values, _parse(text, path) if text is not None else {})


def _spliced(text: str | None, values: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """See ``splice``; the text is valid, and holds ``before``."""
    present = {key: value for key, value in values.items() if value is not REMOVED}
    if text is None or not text.strip():
        return _json(present, 2) + "\n"
    if before and not any(key in before for key in values):  # nothing to replace: no need to know where each member is
        end = len(text[: text.rindex("}")].rstrip(_SPACES))
        return "".join([text[:end], *_appended(text, present), text[end:]])
    members = list(_members(text))
    if not members:  # `{}`: the first keys get lines of their own, inside what surrounds the braces
        return text[: text.index("{")] + _json(present, 2) + text[text.rindex("}") + 1 :]
    known = {member.key for member in members}
    pieces: list[str] = []
    for number, member in enumerate(members):
        if (value := values.get(member.key)) is REMOVED:
            continue
        if pieces:  # what separates it from the member before it
            pieces.append(text[members[number - 1].end : member.key_start])
        pieces.append(text[member.key_start : member.start])
        pieces.append(_dump(value, text) if member.key in values else text[member.start : member.end])
    added = "".join(_appended(text, {key: value for key, value in present.items() if key not in known}))
    pieces.append(added if pieces else added.removeprefix("," + _indent(text)))
    return "".join([text[: members[0].key_start], *pieces, text[members[-1].end :]])


def _appended(text: str, values: Mapping[str, Any]) -> Iterator[str]:
    """The new members as they follow the last one of ``text``."""
    indent = _indent(text)
    for key, value in values.items():
        yield f",{indent}{_dump(key, text)}: {_dump(value, text)}"


class _Member(NamedTuple):
    """A top-level key, where it begins, and the span of its value in the text."""

    key: str
    key_start: int
    start: int
    end: int


def _members(text: str) -> Iterator[_Member]:
    """The members of a text that is one valid JSON object (RFC 8259, and Python's NaN)."""
    scan, skip = _decoder.raw_decode, _SPACE_AND_SEPARATOR.match  # bound once: a sidecar has some hundred members
    position = _end(skip(text, text.index("{") + 1))
    while text[position] == '"':
        key, key_end = scan(text, position)
        start = _end(skip(text, key_end))
        _, end = scan(text, start)
        yield _Member(key=key, key_start=position, start=start, end=end)
        position = _end(skip(text, end))


def _end(match: re.Match[str] | None) -> int:
    assert match
    return match.end()


def _indent(text: str) -> str:
    """The white space before a new member: that before the first one, so that the style is kept."""
    start = text.index("{") + 1
    return text[start : _end(_SPACE.match(text, start))] or " "


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
    # Who reads the values recurses through them. Most texts hold too few brackets for that to matter.
    if text.count("[") + text.count("{") > _DEEPEST and _is_deep(data):
        raise left_untouched(path, _TOO_DEEP)
    return data


def _is_deep(data: Any) -> bool:
    level = [data]
    for _ in range(_DEEPEST):
        level = [each for value in level for each in (value.values() if isinstance(value, dict) else value)]
        level = [each for each in level if isinstance(each, (dict, list))]
    return bool(level)
