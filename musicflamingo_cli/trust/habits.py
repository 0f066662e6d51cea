"""What a model answers about silence and noise, kept in the cache; and how other answers to one prompt agree.

Both only give doubt: a claim that a model makes whatever it hears, or makes only once in a while, is likely a guess.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from musicflamingo_cli.paths import habits_cache_dir, read_regular
from musicflamingo_cli.sidecars.captions import SAMPLES_KEY, provenance_of
from musicflamingo_cli.trust.check import COMPARED, agrees, evidence_key
from musicflamingo_cli.trust.claims import Claim, Field, claims_in
from musicflamingo_cli.trust.verdicts import Evidence, Source, Verdict

_FEWEST = 2  # answers that name a field, for a share of them to say anything
_NO_HABIT = (Field.MOOD, Field.ABSENT, Field.LENGTH)  # of silence these may well be true

_HASH = re.compile("[0-9a-f]{1,64}")


def habit_file(model_identity: str, template_hash: str) -> Path:
    """Return where the habit of a model with a preset is kept."""
    return habits_cache_dir() / f"{model_identity}-{template_hash}.json"


def save_habit(model_identity: str, template_hash: str, answers: Iterable[str]) -> None:
    """Keep what a model's answers about silence and noise claim. Raises OSError."""
    claimed = sorted({_name(claim) for text in answers for claim in claims_in(text) if claim.field not in _NO_HABIT})
    path = habit_file(model_identity, template_hash)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps({"claims": claimed}), encoding="utf-8")
    temporary.replace(path)
    habit_of.cache_clear()


@functools.lru_cache(maxsize=256)
def habit_of(model_identity: str, template_hash: str) -> frozenset[str] | None:
    """Return the claims of a habit as `tempo/120`; None where it was never looked for.

    The names come from sidecars, which strangers may have made: they are hashes, never a path.
    """
    if not (_HASH.fullmatch(model_identity) and _HASH.fullmatch(template_hash)):
        return None
    try:
        found = json.loads(read_regular(habit_file(model_identity, template_hash)))
        return frozenset(map(str, found["claims"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def agreement(caption: str, answers: Sequence[str]) -> dict[str, list[int]]:
    """Return for claims of a caption how many answers agree, and how many name such a thing: `tempo/120` to [3, 4]."""
    found: dict[str, list[int]] = {}
    others = [claims_in(text) for text in answers]
    for claim in claims_in(caption):
        if claim.field not in COMPARED:
            continue
        named = [[each for each in claims if each.field == claim.field] for claims in others]
        named = [each for each in named if each]
        agreeing = sum(any(agrees(claim, each) for each in claims) for claims in named)
        found[_name(claim)] = [agreeing, len(named)]
    return found


def samples_value(caption: str, answers: Sequence[str]) -> dict[str, Any]:
    """Return what the sidecar keeps of the answers to a caption's prompt."""
    return {"caption": digest(caption), "answers": len(answers), "agreement": agreement(caption, answers)}


def has_samples(info: Mapping[str, Any], preset: str, caption: str, number: int) -> bool:
    """Return whether a sidecar's data holds so many answers, or more, for this caption."""
    found = _samples(info, preset, caption)
    return isinstance(found.get("answers"), int) and found["answers"] >= number


def further_evidence(info: Mapping[str, Any], captions: Mapping[str, str]) -> dict[str, list[Evidence]]:
    """Return what samples and habits say of the claims, by ``evidence_key``."""
    found: dict[str, list[Evidence]] = {}
    for preset, caption in captions.items():
        made = provenance_of(info, preset)
        habit = habit_of(str(made.get("model_identity")), str(made.get("template"))) or frozenset()
        shares = _samples(info, preset, caption).get("agreement")
        if not habit and not shares:
            continue
        for claim in claims_in(caption):
            evidence = found.setdefault(evidence_key(preset, claim), [])
            if not evidence and isinstance(shares, dict):
                evidence += _from_shares(shares.get(_name(claim)))
            if _name(claim) in habit and not any(each.source == Source.HABIT for each in evidence):
                evidence.append(Evidence(Source.HABIT, Verdict.CONTRADICTED, "the model's habit"))
    return found


def _from_shares(share: Any) -> list[Evidence]:
    if not isinstance(share, list) or len(share) != 2 or not all(isinstance(each, int) for each in share):
        return []
    agreeing, named = share
    if named < _FEWEST:
        return []
    verdict = Verdict.SUPPORTED if 2 * agreeing >= named else Verdict.CONTRADICTED
    return [Evidence(Source.SAMPLES, verdict, f"{agreeing} of {named} agree")]


def _samples(info: Mapping[str, Any], preset: str, caption: str) -> Mapping[str, Any]:
    """The answers that a sidecar's data holds for a caption; empty where they are of another one."""
    all_samples = info.get(SAMPLES_KEY)
    found = all_samples.get(preset) if isinstance(all_samples, dict) else None
    return found if isinstance(found, dict) and found.get("caption") == digest(caption) else {}


def _name(claim: Claim) -> str:
    return f"{claim.field}/{claim.value}"


def digest(caption: str) -> str:
    """Return a hash of a caption."""
    return hashlib.sha256(caption.encode()).hexdigest()[:16]
