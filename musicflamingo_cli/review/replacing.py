"""Changes to many captions at once: find and replace, trigger words. First a preview, then the change."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from musicflamingo_cli.errors import ConfigError, SidecarError
from musicflamingo_cli.review.edits import ConflictError, Decision, base_of, edit
from musicflamingo_cli.review.library import Library
from musicflamingo_cli.sidecars.captions import caption_key, captions_in, has_caption, provenance_of
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.text.cleaning import normalize_text
from musicflamingo_cli.types import KEY_PREFIX

_LONGEST = 10_000  # characters to find, or to put in their place


class Kind(StrEnum):
    """What is done to each caption."""

    REPLACE = "replace"
    ADD_IN_FRONT = "add in front"
    ADD_AT_END = "add at end"
    REMOVE = "remove"  # a trigger word or sentence, from the front or the end


@dataclass(frozen=True, slots=True)
class Rewriting:
    """How captions are rewritten. ``presets``: which; none: all. The result is normalised as every caption is."""

    kind: Kind
    find: str
    replacement: str = ""
    match_case: bool = False
    whole_words: bool = False
    presets: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Rewriting:
        """Return what the page asks for. Raises ConfigError."""
        try:
            found = cls(
                kind=Kind(given.get("kind", "")),
                find=str(given.get("find", "")),
                replacement=str(given.get("replacement", "")),
                match_case=bool(given.get("matchCase")),
                whole_words=bool(given.get("wholeWords")),
                presets=tuple(map(str, given.get("presets") or ())),
            )
        except (ValueError, TypeError) as error:
            raise ConfigError("no such kind of change", "reload the page") from error
        if not found.find.strip() or max(len(found.find), len(found.replacement)) > _LONGEST:
            raise ConfigError("there is nothing to find", "type what to find or to add")
        return found

    def rewriter(self) -> Callable[[str], str]:
        """Return the function from a caption to the new one."""
        if self.kind == Kind.REPLACE:
            pattern = re.escape(self.find)
            pattern = rf"(?<!\w){pattern}(?!\w)" if self.whole_words else pattern
            compiled = re.compile(pattern, 0 if self.match_case else re.IGNORECASE)
            return lambda text: _clean(compiled.sub(lambda _: self.replacement, text), text)
        trigger = self.find.strip()
        if self.kind == Kind.REMOVE:
            return lambda text: _clean(_without(text, trigger), text)
        if self.kind == Kind.ADD_IN_FRONT:
            return lambda text: text if _begins(text, trigger) else _clean(f"{trigger} {text}", text)
        return lambda text: text if _ends(text, trigger) else _clean(f"{text} {trigger}", text)

    def may_match(self, text: str) -> bool:
        """Return whether an entry's searchable text may hold a caption that changes; cheap."""
        return self.kind in (Kind.ADD_IN_FRONT, Kind.ADD_AT_END) or self.find.strip().lower() in text

    @property
    def label(self) -> str:
        """What the change is called in undo."""
        return f"{self.kind} {self.find.strip()[:40]!r}"


def _clean(new: str, old: str) -> str:
    return old if new == old else normalize_text(new)


def _without(text: str, trigger: str) -> str:
    """Return a caption without a trigger at its front or end, with the comma that followed it."""
    if _begins(text.lower(), trigger.lower()):
        return text[len(trigger) :].lstrip(" ,;:")
    if _ends(text.lower(), trigger.lower()):
        return text[: -len(trigger)].rstrip(" ,;:")
    return text


def _begins(text: str, trigger: str) -> bool:
    """Return whether a text begins with a trigger, and not only with a longer word: `pop` is not in `popular`."""
    return text.startswith(trigger) and not (trigger[-1:].isalnum() and text[len(trigger) :][:1].isalnum())


def _ends(text: str, trigger: str) -> bool:
    return text.endswith(trigger) and not (trigger[:1].isalnum() and text[: -len(trigger)][-1:].isalnum())


def preview(library: Library, numbers: Iterable[int], rewriting: Rewriting, most: int) -> dict[str, Any]:
    """Return what would change, each with what it is based on; at most ``most`` in full, the number of all."""
    rewrite = rewriting.rewriter()
    items: list[dict[str, Any]] = []
    emptied = 0
    for number in numbers:
        entry = library.entry(number)
        if entry is None or not rewriting.may_match(entry.text):
            continue
        try:
            info = read_sidecar(entry.track.sidecar)
        except SidecarError:
            continue
        for preset, before, after in _changes(info, rewriting.presets, rewrite):
            if not after:
                emptied += 1
                continue
            item = {"id": number, "preset": preset, "base": base_of(before)}
            if len(items) < most:
                item |= {"name": entry.row()["name"], "before": before, "after": after}
            items.append(item)
    return {"items": items, "emptied": emptied}


def _changes(
    info: Mapping[str, Any], presets: Sequence[str], rewrite: Callable[[str], str]
) -> Iterable[tuple[str, str, str]]:
    for key, before in captions_in(info).items():
        preset = key.removeprefix(KEY_PREFIX)
        if (not presets or preset in presets) and has_caption(info, preset) and (after := rewrite(before)) != before:
            yield preset, before, after


def decisions(items: Iterable[Any], rewriting: Rewriting) -> dict[int, Decision]:
    """Return the change of each track, from the items of a preview that the person kept. Raises ConfigError."""
    wanted: dict[int, dict[str, str]] = {}
    try:
        for item in items:
            wanted.setdefault(int(item["id"]), {})[str(item["preset"])] = str(item["base"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError("the list of changes is not valid", "reload the page") from error
    rewrite = rewriting.rewriter()
    return {number: _decision(bases, rewrite) for number, bases in wanted.items()}


def _decision(bases: Mapping[str, str], rewrite: Callable[[str], str]) -> Decision:
    def decide(info: Mapping[str, Any]) -> Mapping[str, Any]:
        keys: dict[str, Any] = {}
        for preset, base in bases.items():
            text = info.get(caption_key(preset))
            if not isinstance(text, str) or base_of(text) != base:
                raise ConflictError(preset, text if isinstance(text, str) else "", provenance_of(info, preset))
            for key, value in edit(preset, rewrite(text), base)(info).items():
                keys[key] = {**keys.get(key, {}), **value} if isinstance(value, dict) else value
        return keys

    return decide
