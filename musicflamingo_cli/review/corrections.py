"""A contradicted tempo or key of a track's captions, replaced by the known one: one key instead of an edit for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from musicflamingo_cli.review.edits import Decision, edit, require_base
from musicflamingo_cli.sidecars.captions import caption_key
from musicflamingo_cli.sidecars.checks import descriptions
from musicflamingo_cli.trust.check import check_captions
from musicflamingo_cli.trust.known import Known, known_of
from musicflamingo_cli.trust.revision import Revision, revise


def corrections_of(info: Mapping[str, Any], known: Known) -> dict[str, Revision]:
    """Return the captions that can be corrected, by preset: as `export --correct` would write them."""
    found = {}
    for preset, text in descriptions(info).items():
        revision = revise(preset, text, check_captions({preset: text}, known), known, strike=False, correct=True)
        if revision.changes:
            found[preset] = revision
    return found


def correct(bases: Mapping[str, str], audio: Path, presets: Iterable[str]) -> Decision:
    """Correct every caption of a track that can be; ``bases``: of the captions that the person saw."""

    def decide(info: Mapping[str, Any]) -> Mapping[str, Any]:
        for preset, base in bases.items():
            require_base(info, preset, base)
        keys: dict[str, Any] = {}
        for preset, revision in corrections_of(info, known_of(info, audio, presets)).items():
            if preset not in bases:  # written since the person looked
                continue
            for key, value in edit(preset, revision.text, bases[preset])(info).items():
                keys[key] = value if key == caption_key(preset) else {**keys.get(key, {}), **value}
        return keys

    return decide
