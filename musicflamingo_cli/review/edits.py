"""What a person changes in a sidecar. Each change carries what it was based on, and is refused where that is gone."""

from __future__ import annotations

import getpass
import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from musicflamingo_cli.sidecars.captions import (
    APPROVED_KEY,
    EXCLUDED_KEY,
    NOTE_KEY,
    PROVENANCE_KEY,
    caption_key,
    captions_in,
    has_caption,
    is_edited,
    provenance_of,
)
from musicflamingo_cli.sidecars.merge import REMOVED
from musicflamingo_cli.types import KEY_PREFIX

Keys = Mapping[str, Any]
Decision = Callable[[Keys], Keys]  # from a sidecar's data to the keys to set


class ConflictError(Exception):
    """A sidecar no longer holds what a change was based on. ``theirs`` is what it holds now."""

    def __init__(self, preset: str, theirs: str, made: Mapping[str, Any]) -> None:
        super().__init__(f"{preset or 'it'} was changed by another program or person since it was read")
        self.preset = preset
        self.theirs = theirs
        self.made = made


class NothingToApproveError(Exception):
    """A track without captions cannot be approved."""


def base_of(text: Any) -> str:
    """Return what identifies a caption that a change is based on; a missing one has an identity, too."""
    text = text if isinstance(text, str) else ""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def user_name() -> str:
    """Return the name of the operating system's user."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def edit(preset: str, text: str, base: str) -> Decision:
    """Set a caption; the model's own text stays in the provenance."""

    def decide(info: Keys) -> Keys:
        key = caption_key(preset)
        require_base(info, preset, base)
        if info.get(key) == text:
            return {}
        made = dict(provenance_of(info, preset))
        if not is_edited(made) and has_caption(info, preset):
            made["model_text"] = info[key]
        made.pop("approved", None)
        made |= {"edited": True, "edited_by": user_name(), "edited_at": datetime.now(UTC).isoformat(timespec="seconds")}
        return {key: text, PROVENANCE_KEY: {preset: made}}

    return decide


def approve(bases: Mapping[str, str], is_approved: bool, preset: str = "") -> Decision:
    """Approve a preset's caption, or all of a track (no ``preset``), or take that back.

    ``bases``: of the captions that the person saw. A track whose captions are all approved is approved.
    """

    def decide(info: Keys) -> Keys:
        names = [key.removeprefix(KEY_PREFIX) for key in captions_in(info)]
        captioned = [name for name in names if has_caption(info, name)]
        concerned = [preset] if preset else captioned
        for name in concerned:
            require_base(info, name, bases.get(name, base_of("")))
        if is_approved and not any(has_caption(info, name) for name in concerned):
            raise NothingToApproveError
        if not preset:
            return {APPROVED_KEY: is_approved}
        made = {name: _approved(info, name) for name in captioned}
        now = {**made, preset: is_approved}
        provenance = {preset: _with_mark(info, preset, is_approved)}
        if info.get(APPROVED_KEY) is True and not is_approved:  # what the track's approval said of the others
            provenance |= {name: _with_mark(info, name, True) for name in captioned if name != preset}
        keys: dict[str, Any] = {PROVENANCE_KEY: provenance}
        if all(now.values()) != (info.get(APPROVED_KEY) is True):
            keys[APPROVED_KEY] = all(now.values())
        return keys

    return decide


def exclude(is_excluded: bool) -> Decision:
    """Keep a track out of exports, or take that back."""
    return lambda info: {EXCLUDED_KEY: is_excluded or REMOVED} if bool(info.get(EXCLUDED_KEY)) != is_excluded else {}


def note(text: str, base: str) -> Decision:
    """Set a person's note; an empty one is removed."""

    def decide(info: Keys) -> Keys:
        if base_of(info.get(NOTE_KEY)) != base:
            raise ConflictError("the note", str(info.get(NOTE_KEY) or ""), {})
        return {NOTE_KEY: text or REMOVED}

    return decide


def take(preset: str, base: str, keys: Callable[[Keys], Keys]) -> Decision:
    """Set a caption that the model was asked for again, which the person prefers and so approves.

    An approved track stays approved.
    """

    def decide(info: Keys) -> Keys:
        require_base(info, preset, base)
        taken = dict(keys(info))
        made = taken[PROVENANCE_KEY][preset]
        taken[PROVENANCE_KEY] = {preset: {**made, "approved": True}}
        return {**taken, APPROVED_KEY: True} if info.get(APPROVED_KEY) is True else taken

    return decide


def require_base(info: Keys, preset: str, base: str) -> None:
    """Raise ConflictError where a caption is not the one that a change was based on."""
    theirs = info.get(caption_key(preset))
    if base_of(theirs) != base:
        raise ConflictError(preset, theirs if isinstance(theirs, str) else "", provenance_of(info, preset))


def _approved(info: Keys, preset: str) -> bool:
    return info.get(APPROVED_KEY) is True or provenance_of(info, preset).get("approved") is True


def _with_mark(info: Keys, preset: str, is_approved: bool) -> dict[str, Any]:
    made = dict(provenance_of(info, preset))
    made.pop("approved", None)
    return {**made, "approved": True} if is_approved else made
